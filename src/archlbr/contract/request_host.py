"""`request`: perf asks by a flag, KVM serves at its request point.

`owned_host` has the rest of the host; `vpmu.designs.request` what a request does. The owner stays the owner until a
request is served or the vCPU is put.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.contract import world as at
from archlbr.contract.actors import L2_ENTRY
from archlbr.contract.owned_host import OwnedHost
from archlbr.contract.world import Cpu, Ghost, World
from archlbr.lbr.tagged import HOST, NOBODY, VM, Lbrs
from archlbr.perf import owned
from archlbr.perf.events import ACTIVE, INACTIVE, OFF, PENDING
from archlbr.vpmu.designs import request

if TYPE_CHECKING:
    from archlbr.contract.world import Scenario
    from archlbr.vpmu.designs.sharing import Sharing, Vcpu


class RequestHost(OwnedHost):
    """The naive request design in one scenario."""

    steps = frozenset({"check", "irqs_off"})

    def __init__(self, sharing: Sharing, scenario: Scenario) -> None:
        """Prepare the tables; the request point takes the place of `enter` and of the hand-over's steps."""
        super().__init__(sharing, scenario)
        for name in ("enter", "stop_host", "load_guest", "save_guest", "start_host", "grant"):
            del self.moves[name]

    def _on_check(self, w: World, c: int, _: int) -> World:
        cpu = w.cpus[c]
        v = cpu.thread - 1
        vcpu, lbr, perf, owner = w.vcpus[v], cpu.lbr, cpu.perf, cpu.owner
        if vcpu.want:
            lbr, vcpu, owner = request.served(lbr, vcpu)
            if perf.event in (PENDING, ACTIVE):
                perf, lbr = perf._replace(event=ACTIVE), owned.started(lbr)
        elif owner != VM + v and perf.event != ACTIVE and vcpu.enable:
            lbr, owner = request.given_back(lbr, vcpu, v)
        after = Cpu(cpu.thread, at.CHECKED, lbr, perf, 0, owner)
        return self.with_vcpu(w, c, after, v, vcpu=vcpu)

    def _on_irqs_off(self, w: World, c: int, _: int) -> World:
        cpu = w.cpus[c]
        return self.moved(w, c, Cpu(cpu.thread, at.ENTRY, cpu.lbr, cpu.perf, cpu.lbr.enable, cpu.owner))

    def _on_vmenter(self, w: World, c: int, _: int) -> World:
        cpu = w.cpus[c]
        v = cpu.thread - 1
        vcpu = w.vcpus[v]
        starved = int(vcpu.enable and vcpu.level == 1 and cpu.owner != VM + v)
        enable = vcpu.enable if vcpu.level == 1 else 0
        after = Cpu(
            cpu.thread, at.GUEST, Lbrs(enable, cpu.lbr.select, cpu.lbr.stack), cpu.perf, cpu.snapshot, cpu.owner
        )
        seen, ghost = self.judged_arrival(v, w.ghosts[v], self.seen_by_guest(after, vcpu))
        seen |= L2_ENTRY if vcpu.want else 0
        return self.with_vcpu(w, c, after, v, seen, vcpu=vcpu._replace(starved=starved), ghost=ghost)

    _on_reenter = _on_vmenter

    def _on_irqs_on(self, w: World, c: int, _: int) -> World:
        cpu = w.cpus[c]
        return self.moved(w, c, Cpu(cpu.thread, at.HOST_ON, cpu.lbr, cpu.perf, 0, cpu.owner))

    def seen_by_guest(self, cpu: Cpu, vcpu: Vcpu) -> tuple[int, ...]:
        """Return the registers' records to their owner, the saved copy to who does not own them."""
        if cpu.owner == VM + cpu.thread - 1:
            return cpu.lbr.stack
        return vcpu.image or (NOBODY,) * self.scenario.depth

    def _on_hole(self, w: World, c: int, _: int) -> World | None:
        # WRMSR of a record is intercepted while the guest does not own the registers; XRSTORS and DEPTH are not.
        cpu = w.cpus[c]
        v = cpu.thread - 1
        if cpu.owner == VM + v:
            return super()._on_hole(w, c, 0)
        vcpu, ghost = w.vcpus[v], w.ghosts[v]
        stack = (NOBODY, *(VM + v,) * (self.scenario.depth - 1))
        if vcpu.level == 2 or (ghost.expect == stack and vcpu.image == stack):
            return None
        return self.with_vcpu(w, c, cpu, v, vcpu=vcpu._replace(image=stack), ghost=Ghost(stack, ghost.moved, ghost.cpu))

    def claimed(self, w: World, c: int) -> World | None:
        """Return the world after perf's IPI wants the registers: a request where a guest owns them."""
        cpu = w.cpus[c]
        if self.opened[c].task and cpu.thread:
            return None
        if cpu.owner < VM:
            perf = cpu.perf._replace(event=ACTIVE, ran=self.opened[c].task)
            return self.moved(w, c, Cpu(cpu.thread, cpu.phase, owned.started(cpu.lbr), perf, cpu.snapshot, HOST))
        after = cpu._replace(perf=cpu.perf._replace(event=PENDING))
        v = cpu.owner - VM
        return self.with_vcpu(w, c, after, v, vcpu=w.vcpus[v]._replace(want=1))

    def _on_disable(self, w: World, c: int, _: int) -> World | None:
        return self._withdrawn(w, c, INACTIVE)

    def _on_remove(self, w: World, c: int, _: int) -> World | None:
        return self._withdrawn(w, c, OFF)

    def _withdrawn(self, w: World, c: int, state: int) -> World | None:
        # The flag stays with the vCPU.
        cpu = w.cpus[c]
        if cpu.perf.event not in (ACTIVE, PENDING, INACTIVE) or cpu.perf.event == state or cpu.perf.overflow:
            return None
        perf = cpu.perf._replace(event=state, ran=0)
        lbr, owner = cpu.lbr, cpu.owner
        if owner == HOST:
            lbr, owner = owned.stopped(lbr), NOBODY
        return self.moved(w, c, Cpu(cpu.thread, cpu.phase, lbr, perf, cpu.snapshot, owner))
