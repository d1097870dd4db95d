"""`vlbr-6.1` and `vlbr-6.12`: the legacy vLBR event as merged, before and after the snapshot of DEBUGCTL moved.

`host` composes these rules with perf's. Authority: arch/x86/kvm/vmx/pmu_intel.c and vmx.c, by way of reference
perf-kvm-contract.md A5 and A6. vlbr-6.1 is vanilla 6.1, with the snapshot in vmx_vcpu_load(); vlbr-6.12 has commit
189ecdb3e112 (in v6.14, and in v6.12.117), which takes it in vcpu_enter_guest() with interrupts off, and handles an NMI
inside vmx_vcpu_enter_exit(), before the write-back. Both are predictions until somebody has seen them on hardware.
"""

from __future__ import annotations

from archlbr.vpmu.designs.sharing import VLBR, Sharing, Vcpu

VLBR_6_1 = Sharing("vlbr-6.1", VLBR, snapshot_at_load=1)
VLBR_6_12 = Sharing("vlbr-6.12", VLBR, nmi_first=1)


def releases(vcpu: Vcpu) -> int:
    """intel_pmu_cleanup(): release the event if the guest's enable bit is 0; in L2 it reads vmcs02, where it is 0."""
    return int(vcpu.cleanup and not (vcpu.enable and vcpu.level == 1))


def passes(active: bool) -> bool:
    """vmx_passthrough_lbr_msrs(): record MSRs pass through if the event is ACTIVE; the enable bit is not looked at."""
    return active


def loaded_enable(sharing: Sharing, vcpu: Vcpu, active: int, held: int) -> int:
    """Return the enable bit after VM entry: GUEST_IA32_DEBUGCTL or GUEST_IA32_LBR_CTL, whoever owns the registers.

    held: what the processor holds, which stays where a design leaves the controls out for L2.
    """
    if vcpu.level == 2:
        return held if sharing.l2_open else 0
    return vcpu.enable & active if sharing.masks else vcpu.enable


def enable_after_exit(sharing: Sharing, vcpu: Vcpu, snapshot: int, held: int) -> int:
    """Return the enable bit when KVM's exit path runs: VM exit clears it, then vmx_vcpu_run() writes the snapshot
    back.
    """
    if vcpu.level == 2 and sharing.l2_open:
        return held
    return snapshot if sharing.restores_host else 0
