"""What a guest does with the LBRs where they have an owner: the guest's half of `handover`.

Authority: ours, docs/decisions/030, for `archlbr`; reference perf-kvm-contract.md C2 and C3 for the naive designs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archlbr.host import state as at
from archlbr.host.composed import Composed
from archlbr.host.state import Cpu, Host, Moved, Told
from archlbr.lbr.bank import HOST, NOBODY, VM
from archlbr.perf.events import ACTIVE

if TYPE_CHECKING:
    from archlbr.vpmu.designs.sharing import Vcpu


class HandoverGuest(Composed):
    """The guest's actions; `handover.Handover` has the host's."""

    @property
    def lost(self) -> frozenset[str]:
        """The steps that are left out."""
        return self.sharing.lost

    def view(self, cpu: Cpu) -> int:
        """Return perf's view of the enable bit: on when the host owns the registers and has an event."""
        return int(cpu.owner == HOST and cpu.perf.event == ACTIVE)

    def left(self, h: Host, c: int) -> Cpu:
        """Return the pCPU after a VM exit, which clears the enable bit; a stale snapshot may be written back."""
        cpu = h.cpus[c]
        lbr = cpu.lbr
        if "exit-clear" not in self.sharing.lost:
            lbr = lbr.switched(0)
            if self.sharing.restores_host and cpu.snapshot:
                lbr = lbr.controlled(1)
        return Cpu(cpu.thread, at.EXIT, lbr, cpu.perf, cpu.snapshot, cpu.owner)

    def reads(self, host: Host, c: int) -> tuple[Any, ...]:
        """Return what RDMSR or XSAVES gives: the registers' records; a design that intercepts gives what it saved."""
        return host.cpus[c].lbr.stack

    def on_read(self, h: Host, c: int, _: int) -> Moved | None:
        """RDMSR of the records."""
        if not self.sharing.exposes or h.vcpus[h.cpus[c].thread - 1].level == 2:
            return None
        return h, Told(read=self.reads(h, c))

    # XSAVES. Where the guest always owns the registers in the guest, no exit is needed.
    on_xsaves = on_read

    def _switched(self, h: Host, c: int, enable: int) -> Moved | None:
        v = h.cpus[c].thread - 1
        vcpu = h.vcpus[v]
        if not self.sharing.exposes or vcpu.enable == enable or vcpu.level == 2 or vcpu.smm:
            return None
        left = cpu = self.left(h, c)
        if cpu.owner == VM + v:
            cpu = cpu._replace(lbr=cpu.lbr.filtered(VM + v))
        return self.with_vcpu(h, c, cpu, v, vcpu._replace(enable=enable, select=VM + v)), Told(left)

    def on_lbr_on(self, h: Host, c: int, _: int) -> Moved | None:
        """WRMSR of the filter and the enable bit, intercepted."""
        return self._switched(h, c, 1)

    def on_lbr_off(self, h: Host, c: int, _: int) -> Moved | None:
        """WRMSR of the enable bit, intercepted."""
        return self._switched(h, c, 0)

    def written(self, h: Host, c: int, stack: tuple[Any, ...]) -> Moved | None:
        """Return the host after a guest's write, which goes to the registers."""
        cpu = h.cpus[c]
        if not self.sharing.exposes or h.vcpus[cpu.thread - 1].level == 2:
            return None
        return self.changed(h, c, cpu._replace(lbr=cpu.lbr.written(stack))), Told(wrote=stack)

    def on_hole(self, h: Host, c: int, _: int) -> Moved | None:
        """WRMSR of records: an empty one before an older one."""
        cpu = h.cpus[c]
        return self.written(h, c, (NOBODY, *(VM + cpu.thread - 1,) * (len(cpu.lbr.stack) - 1)))

    def on_xrstors(self, h: Host, c: int, _: int) -> Moved | None:
        """XRSTORS of an empty image."""
        return self.written(h, c, (NOBODY,) * len(h.cpus[c].lbr.stack))

    on_depth = on_xrstors

    def _level(self, h: Host, c: int, held: int, wanted: int) -> Moved | None:
        v = h.cpus[c].thread - 1
        vcpu = h.vcpus[v]
        if vcpu.level != held or vcpu.smm:
            return None
        left = cpu = self.left(h, c)
        if wanted == 2 and "nest-drops" in self.lost:
            cpu = cpu._replace(lbr=cpu.lbr.wiped())
        vcpu = vcpu._replace(level=wanted)
        if wanted == 1 and "nest-clears" in self.lost:
            vcpu = vcpu._replace(enable=0)
        return self.with_vcpu(h, c, cpu, v, vcpu), Told(left)

    def on_nest(self, h: Host, c: int, _: int) -> Moved | None:
        """L1's VMLAUNCH of L2."""
        return self._level(h, c, 1, 2)

    def on_unnest(self, h: Host, c: int, _: int) -> Moved | None:
        """L2's exit to L1."""
        return self._level(h, c, 2, 1)

    def on_smi(self, h: Host, c: int, _: int) -> Moved | None:
        """Take an SMI: LBREn goes to SMRAM and is cleared."""
        vcpu = h.vcpus[h.cpus[c].thread - 1]
        if not self.sharing.exposes or vcpu.smm or vcpu.level == 2:
            return None
        return self._exited(h, c, vcpu._replace(smm=1 + vcpu.enable, enable=0))

    def on_rsm(self, h: Host, c: int, _: int) -> Moved | None:
        """RSM: LBREn comes from SMRAM."""
        vcpu = h.vcpus[h.cpus[c].thread - 1]
        if not vcpu.smm:
            return None
        return self._exited(h, c, vcpu._replace(smm=0, enable=1 if self.sharing.rsm_sets else vcpu.smm - 1))

    def _exited(self, h: Host, c: int, vcpu: Vcpu) -> Moved:
        left = self.left(h, c)
        return self.with_vcpu(h, c, left, left.thread - 1, vcpu), Told(left)
