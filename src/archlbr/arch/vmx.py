"""What VMX has for the LBRs: one guest-state field, one entry control, one exit control, two capability MSRs a side.

`vpmu.vmcs` switches the field, `probe` asks a host for the controls. Only IA32_LBR_CTL is switched; DEPTH, the
entries and LER are shared. Authority: reference architecture.md 3.7 (K-vmx, TDX, XEN).
"""

from __future__ import annotations

GUEST_IA32_LBR_CTL = 0x2816
GUEST_IA32_LBR_CTL_HIGH = 0x2817
VM_ENTRY_LOAD_IA32_LBR_CTL = 1 << 21
VM_EXIT_CLEAR_IA32_LBR_CTL = 1 << 26

# IA32_VMX_EXIT_CTLS, _ENTRY_CTLS and their TRUE_ forms: the allowed-1 settings are bits 63:32.
IA32_VMX_EXIT_CTLS = 0x483
IA32_VMX_ENTRY_CTLS = 0x484
IA32_VMX_TRUE_EXIT_CTLS = 0x48F
IA32_VMX_TRUE_ENTRY_CTLS = 0x490


def controls_offered(exit_ctls: int, entry_ctls: int) -> bool:
    """Say whether both controls may be 1, given the 64-bit values of the two capability MSRs."""
    return bool(exit_ctls >> 32 & VM_EXIT_CLEAR_IA32_LBR_CTL and entry_ctls >> 32 & VM_ENTRY_LOAD_IA32_LBR_CTL)
