"""The designs in which the registers have an owner: `archlbr`, `mediated`, `mediated-lbr`; `request` adds to it.

`perf.step` has perf's side, `vpmu.designs.handover` KVM's; what one asks and the other answers is a value that is
routed here. A step named in `Sharing.lost` is left out: that is a naive design, or a seeded bug.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.host import state as at
from archlbr.host.handover_guest import HandoverGuest
from archlbr.host.state import QUIET, Cpu, Host, Moved, Told, put
from archlbr.lbr.bank import GRANT, HOST, LATER, NOBODY, RELEASE, VM, WANT, Bank
from archlbr.perf import step as perf
from archlbr.perf.events import ACTIVE, PENDING
from archlbr.vpmu.designs import handover

if TYPE_CHECKING:
    from archlbr.perf.schedule import CpuPerf
    from archlbr.vpmu.designs.sharing import Vcpu


class Handover(HandoverGuest):
    """An owner design."""

    steps = frozenset({"stop_host", "load_guest", "save_guest", "start_host", "grant"})

    def settled(self, host: Host) -> Host:
        """Return the host with each claim granted."""
        for c, cpu in enumerate(host.cpus):
            if cpu.phase == at.CLAIM:
                granted = self.moves["grant"](host, c, 0)
                host = host if granted is None else granted[0]
        return host

    # KVM's run loop

    def on_enter(self, h: Host, c: int, _: int) -> Moved:
        """Serve requests, switch interrupts off; a naive design takes its snapshot now."""
        cpu = h.cpus[c]
        lbr, snapshot = cpu.lbr.read_enable() if self.sharing.restores_host else (cpu.lbr, 0)
        return self.moved(h, c, Cpu(cpu.thread, at.ENTRY, lbr, cpu.perf, snapshot, cpu.owner))

    def _resident(self, cpu: Cpu, vcpu: Vcpu) -> bool:
        if "load-empty" in self.lost and not vcpu.image:
            return True
        if "resident-nobody" in self.lost and cpu.owner == NOBODY:
            return True
        return handover.resident(cpu.owner, cpu.thread - 1) and "lazy" not in self.lost

    def on_stop_host(self, h: Host, c: int, _: int) -> Moved | None:
        """First half of the hand-over to the guest: the host's recording stops, nobody owns the registers."""
        cpu = h.cpus[c]
        if self._resident(cpu, h.vcpus[cpu.thread - 1]):
            return None
        lbr = perf.stopped(cpu.lbr) if cpu.lbr.enable and "stop" not in self.lost else cpu.lbr
        return self.moved(h, c, Cpu(cpu.thread, at.ENTRY_STOPPED, lbr, cpu.perf, cpu.snapshot, NOBODY))

    def on_load_guest(self, h: Host, c: int, _: int) -> Moved:
        """Second half: the guest's records are loaded, it owns the registers."""
        cpu = h.cpus[c]
        v = cpu.thread - 1
        lbr = handover.loaded(cpu.lbr, h.vcpus[v], self.lost)
        owner = HOST if "load-owner" in self.lost else VM + v
        return self.moved(h, c, Cpu(cpu.thread, at.ENTRY_LOADED, lbr, cpu.perf, cpu.snapshot, owner))

    def on_vmenter(self, h: Host, c: int, _: int) -> Moved | None:
        """VM entry."""
        cpu = h.cpus[c]
        if cpu.phase == at.ENTRY and not self._resident(cpu, h.vcpus[cpu.thread - 1]):
            return None
        return self.entered(h, c)

    def entered(self, h: Host, c: int) -> Moved:
        """Return the host with the pCPU in the guest; the VMCS loads the enable bit."""
        cpu = h.cpus[c]
        v = cpu.thread - 1
        vcpu = h.vcpus[v]
        enable = handover.enable_in_guest(vcpu, cpu.lbr.enable, self.lost)
        if "vmenter-muted" in self.lost and cpu.perf.event == ACTIVE:
            enable = 0
        starved = int(vcpu.enable and vcpu.level == 1 and not (enable and cpu.owner == VM + v))
        after = Cpu(cpu.thread, at.GUEST, cpu.lbr.switched(enable), cpu.perf, cpu.snapshot, cpu.owner)
        if starved == vcpu.starved:
            return self.moved(h, c, after)
        return self.with_vcpu(h, c, after, v, vcpu._replace(starved=starved)), QUIET

    def on_reenter(self, h: Host, c: int, _: int) -> Moved | None:
        """Take the fast path: VM entry again, unless the hand-over has been done."""
        if h.cpus[c].phase == at.EXIT_DONE and "reenter-done" not in self.lost:
            return None
        return self.entered(h, c)

    def on_exit(self, h: Host, c: int, _: int) -> Moved:
        """VM exit."""
        cpu = self.left(h, c)
        return self.changed(h, c, cpu), Told(cpu)

    def _stays(self, cpu: Cpu) -> bool:
        # Nobody in the host wants the registers: they stay as the guest left them.
        wanted = cpu.perf.event == ACTIVE and "exit-wants" not in self.lost
        return not wanted and "lazy" not in self.lost

    def on_save_guest(self, h: Host, c: int, _: int) -> Moved | None:
        """First half of the hand-over to the host: the guest's records are saved, nobody owns the registers."""
        cpu = h.cpus[c]
        if self._stays(cpu):
            return None
        v = cpu.thread - 1
        owner = HOST if "exit-owner" in self.lost else NOBODY
        after = Cpu(cpu.thread, at.EXIT_SAVED, cpu.lbr, cpu.perf, cpu.snapshot, owner)
        if "save" in self.lost or "save-late" in self.lost:
            return self.moved(h, c, after)
        return self._saved(h, c, after, v)

    def _saved(self, h: Host, c: int, cpu: Cpu, v: int) -> Moved:
        lbr, vcpu = handover.saved(cpu.lbr, h.vcpus[v])
        return self.with_vcpu(h, c, cpu._replace(lbr=lbr), v, vcpu), QUIET

    def _started(self, lbr: Bank, *, wipes: bool) -> Bank:
        lost = self.lost
        return perf.started(lbr, wipes=wipes, enables="start-enable" not in lost, selects="start-select" not in lost)

    def on_start_host(self, h: Host, c: int, _: int) -> Moved:
        """Second half: the host records, and owns the registers."""
        cpu = h.cpus[c]
        wanted = cpu.perf.event == ACTIVE
        lbr = self._started(cpu.lbr, wipes="start-wipe" not in self.lost) if wanted else perf.stopped(cpu.lbr)
        after = Cpu(cpu.thread, at.EXIT_DONE, lbr, cpu.perf, 0, HOST if wanted else NOBODY)
        return self._saved(h, c, after, cpu.thread - 1) if "save-late" in self.lost else self.moved(h, c, after)

    def on_irqs_on(self, h: Host, c: int, _: int) -> Moved | None:
        """Interrupts go on."""
        cpu = h.cpus[c]
        if cpu.phase == at.EXIT and not self._stays(cpu):
            return None
        return self.moved(h, c, Cpu(cpu.thread, at.HOST_ON, cpu.lbr, cpu.perf, 0, cpu.owner))

    # Leaving a pCPU

    def vcpu_put(self, h: Host, c: int, *, keeps: bool = False) -> Host:
        """Return the host with its vCPU put (vcpu_put): what the registers hold of the vCPU is saved."""
        cpu = h.cpus[c]
        v = cpu.thread - 1
        if not cpu.thread or cpu.owner != VM + v or keeps:
            return h
        after = cpu._replace(owner=cpu.owner if "put-owner" in self.lost else NOBODY)
        return self.changed(h, c, after) if "put-save" in self.lost else self._saved(h, c, after, v)[0]

    def on_switch(self, h: Host, c: int, to: int) -> Moved:
        """Switch tasks: vcpu_put(), and perf's task event goes or comes."""
        h = self.vcpu_put(h, c)
        cpu, opened = h.cpus[c], self.opened[c]
        after, asked = perf.step(cpu.perf, opened, perf.SCHED_OUT if to else perf.SCHED_IN)
        lbr, owner, own = cpu.lbr, cpu.owner, len(h.vcpus) + c
        task = h.tasks[own]
        if asked == RELEASE:
            lbr, owner = lbr if "task-stop" in self.lost else perf.stopped(lbr), NOBODY
            if opened.callstack:
                lbr, task = perf.frames_saved(lbr, task)
        elif asked == WANT:
            lbr, after, owner = self._started(lbr, wipes=True), perf.answered(after, opened, GRANT), HOST
            if task.image and "frames" not in self.lost:
                lbr = perf.frames_loaded(cpu.lbr, task)
            task = task._replace(image=())
        tasks = h.tasks if task is h.tasks[own] else put(h.tasks, own, task)
        return Host(put(h.cpus, c, Cpu(to, at.HOST_ON, lbr, after, 0, owner)), tasks, h.vcpus), QUIET

    def on_to_user(self, h: Host, c: int, _: int) -> Moved:
        """KVM_RUN returns to user space: vcpu_put()."""
        h = self.vcpu_put(h, c, keeps="put-user" in self.lost)
        return self.moved(h, c, h.cpus[c]._replace(phase=at.USER, snapshot=0))

    def on_to_kernel(self, h: Host, c: int, _: int) -> Moved:
        """KVM_RUN."""
        return self.moved(h, c, h.cpus[c]._replace(phase=at.HOST_ON))

    # Host events

    def on_install(self, h: Host, c: int, _: int) -> Moved | None:
        """Take an IPI: an event is opened."""
        return self._asked(h, c, perf.INSTALL) if self.setting.events[c] is not None else None

    def on_enable(self, h: Host, c: int, _: int) -> Moved | None:
        """Take an IPI or a rotation: the event is enabled."""
        return self._asked(h, c, perf.ENABLE)

    def _asked(self, h: Host, c: int, action: int) -> Moved | None:
        cpu, opened = h.cpus[c], self.opened[c]
        wanting, asked = perf.step(cpu.perf, opened, action)
        if asked != WANT:
            return None
        answer = handover.answer(self.sharing, cpu.owner, opened.exclude_guest)
        if answer in (GRANT, LATER) and opened.task and cpu.thread:
            return None  # its task is not here
        return self.routed(h, c, perf.answered(wanting, opened, answer), answer)

    def routed(self, h: Host, c: int, answered: CpuPerf, answer: int) -> Moved:
        """Return the host after KVM's answer to WANT: with GRANT, the first half of a claim, or all of it."""
        cpu = h.cpus[c]
        if answer != GRANT:
            return self.moved(h, c, cpu._replace(perf=answered))
        if cpu.owner < VM:
            lbr = self._started(cpu.lbr, wipes=True)
            return self.moved(h, c, Cpu(cpu.thread, cpu.phase, lbr, answered, cpu.snapshot, HOST))
        v = cpu.owner - VM
        owner = HOST if "claim-early" in self.lost else NOBODY
        if "claim-owner" in self.lost:
            owner = cpu.owner
        after = Cpu(cpu.thread, at.CLAIM, cpu.lbr, answered, cpu.phase, owner)
        return self.moved(h, c, after) if "claim-save" in self.lost else self._saved(h, c, after, v)

    def on_grant(self, h: Host, c: int, _: int) -> Moved | None:
        """Finish a claim: the host records, and owns the registers."""
        if "claim-stuck" in self.lost:
            return None
        cpu = h.cpus[c]
        lbr = cpu.lbr
        if "claim-half" not in self.lost:
            lbr = self._started(lbr, wipes="claim-wipe" not in self.lost)
        owner = cpu.owner if "claim-owner" in self.lost else HOST
        return self.moved(h, c, Cpu(cpu.thread, cpu.snapshot, lbr, cpu.perf, 0, owner))

    def on_disable(self, h: Host, c: int, _: int) -> Moved | None:
        """Take an IPI or a rotation: the event is disabled."""
        return self.released(h, c, perf.DISABLE)

    def on_remove(self, h: Host, c: int, _: int) -> Moved | None:
        """Take an IPI: the event is closed."""
        return self.released(h, c, perf.REMOVE)

    def released(self, h: Host, c: int, action: int) -> Moved | None:
        """Return the host after perf's RELEASE: recording stops, and nobody owns the registers."""
        cpu = h.cpus[c]
        after, asked = perf.step(cpu.perf, self.opened[c], action)
        if cpu.perf.overflow or after.event == cpu.perf.event:
            return None
        lbr, owner = cpu.lbr, cpu.owner
        if asked == RELEASE and cpu.perf.event == ACTIVE and "disable-enable" not in self.lost:
            lbr, owner = perf.stopped(lbr), NOBODY if owner == HOST else owner
        return self.forgotten(h, c, Cpu(cpu.thread, cpu.phase, lbr, after, cpu.snapshot, owner))

    def forgotten(self, h: Host, c: int, cpu: Cpu) -> Moved:
        """Return the host with a pCPU whose event has ended, and the frames that it had saved with it."""
        own = len(h.vcpus) + c
        tasks = put(h.tasks, own, h.tasks[own]._replace(image=())) if h.tasks[own].image else h.tasks
        return Host(put(h.cpus, c, cpu), tasks, h.vcpus), QUIET

    def on_overflow(self, h: Host, c: int, _: int) -> Moved | None:
        """Let a host counter overflow. The guest's freeze bit is not loaded: its enable bit stays."""
        cpu = h.cpus[c]
        if cpu.perf.event != ACTIVE or cpu.perf.overflow or not self.counts_here(cpu, c):
            return None
        after = cpu._replace(perf=cpu.perf._replace(overflow=1))
        if cpu.phase == at.GUEST and "freeze-loaded" in self.lost and cpu.lbr.enable:
            v = cpu.thread - 1
            after = after._replace(lbr=cpu.lbr.switched(0))
            return self.with_vcpu(h, c, after, v, h.vcpus[v]._replace(enable=0)), QUIET
        return self.moved(h, c, after)

    def on_nmi(self, h: Host, c: int, _: int) -> Moved | None:
        """Take a sample for the host event: of the registers if the host owns them, and none if not."""
        cpu = h.cpus[c]
        freezes = self.setting.freezes
        if cpu.perf.event not in (ACTIVE, PENDING) or cpu.perf.overflow != freezes:
            return None
        if not freezes and not self.counts_here(cpu, c):
            return None
        left, seen = None, cpu.lbr
        if cpu.phase == at.GUEST:
            left = cpu = self.left(h, c)
            if "nmi-late" in self.lost:  # the hand-over is over, and its code has been recorded
                seen = seen.switched(1).filled(HOST)
            asks = not {"nmi-owner", "nmi-guest", "nmi-late"} & self.lost
            sample = perf.sample(seen, cpu.owner, cpu.perf.event, asks_owner=asks)
        else:
            says = "nmi-stale" not in self.lost and self.says_none
            sample = perf.sample(
                seen, cpu.owner, cpu.perf.event, asks_owner="nmi-owner" not in self.lost, says_none=says
            )
        if freezes:
            cpu = cpu._replace(perf=cpu.perf._replace(overflow=0))
        return self.changed(h, c, cpu), Told(left, sample=sample, in_guest=int(left is not None))

    says_none = True

    # User space

    def on_get_msrs(self, h: Host, c: int, v: int) -> Moved | None:
        """KVM_GET_MSRS, under the vCPU's mutex: not in KVM_RUN. What vcpu_put() saved is read."""
        if any(cpu.thread == v + 1 and cpu.phase != at.USER for cpu in h.cpus):
            return None
        stack = h.cpus[c].lbr.stack
        image = stack if "get-here" in self.lost else h.vcpus[v].image
        return h, Told(read=image or (NOBODY,) * len(stack))

    def on_migrate(self, h: Host, c: int, v: int) -> Moved | None:
        """Save and restore of the vCPU elsewhere."""
        vcpu = h.vcpus[v]
        if any(cpu.thread == v + 1 for cpu in h.cpus):
            return None
        if "migrate-records" in self.lost:
            vcpu = vcpu._replace(image=())
        if "migrate-enable" in self.lost:
            vcpu = vcpu._replace(enable=0)
        return self.with_vcpu(h, c, h.cpus[c], v, vcpu), QUIET
