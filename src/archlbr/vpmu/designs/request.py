"""`request`: perf sets a flag and KVM serves it at its request point, naively: the proposal of the review, unfinished.

Authority: reference perf-kvm-contract.md C2; each hazard R1 to R9 there is a step that is missing here: the flag is
kept with the vCPU (R2), neither the switch nor the return to user space serves it (R3, R4), a request that is withdrawn
stays (R5), an NMI while it is pending reports the old stack (R6), and the guest's enable bit is loaded unmasked (R8).
"""

from __future__ import annotations

from archlbr.lbr.bank import HOST, NOBODY, VM, B
from archlbr.vpmu.designs.handover import saved
from archlbr.vpmu.designs.sharing import REQUEST, Sharing, Vcpu

REQUEST_NAIVE = Sharing("request", REQUEST, architectural=1)


def served(lbrs: B, vcpu: Vcpu) -> tuple[B, Vcpu, int]:
    """Return registers, vCPU and owner after a request: what is in the registers is saved as the guest's, unasked."""
    lbrs, after = saved(lbrs, vcpu)
    return lbrs.wiped().controlled(0), after._replace(want=0), HOST


def given_back(lbrs: B, vcpu: Vcpu, v: int) -> tuple[B, int]:
    """Return registers and owner after the guest gets its records back."""
    stack = vcpu.image or (NOBODY,) * len(lbrs.stack)
    return lbrs.loaded(vcpu.select, stack).controlled(0), VM + v
