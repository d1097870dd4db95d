"""What a guest does with the LBRs where an event of perf's stands for it: the guest's half of `vlbr`.

Authority: arch/x86/kvm/vmx/pmu_intel.c and vmx.c, by way of reference perf-kvm-contract.md A5 and A6; C1 for
`series-v2`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archlbr.host import state as at
from archlbr.host.composed import Composed
from archlbr.host.state import Cpu, Host, Moved, Told
from archlbr.lbr.bank import VM
from archlbr.perf import schedule
from archlbr.perf.events import ACTIVE, OFF
from archlbr.vpmu.designs import vlbr

if TYPE_CHECKING:
    from archlbr.perf.schedule import CpuPerf


class VlbrGuest(Composed):
    """The guest's actions; `vlbr.Vlbr` has the host's."""

    def counts(self, perf: CpuPerf) -> CpuPerf:
        """Return perf's state for intel_pmu_lbr_del(): with the repair, as if its own event had been added last."""
        return perf._replace(last_callstack=1) if self.sharing.own_filter else perf

    def view(self, cpu: Cpu) -> int:
        """Return perf's view of the enable bit: on while a host event runs and the vLBR does not."""
        perf = cpu.perf
        return -1 if perf.overflow else int(perf.event == ACTIVE and not perf.guest)

    def reads(self, host: Host, c: int) -> tuple[Any, ...]:
        """Return the registers' records while the event is ACTIVE, and zeros else (an intercepted read)."""
        cpu = host.cpus[c]
        stack = cpu.lbr.stack
        return stack if host.tasks[cpu.thread - 1].event == ACTIVE else (0,) * len(stack)

    def left(self, h: Host, c: int) -> Cpu:
        """Return the pCPU after a VM exit: the snapshot is written back."""
        cpu = h.cpus[c]
        lbr = cpu.lbr
        enable = vlbr.enable_after_exit(self.sharing, h.vcpus[cpu.thread - 1], cpu.snapshot, lbr.enable)
        if not (h.vcpus[cpu.thread - 1].level == 2 and self.sharing.l2_open):
            lbr = lbr.switched(0)
        if enable != lbr.enable:
            lbr = lbr.controlled(enable)
        return Cpu(cpu.thread, at.EXIT, lbr, cpu.perf, cpu.snapshot, 0)

    def handled(self, left: Cpu) -> Cpu:
        """Return the pCPU after an exit that is handled with interrupts on, as one step from the exit on.

        Nothing else happens in between that matters.
        """
        snapshot = left.snapshot if self.sharing.snapshot_at_load else 0
        return Cpu(left.thread, at.HOST_ON, left.lbr, left.perf, snapshot, 0)

    def on_read(self, h: Host, c: int, _: int) -> Moved | None:
        """RDMSR of the records: passed through, or intercepted, and then it creates the event."""
        cpu = h.cpus[c]
        v = cpu.thread - 1
        if h.vcpus[v].level == 2:
            return None
        if vlbr.passes(h.tasks[v].event == ACTIVE):
            return h, Told(read=cpu.lbr.stack)
        left = self.left(h, c)
        cpu = self.handled(left)
        task, lbr, perf = h.tasks[v], cpu.lbr, cpu.perf
        if task.event == OFF:
            lbr, perf, task = schedule.guest_created(lbr, perf, task, self.opened[c])
        read = lbr.stack if task.event == ACTIVE else (0,) * len(lbr.stack)
        after = Cpu(cpu.thread, at.HOST_ON, lbr, perf, cpu.snapshot, 0)
        return self.with_vcpu(h, c, after, v, h.vcpus[v], task), Told(left, read)

    def _turned_on(self, h: Host, c: int, *, fails: int) -> Moved | None:
        v = h.cpus[c].thread - 1
        vcpu, task = h.vcpus[v], h.tasks[v]
        if vcpu.enable or vcpu.level == 2 or vcpu.smm:
            return None
        left = self.left(h, c)
        cpu = self.handled(left)
        lbr, perf = cpu.lbr, cpu.perf
        if task.event == OFF and not fails:
            lbr, perf, task = schedule.guest_created(lbr, perf, task, self.opened[c])
        if task.event == ACTIVE:
            lbr = lbr.filtered(VM + v)  # LBR_SELECT passes through
        after = Cpu(cpu.thread, at.HOST_ON, lbr, perf, cpu.snapshot, 0)
        return self.with_vcpu(h, c, after, v, vcpu._replace(enable=1), task), Told(left)

    def on_lbr_on(self, h: Host, c: int, _: int) -> Moved | None:
        """WRMSR of the filter and the enable bit; the first one creates the event."""
        return self._turned_on(h, c, fails=0)

    def on_lbr_on_fails(self, h: Host, c: int, _: int) -> Moved | None:
        """WRMSR of the enable bit; perf answers -EBUSY (x86_add_exclusive()) or -ENOMEM, which KVM ignores."""
        return self._turned_on(h, c, fails=1) if h.tasks[h.cpus[c].thread - 1].event == OFF else None

    def on_lbr_off(self, h: Host, c: int, _: int) -> Moved | None:
        """WRMSR of the enable bit."""
        v = h.cpus[c].thread - 1
        vcpu = h.vcpus[v]
        if not vcpu.enable or vcpu.level == 2 or vcpu.smm:
            return None
        left = self.left(h, c)
        return self.with_vcpu(h, c, self.handled(left), v, vcpu._replace(enable=0)), Told(left)

    def on_hole(self, h: Host, c: int, _: int) -> Moved | None:
        """WRMSR of records, passed through: an empty one before an older one."""
        cpu = h.cpus[c]
        v = cpu.thread - 1
        if not vlbr.passes(h.tasks[v].event == ACTIVE) or h.vcpus[v].level == 2:
            return None
        stack = (0, *(VM + v,) * (len(cpu.lbr.stack) - 1))
        if stack == cpu.lbr.stack:
            return None
        return self.changed(h, c, cpu._replace(lbr=cpu.lbr.written(stack))), Told(wrote=stack)

    def on_xsaves(self, h: Host, c: int, _: int) -> Moved | None:
        """XSAVES: the MSR bitmaps do not cover it, it reads the registers, whoever owns them."""
        cpu = h.cpus[c]
        if not self.sharing.architectural or h.vcpus[cpu.thread - 1].level == 2:
            return None
        return h, Told(read=cpu.lbr.stack)

    def _written(self, h: Host, c: int) -> Moved | None:
        cpu = h.cpus[c]
        if not self.sharing.architectural or h.vcpus[cpu.thread - 1].level == 2:
            return None
        empty = (0,) * len(cpu.lbr.stack)
        return self.changed(h, c, cpu._replace(lbr=cpu.lbr.written(empty))), Told(wrote=empty)

    def on_xrstors(self, h: Host, c: int, _: int) -> Moved | None:
        """XRSTORS of an empty image, unhindered like XSAVES."""
        return self._written(h, c)

    def on_depth(self, h: Host, c: int, _: int) -> Moved | None:
        """WRMSR of DEPTH, which wipes; a raw WRMSR in the series."""
        return self._written(h, c) if self.sharing.raw_depth else None

    def _level(self, h: Host, c: int, held: int, wanted: int) -> Moved | None:
        v = h.cpus[c].thread - 1
        vcpu = h.vcpus[v]
        if vcpu.level != held or vcpu.smm:
            return None
        left = self.left(h, c)
        return self.with_vcpu(h, c, self.handled(left), v, vcpu._replace(level=wanted)), Told(left)

    def on_nest(self, h: Host, c: int, _: int) -> Moved | None:
        """L1's VMLAUNCH of L2."""
        return self._level(h, c, 1, 2)

    def on_unnest(self, h: Host, c: int, _: int) -> Moved | None:
        """L2's exit to L1."""
        return self._level(h, c, 2, 1)

    def on_smi(self, h: Host, c: int, _: int) -> Moved | None:
        """Take an SMI: LBREn goes to SMRAM and is cleared."""
        v = h.cpus[c].thread - 1
        vcpu = h.vcpus[v]
        if not self.sharing.architectural or vcpu.smm or vcpu.level == 2:
            return None
        left = self.left(h, c)
        after = vcpu._replace(smm=1 + vcpu.enable, enable=0)
        return self.with_vcpu(h, c, self.handled(left), v, after), Told(left)

    def on_rsm(self, h: Host, c: int, _: int) -> Moved | None:
        """RSM: LBREn comes from SMRAM, or is set whatever that holds."""
        v = h.cpus[c].thread - 1
        vcpu = h.vcpus[v]
        if not vcpu.smm:
            return None
        left = self.left(h, c)
        after = vcpu._replace(smm=0, enable=1 if self.sharing.rsm_sets else vcpu.smm - 1)
        return self.with_vcpu(h, c, self.handled(left), v, after), Told(left)
