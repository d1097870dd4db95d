"""`request`: perf sets a flag and KVM serves it at its request point, naively: the proposal of the review, unfinished.

Authority: reference perf-kvm-contract.md C2; each hazard R1 to R9 there is a step that is missing here: the flag is
kept with the vCPU (R2), neither the switch nor the return to user space serves it (R3, R4), a request that is withdrawn
stays (R5), an NMI while it is pending reports the old stack (R6), and the guest's enable bit is loaded unmasked (R8).
"""

from __future__ import annotations

from archlbr.lbr.tagged import HOST, NOBODY, VM, Lbrs
from archlbr.vpmu.designs.handover import saved
from archlbr.vpmu.designs.sharing import REQUEST, Sharing, Vcpu

REQUEST_NAIVE = Sharing("request", REQUEST, architectural=1)


def served(lbrs: Lbrs, vcpu: Vcpu) -> tuple[Lbrs, Vcpu, int]:
    """Return registers, vCPU and owner after a request: what is in the registers is saved as the guest's, unasked."""
    after = saved(lbrs, vcpu)._replace(want=0)
    return Lbrs(0, lbrs.select, (NOBODY,) * len(lbrs.stack)), after, HOST


def given_back(lbrs: Lbrs, vcpu: Vcpu, v: int) -> tuple[Lbrs, int]:
    """Return registers and owner after the guest gets its records back."""
    stack = vcpu.image or (NOBODY,) * len(lbrs.stack)
    return Lbrs(0, vcpu.select, stack), VM + v
