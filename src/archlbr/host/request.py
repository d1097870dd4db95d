"""`request`: perf asks by a flag, KVM serves at its request point.

`handover` has the rest of the host; `vpmu.designs.request` what a request does. The owner stays the owner until a
request is served or the vCPU is put.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archlbr.host import state as at
from archlbr.host.handover import Handover
from archlbr.host.state import QUIET, Cpu, Host, Moved, Told
from archlbr.lbr.bank import GRANT, HOST, LATER, NOBODY, VM
from archlbr.perf import step as perf
from archlbr.perf.events import ACTIVE, PENDING
from archlbr.vpmu.designs import request

if TYPE_CHECKING:
    from archlbr.perf.schedule import CpuPerf


class Request(Handover):
    """The naive request design: its request point takes the place of `enter` and of the hand-over's steps."""

    steps = frozenset({"check", "irqs_off"})
    absent = frozenset({"enter", "stop_host", "load_guest", "save_guest", "start_host", "grant"})
    says_none = False

    def on_check(self, h: Host, c: int, _: int) -> Moved:
        """kvm_check_request(): a request is served, or the guest gets its records back."""
        cpu = h.cpus[c]
        v = cpu.thread - 1
        vcpu, lbr, after, owner = h.vcpus[v], cpu.lbr, cpu.perf, cpu.owner
        if vcpu.want:
            lbr, vcpu, owner = request.served(lbr, vcpu)
            if after.event in (PENDING, ACTIVE):
                after, lbr = after._replace(event=ACTIVE), perf.started(lbr)
        elif owner != VM + v and after.event != ACTIVE and vcpu.enable:
            lbr, owner = request.given_back(lbr, vcpu, v)
        return self.with_vcpu(h, c, Cpu(cpu.thread, at.CHECKED, lbr, after, 0, owner), v, vcpu), QUIET

    def on_irqs_off(self, h: Host, c: int, _: int) -> Moved:
        """Interrupts go off, and the snapshot is taken."""
        cpu = h.cpus[c]
        lbr, snapshot = cpu.lbr.read_enable()
        return self.moved(h, c, Cpu(cpu.thread, at.ENTRY, lbr, cpu.perf, snapshot, cpu.owner))

    def on_vmenter(self, h: Host, c: int, _: int) -> Moved:
        """VM entry, with the guest's enable bit whoever owns the registers."""
        cpu = h.cpus[c]
        v = cpu.thread - 1
        vcpu = h.vcpus[v]
        starved = int(vcpu.enable and vcpu.level == 1 and cpu.owner != VM + v)
        lbr = cpu.lbr.switched(vcpu.enable if vcpu.level == 1 else 0)
        after = Cpu(cpu.thread, at.GUEST, lbr, cpu.perf, cpu.snapshot, cpu.owner)
        return self.with_vcpu(h, c, after, v, vcpu._replace(starved=starved)), QUIET

    on_reenter = on_vmenter

    def on_irqs_on(self, h: Host, c: int, _: int) -> Moved:
        """Interrupts go on."""
        return self.moved(h, c, h.cpus[c]._replace(phase=at.HOST_ON, snapshot=0))

    def reads(self, host: Host, c: int) -> tuple[Any, ...]:
        """Return the registers' records to their owner, the saved copy to who does not own them."""
        cpu = host.cpus[c]
        if cpu.owner == VM + cpu.thread - 1:
            return cpu.lbr.stack
        return host.vcpus[cpu.thread - 1].image or (NOBODY,) * len(cpu.lbr.stack)

    def on_hole(self, h: Host, c: int, _: int) -> Moved | None:
        """WRMSR of a record, intercepted while the guest does not own the registers; XRSTORS and DEPTH are not."""
        cpu = h.cpus[c]
        v = cpu.thread - 1
        if cpu.owner == VM + v:
            return super().on_hole(h, c, 0)
        vcpu = h.vcpus[v]
        if vcpu.level == 2:
            return None
        stack = (NOBODY, *(VM + v,) * (len(cpu.lbr.stack) - 1))
        return self.with_vcpu(h, c, cpu, v, vcpu._replace(image=stack)), Told(wrote=stack)

    def routed(self, h: Host, c: int, answered: CpuPerf, answer: int) -> Moved:
        """Return the host after KVM's answer to WANT: with LATER, the flag is set at the vCPU."""
        if answer == GRANT:
            return super().routed(h, c, answered, answer)
        assert answer == LATER
        cpu = h.cpus[c]
        v = cpu.owner - VM
        return self.with_vcpu(h, c, cpu._replace(perf=answered), v, h.vcpus[v]._replace(want=1)), QUIET

    def released(self, h: Host, c: int, action: int) -> Moved | None:
        """Return the host after perf's RELEASE; the flag stays with the vCPU."""
        cpu = h.cpus[c]
        after, _ = perf.step(cpu.perf, self.opened[c], action)
        if cpu.perf.overflow or after.event == cpu.perf.event:
            return None
        lbr, owner = cpu.lbr, cpu.owner
        if owner == HOST:
            lbr, owner = perf.stopped(lbr), NOBODY
        return self.forgotten(h, c, Cpu(cpu.thread, cpu.phase, lbr, after, cpu.snapshot, owner))
