"""What a guest does with the LBRs where they have an owner: the guest's half of `owned_host`.

Authority: ours, docs/decisions/030, for `archlbr`; reference perf-kvm-contract.md C2 and C3 for the naive designs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.contract import world as at
from archlbr.contract.actors import G2, H2, H4, S3, S4, S5, HostModel
from archlbr.contract.world import Cpu, Ghost, World
from archlbr.lbr.tagged import HOST, NOBODY, VM, Lbrs
from archlbr.perf.events import ACTIVE

if TYPE_CHECKING:
    from archlbr.vpmu.designs.sharing import Vcpu


class OwnedGuest(HostModel):
    """The guest's actions; `owned_host.OwnedHost` has the host's."""

    @property
    def lost(self) -> frozenset[str]:
        """The steps that are left out."""
        return self.sharing.lost

    def coherent(self, lbr: Lbrs, owner: int, event: int) -> int:
        """Return H4 unless the enable bit is what perf thinks: on when the host owns the registers and has an event."""
        return 0 if lbr.enable == int(owner == HOST and event == ACTIVE) else H4

    def left(self, w: World, c: int) -> tuple[Cpu, int]:
        """Return the pCPU after a VM exit, and what that breaks: VM exit clears the enable bit."""
        cpu = w.cpus[c]
        enable = cpu.snapshot if self.sharing.restores_host else 0
        if "exit-clear" in self.lost:
            enable = cpu.lbr.enable
        lbr = Lbrs(enable, cpu.lbr.select, cpu.lbr.stack)
        after = Cpu(cpu.thread, at.EXIT, lbr, cpu.perf, cpu.snapshot, cpu.owner)
        return after, self.coherent(lbr, cpu.owner, cpu.perf.event)

    def seen_by_guest(self, cpu: Cpu, vcpu: Vcpu) -> tuple[int, ...]:
        """Return the records that RDMSR or XSAVES gives: the registers', or what KVM saved while it intercepts."""
        return cpu.lbr.stack

    def _on_branch(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        v = cpu.thread - 1
        vcpu, lbr, ghost, seen = w.vcpus[v], cpu.lbr, w.ghosts[v], 0
        if vcpu.enable and vcpu.level == 1:
            ghost = self.recorded_guest(v, ghost)
        if lbr.enable:
            asked = vcpu.enable and vcpu.level == 1
            if cpu.owner != VM + v or not asked:
                seen |= S5
            if cpu.owner != VM + v and cpu.perf.event == ACTIVE and self.opened[c].exclude_guest:
                seen |= H2
            if lbr.select not in (NOBODY, VM + v):
                seen |= S4
            lbr = Lbrs(1, lbr.select, (VM + v, *lbr.stack[:-1]))
        if not seen and lbr == cpu.lbr and ghost == w.ghosts[v]:
            return None
        return self.with_vcpu(
            w, c, Cpu(cpu.thread, at.GUEST, lbr, cpu.perf, cpu.snapshot, cpu.owner), v, seen, ghost=ghost
        )

    def _on_read(self, w: World, c: int, _: int) -> World | None:
        cpu = w.cpus[c]
        v = cpu.thread - 1
        if not self.sharing.exposes or w.vcpus[v].level == 2:
            return None
        seen, ghost = self.judged_read(v, w.ghosts[v], self.seen_by_guest(cpu, w.vcpus[v]))
        return self.with_vcpu(w, c, cpu, v, seen, ghost=ghost) if seen else None

    def _on_xsaves(self, w: World, c: int, _: int) -> World | None:
        # Where the guest always owns the registers in the guest, no exit is needed.
        return self._on_read(w, c, 0)

    def _switched(self, w: World, c: int, enable: int) -> World | None:
        vcpu = w.vcpus[w.cpus[c].thread - 1]
        if not self.sharing.exposes or vcpu.enable == enable or vcpu.level == 2 or vcpu.smm:
            return None
        cpu, seen = self.left(w, c)
        v = cpu.thread - 1
        vcpu = vcpu._replace(enable=enable, select=VM + v)
        if cpu.owner == VM + v:
            cpu = cpu._replace(lbr=Lbrs(cpu.lbr.enable, VM + v, cpu.lbr.stack))
        return self.with_vcpu(w, c, cpu, v, seen, vcpu=vcpu)

    def _on_lbr_on(self, w: World, c: int, _: int) -> World | None:
        return self._switched(w, c, 1)

    def _on_lbr_off(self, w: World, c: int, _: int) -> World | None:
        return self._switched(w, c, 0)

    def _written(self, w: World, c: int, stack: tuple[int, ...]) -> World | None:
        # A write of the guest's goes to the registers; where it does not own them it breaks S3.
        cpu = w.cpus[c]
        v = cpu.thread - 1
        if not self.sharing.exposes or w.vcpus[v].level == 2:
            return None
        seen = S3 if cpu.owner == HOST else 0
        ghost = Ghost(stack, w.ghosts[v].moved, w.ghosts[v].cpu)
        if not seen and cpu.lbr.stack == stack and ghost == w.ghosts[v]:
            return None
        lbr = Lbrs(cpu.lbr.enable, cpu.lbr.select, stack)
        return self.with_vcpu(w, c, cpu._replace(lbr=lbr), v, seen, ghost=ghost)

    def _on_hole(self, w: World, c: int, _: int) -> World | None:
        v = w.cpus[c].thread - 1
        return self._written(w, c, (NOBODY, *(VM + v,) * (self.scenario.depth - 1)))

    def _on_xrstors(self, w: World, c: int, _: int) -> World | None:
        return self._written(w, c, (NOBODY,) * self.scenario.depth)

    def _on_depth(self, w: World, c: int, _: int) -> World | None:
        return self._written(w, c, (NOBODY,) * self.scenario.depth)

    def _level(self, w: World, c: int, held: int, wanted: int) -> World | None:
        vcpu = w.vcpus[w.cpus[c].thread - 1]
        if vcpu.level != held or vcpu.smm:
            return None
        cpu, seen = self.left(w, c)
        v = cpu.thread - 1
        if wanted == 2 and "nest-drops" in self.lost:
            cpu = cpu._replace(lbr=Lbrs(cpu.lbr.enable, cpu.lbr.select, (NOBODY,) * self.scenario.depth))
        vcpu = vcpu._replace(level=wanted)
        if wanted == 1 and "nest-clears" in self.lost and vcpu.enable:
            vcpu, seen = vcpu._replace(enable=0), seen | G2
        return self.with_vcpu(w, c, cpu, v, seen, vcpu=vcpu)

    def _on_nest(self, w: World, c: int, _: int) -> World | None:
        return self._level(w, c, 1, 2)

    def _on_unnest(self, w: World, c: int, _: int) -> World | None:
        return self._level(w, c, 2, 1)

    def _on_smi(self, w: World, c: int, _: int) -> World | None:
        vcpu = w.vcpus[w.cpus[c].thread - 1]
        if not self.sharing.exposes or vcpu.smm or vcpu.level == 2:
            return None
        cpu, seen = self.left(w, c)
        return self.with_vcpu(w, c, cpu, cpu.thread - 1, seen, vcpu=vcpu._replace(smm=1 + vcpu.enable, enable=0))

    def _on_rsm(self, w: World, c: int, _: int) -> World | None:
        vcpu = w.vcpus[w.cpus[c].thread - 1]
        if not vcpu.smm:
            return None
        cpu, seen = self.left(w, c)
        enable = 1 if self.sharing.rsm_sets else vcpu.smm - 1
        seen |= G2 if enable != vcpu.smm - 1 else 0
        return self.with_vcpu(w, c, cpu, cpu.thread - 1, seen, vcpu=vcpu._replace(smm=0, enable=enable))
