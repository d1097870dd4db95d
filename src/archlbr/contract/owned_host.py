"""The designs in which the registers have an owner: `archlbr`, `mediated`, `mediated-lbr`; `request_host` adds to it.

`actors` has the model, `perf.owned` perf's steps, `vpmu.designs.handover` KVM's. A step named in `Sharing.lost` is left
out: that is a naive design, or a seeded bug (`bugs`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.contract import world as at
from archlbr.contract.actors import G2, H4, M1_LIVE
from archlbr.contract.owned_guest import OwnedGuest
from archlbr.contract.world import Cpu, Ghost, World
from archlbr.lbr.tagged import HOST, NOBODY, VM, Lbrs
from archlbr.perf import owned
from archlbr.perf.events import ACTIVE, INACTIVE, OFF, PENDING, REFUSED
from archlbr.vpmu.designs import handover

if TYPE_CHECKING:
    from archlbr.vpmu.designs.sharing import Vcpu


class OwnedHost(OwnedGuest):
    """An owner design in one scenario."""

    steps = frozenset({"stop_host", "load_guest", "save_guest", "start_host", "grant"})

    def settled(self, world: World) -> World:
        """Return the world with each claim granted and nothing seen."""
        for c, cpu in enumerate(world.cpus):
            if cpu.phase == at.CLAIM:
                world = self.moves["grant"](world, c, 0) or world
        return world._replace(seen=0)

    # KVM's run loop

    def _on_enter(self, w: World, c: int, _: int) -> World:
        cpu = w.cpus[c]
        snapshot = cpu.lbr.enable if self.sharing.restores_host else 0
        return self.moved(w, c, Cpu(cpu.thread, at.ENTRY, cpu.lbr, cpu.perf, snapshot, cpu.owner))

    def _resident(self, cpu: Cpu, vcpu: Vcpu) -> bool:
        if "load-empty" in self.lost and not vcpu.image:
            return True
        if "resident-nobody" in self.lost and cpu.owner == NOBODY:
            return True
        return handover.resident(cpu.owner, cpu.thread - 1) and "lazy" not in self.lost

    def _on_stop_host(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        if self._resident(cpu, w.vcpus[cpu.thread - 1]):
            return None
        lbr = cpu.lbr if "stop" in self.lost else owned.stopped(cpu.lbr)
        return self.moved(w, c, Cpu(cpu.thread, at.ENTRY_STOPPED, lbr, cpu.perf, cpu.snapshot, NOBODY))

    def _on_load_guest(self, w: World, c: int, _: int) -> World:
        cpu = w.cpus[c]
        v = cpu.thread - 1
        lbr = handover.loaded(cpu.lbr, w.vcpus[v], self.lost)
        owner = HOST if "load-owner" in self.lost else VM + v
        return self.moved(w, c, Cpu(cpu.thread, at.ENTRY_LOADED, lbr, cpu.perf, cpu.snapshot, owner))

    def _on_vmenter(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        if cpu.phase == at.ENTRY and not self._resident(cpu, w.vcpus[cpu.thread - 1]):
            return None
        return self.entered(w, c)

    def entered(self, w: World, c: int) -> World:
        """Return the world in the guest."""
        cpu = w.cpus[c]
        v = cpu.thread - 1
        vcpu = w.vcpus[v]
        enable = handover.enable_in_guest(vcpu, cpu.lbr.enable, self.lost)
        if "vmenter-muted" in self.lost and cpu.perf.event == ACTIVE:
            enable = 0
        starved = int(vcpu.enable and vcpu.level == 1 and not (enable and cpu.owner == VM + v))
        lbr = Lbrs(enable, cpu.lbr.select, cpu.lbr.stack)
        after = Cpu(cpu.thread, at.GUEST, lbr, cpu.perf, cpu.snapshot, cpu.owner)
        if not w.ghosts[v].moved & 1 and starved == vcpu.starved:
            return self.moved(w, c, after)
        seen, ghost = self.judged_arrival(v, w.ghosts[v], self.seen_by_guest(after, vcpu))
        return self.with_vcpu(w, c, after, v, seen, vcpu=vcpu._replace(starved=starved), ghost=ghost)

    def _on_reenter(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        if cpu.phase == at.EXIT_DONE and "reenter-done" not in self.lost:
            return None
        return self.entered(w, c)

    def _on_exit(self, w: World, c: int, _: int) -> World:
        cpu, seen = self.left(w, c)
        return self.moved(w, c, cpu, seen)

    def _stays(self, cpu: Cpu) -> bool:
        # Nobody in the host wants the registers: they stay as the guest left them.
        wanted = cpu.perf.event == ACTIVE and "exit-wants" not in self.lost
        return not wanted and "lazy" not in self.lost

    def _on_save_guest(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        if self._stays(cpu):
            return None
        v = cpu.thread - 1
        owner = HOST if "exit-owner" in self.lost else NOBODY
        after = Cpu(cpu.thread, at.EXIT_SAVED, cpu.lbr, cpu.perf, cpu.snapshot, owner)
        if "save" in self.lost or "save-late" in self.lost:
            return self.moved(w, c, after)
        return self.with_vcpu(w, c, after, v, vcpu=handover.saved(cpu.lbr, w.vcpus[v]))

    def _started(self, lbr: Lbrs, *, wipes: bool) -> Lbrs:
        lost = self.lost
        return owned.started(lbr, wipes=wipes, enables="start-enable" not in lost, selects="start-select" not in lost)

    def _on_start_host(self, w: World, c: int, _: int) -> World:
        cpu = w.cpus[c]
        wanted = cpu.perf.event == ACTIVE
        lbr = self._started(cpu.lbr, wipes="start-wipe" not in self.lost) if wanted else owned.stopped(cpu.lbr)
        after = Cpu(cpu.thread, at.EXIT_DONE, lbr, cpu.perf, 0, HOST if wanted else NOBODY)
        seen = self.coherent(lbr, after.owner, cpu.perf.event)
        if "save-late" in self.lost:
            v = cpu.thread - 1
            return self.with_vcpu(w, c, after, v, seen, vcpu=handover.saved(lbr, w.vcpus[v]))
        return self.moved(w, c, after, seen)

    def _on_irqs_on(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        if cpu.phase == at.EXIT and not self._stays(cpu):
            return None
        seen = H4 if cpu.perf.event == ACTIVE and cpu.owner != HOST else 0
        return self.moved(w, c, Cpu(cpu.thread, at.HOST_ON, cpu.lbr, cpu.perf, 0, cpu.owner), seen)

    # Leaving a pCPU

    def put_back(self, w: World, c: int, *, keeps: bool = False) -> World:
        """Return the world after vcpu_put(): what the registers hold of the vCPU is saved."""
        cpu = w.cpus[c]
        v = cpu.thread - 1
        if not cpu.thread or cpu.owner != VM + v or keeps:
            return w
        owner = cpu.owner if "put-owner" in self.lost else NOBODY
        after = Cpu(cpu.thread, cpu.phase, cpu.lbr, cpu.perf, cpu.snapshot, owner)
        if "put-save" in self.lost:
            return self.moved(w, c, after)
        return self.with_vcpu(w, c, after, v, vcpu=handover.saved(cpu.lbr, w.vcpus[v]))

    def _on_switch(self, w: World, c: int, to: int) -> World:
        w = self.put_back(w, c)
        cpu, ghosts = w.cpus[c], w.ghosts
        lbr, perf, owner = cpu.lbr, cpu.perf, cpu.owner
        if self.opened[c].task and to and perf.event == ACTIVE:
            lbr = lbr if "task-stop" in self.lost else owned.stopped(lbr)
            perf, owner = perf._replace(event=INACTIVE), NOBODY
        elif self.opened[c].task and not to and perf.event == INACTIVE and perf.ran:
            lbr, perf, owner = self._started(lbr, wipes=True), perf._replace(event=ACTIVE), HOST
        if to:
            ghost = self.arrived(c, ghosts[to - 1])
            if ghost is not ghosts[to - 1]:
                ghosts = at.put(ghosts, to - 1, ghost)
        after = Cpu(to, at.HOST_ON, lbr, perf, 0, owner)
        return World(at.put(w.cpus, c, after), w.tasks, w.vcpus, ghosts, self.switched_seen(after))

    def switched_seen(self, cpu: Cpu) -> int:
        """Return what a switch leaves broken: an event that runs without the registers, or recording without one."""
        return self.coherent(cpu.lbr, cpu.owner, cpu.perf.event)

    def _on_to_user(self, w: World, c: int, _: int) -> World:
        w = self.put_back(w, c, keeps="put-user" in self.lost)
        cpu = w.cpus[c]
        return self.moved(w, c, Cpu(cpu.thread, at.USER, cpu.lbr, cpu.perf, 0, cpu.owner))

    def _on_to_kernel(self, w: World, c: int, _: int) -> World:
        cpu = w.cpus[c]
        return self.moved(w, c, Cpu(cpu.thread, at.HOST_ON, cpu.lbr, cpu.perf, 0, cpu.owner))

    # Host code and host events

    def _on_host_branch(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        if not cpu.lbr.enable:
            return None
        lbr, seen = self.host_branch(cpu, int(cpu.owner == HOST and cpu.perf.event == ACTIVE))
        return self.moved(w, c, cpu._replace(lbr=lbr), seen) if seen or lbr != cpu.lbr else None

    def _on_install(self, w: World, c: int, _: int) -> World | None:
        if self.scenario.events[c] is None or w.cpus[c].perf.event != OFF:
            return None
        if self.sharing.refuses_guest_events and not self.opened[c].exclude_guest:
            return self.moved(w, c, w.cpus[c]._replace(perf=w.cpus[c].perf._replace(event=REFUSED)))
        return self.claimed(w, c)

    def _on_enable(self, w: World, c: int, _: int) -> World | None:
        return self.claimed(w, c) if w.cpus[c].perf.event == INACTIVE else None

    def claimed(self, w: World, c: int) -> World | None:
        """Return the world after perf's IPI wants the registers: the first half of a claim, or all of it."""
        cpu = w.cpus[c]
        if self.opened[c].task and cpu.thread:
            return None
        perf = cpu.perf._replace(event=ACTIVE, ran=self.opened[c].task)
        if cpu.owner < VM:
            lbr = self._started(cpu.lbr, wipes=True)
            return self.moved(w, c, Cpu(cpu.thread, cpu.phase, lbr, perf, cpu.snapshot, HOST))
        if "claim-defer" in self.lost:
            return self.moved(w, c, cpu._replace(perf=perf._replace(event=PENDING)))
        v = cpu.owner - VM
        owner = HOST if "claim-early" in self.lost else NOBODY
        if "claim-owner" in self.lost:
            owner = cpu.owner
        after = Cpu(cpu.thread, at.CLAIM, cpu.lbr, perf, cpu.phase, owner)
        if "claim-save" in self.lost:
            return self.moved(w, c, after)
        return self.with_vcpu(w, c, after, v, vcpu=handover.saved(cpu.lbr, w.vcpus[v]))

    def _on_grant(self, w: World, c: int, _: int) -> World | None:
        if "claim-stuck" in self.lost:
            return None
        # The phase to go back to waits in the place of the snapshot, which nobody needs with interrupts on.
        cpu = w.cpus[c]
        lbr = self._started(cpu.lbr, wipes="claim-wipe" not in self.lost)
        owner = cpu.owner if "claim-owner" in self.lost else HOST
        if "claim-half" in self.lost:
            lbr = cpu.lbr
        after = Cpu(cpu.thread, cpu.snapshot, lbr, cpu.perf, 0, owner)
        return self.moved(w, c, after, self.coherent(lbr, HOST, cpu.perf.event))

    def _stopped(self, w: World, c: int, *, closed: int) -> World | None:
        cpu = w.cpus[c]
        if cpu.perf.event == OFF or (cpu.perf.event != ACTIVE and not closed) or cpu.perf.overflow:
            return None
        perf = cpu.perf._replace(event=owned.state_when_closed(closed), ran=0)
        lbr, owner = cpu.lbr, cpu.owner
        if cpu.perf.event == ACTIVE and "disable-enable" not in self.lost:
            lbr, owner = owned.stopped(lbr), NOBODY if owner == HOST else owner
        after = Cpu(cpu.thread, cpu.phase, lbr, perf, cpu.snapshot, owner)
        return self.moved(w, c, after, self.coherent(lbr, owner, perf.event))

    def _on_disable(self, w: World, c: int, _: int) -> World | None:
        return self._stopped(w, c, closed=0)

    def _on_remove(self, w: World, c: int, _: int) -> World | None:
        return self._stopped(w, c, closed=1)

    def _on_overflow(self, w: World, c: int, _: int) -> World | None:
        # The guest's freeze bit is not loaded: an overflow of the host's leaves the guest's enable bit alone.
        cpu = w.cpus[c]
        if cpu.perf.event != ACTIVE or cpu.perf.overflow or (cpu.phase == at.GUEST and self.opened[c].exclude_guest):
            return None
        perf = cpu.perf._replace(overflow=1)
        if cpu.phase == at.GUEST and "freeze-loaded" in self.lost and cpu.lbr.enable:
            v = cpu.thread - 1
            after = cpu._replace(perf=perf, lbr=owned.stopped(cpu.lbr))
            return self.with_vcpu(w, c, after, v, G2, vcpu=w.vcpus[v]._replace(enable=0))
        return self.moved(w, c, cpu._replace(perf=perf))

    def _on_nmi(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        freezes = "overflow" in self.scenario.may
        if cpu.perf.event not in (ACTIVE, PENDING) or cpu.perf.overflow != int(freezes):
            return None
        in_guest, seen = int(cpu.phase == at.GUEST), 0
        if in_guest:
            if self.opened[c].exclude_guest and not freezes:
                return None
            stack = cpu.lbr
            cpu, seen = self.left(w, c)
            asks = not {"nmi-owner", "nmi-guest", "nmi-late"} & self.lost
            if "nmi-late" in self.lost:  # the hand-over is over, and its code has been recorded
                stack = Lbrs(1, HOST, (HOST,) * self.scenario.depth)
            sample = owned.sample(stack, cpu.owner, cpu.perf.event, asks_owner=asks)
        else:
            says = "nmi-stale" not in self.lost and self.sharing.family != "request"
            sample = owned.sample(
                cpu.lbr, cpu.owner, cpu.perf.event, asks_owner="nmi-owner" not in self.lost, says_none=says
            )
        seen |= self.judged_sample(c, sample, in_guest=in_guest)
        if freezes:
            cpu = cpu._replace(perf=cpu.perf._replace(overflow=0))
        return self.moved(w, c, cpu, seen) if seen or cpu != w.cpus[c] else None

    # User space

    def _on_get_msrs(self, w: World, c: int, v: int) -> World | None:
        # The vCPU's mutex: not while its thread is in KVM_RUN. What vcpu_put() saved is read.
        if any(cpu.thread == v + 1 and cpu.phase != at.USER for cpu in w.cpus):
            return None
        image = w.cpus[c].lbr.stack if "get-here" in self.lost else w.vcpus[v].image
        got = image or (NOBODY,) * self.scenario.depth
        seen, _ = self.judged_read(v, w.ghosts[v], got)
        if got != w.ghosts[v].expect:
            seen |= M1_LIVE
        return w._replace(seen=seen) if seen else None

    def _on_migrate(self, w: World, c: int, v: int) -> World | None:
        vcpu, ghost, seen = w.vcpus[v], w.ghosts[v], 0
        if any(cpu.thread == v + 1 for cpu in w.cpus):
            return None
        if "migrate-records" in self.lost:
            vcpu = vcpu._replace(image=())
        if "migrate-enable" in self.lost and vcpu.enable:
            vcpu, seen = vcpu._replace(enable=0), G2
        moved = Ghost(ghost.expect, 2 if any(ghost.expect) else 0, ghost.cpu)
        after = self.with_vcpu(w, c, w.cpus[c], v, seen, vcpu=vcpu, ghost=moved)
        return after if after != w._replace(seen=0) else None
