"""VM entry and VM exit: what the VMCS loads, saves and clears, and what the host gets back.

`step` brackets every run of the guest with `enter` and `left`. VMX switches IA32_LBR_CTL and DEBUGCTL alone; KVM
switches IA32_XSS; DEPTH, entries and LER move with ownership. The host's IA32_LBR_CTL is read with interrupts off just
before the entry and written back after the exit (decision 021).
Authority: reference architecture.md 3.7; kvm-series.md P6,
P10, C.4; perf-kvm-contract.md Q3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch.vmx import VM_ENTRY_LOAD_IA32_LBR_CTL, VM_EXIT_CLEAR_IA32_LBR_CTL
from archlbr.errors import InternalError
from archlbr.lbr.state import ARCH, settled
from archlbr.vpmu.actions import INVALID_GUEST_STATE
from archlbr.vpmu.interception import decided, enabled, live, loaded_debugctl, switches
from archlbr.vpmu.ownership import asked
from archlbr.vpmu.state import Kept, State, Vmcs

if TYPE_CHECKING:
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform


def field(design: Design, state: State) -> int:
    """Return what KVM puts into Guest IA32_LBR_CTL (2816H): the guest's value, or 0 while the LBRs are another's.

    With that mask the host's stack never gets a guest's branch (Sean Christopherson on the cover letter).
    """
    return state.guest.ctl if state.owned or design.loads_unowned else 0


def prepared(design: Design, platform: Platform, state: State) -> State:
    """Return the state with the VMCS as the next entry finds it: bitmaps, controls, fields."""
    state = decided(design, state)
    loads = switches(design, platform, state)
    vmcs = Vmcs(
        field(design, state) if loads else state.vmcs.lbr_ctl,
        loaded_debugctl(design, state, state.guest.debugctl),
        VM_ENTRY_LOAD_IA32_LBR_CTL * loads,
        VM_EXIT_CLEAR_IA32_LBR_CTL * loads,
        state.vmcs.xss_exiting,
        state.vmcs.passthrough,
    )
    return state._replace(vmcs=vmcs)


def enter(design: Design, platform: Platform, state: State) -> tuple[State, int]:
    """Return the state in the guest and 0, or the state as KVM had prepared it, out of the guest, and exit reason 33.

    The processor refuses a field with bits its IA32_LBR_CTL does not have (UNCONFIRMED; architecture.md 3.7).
    """
    if state.running:
        raise InternalError("VM entry in the guest")
    if not state.loaded:
        raise InternalError("VM entry of a vCPU whose thread is not on a processor")
    lbr, guest = state.lbr, state.guest
    state = prepared(design, platform, state._replace(kept=Kept(lbr.ctl, lbr.debugctl, lbr.xss, lbr.frozen), ran=1))
    vmcs = state.vmcs
    loads = vmcs.entry_controls & VM_ENTRY_LOAD_IA32_LBR_CTL
    if loads and vmcs.lbr_ctl & ~platform.facility.ctl_legal:
        return state, INVALID_GUEST_STATE
    lbr = lbr._replace(
        ctl=vmcs.lbr_ctl if loads else lbr.ctl,
        debugctl=vmcs.debugctl,
        xss=guest.xss,
        frozen=guest.frozen if state.owned else lbr.frozen,
    )
    # A guest that was frozen or disabled meanwhile has stopped recording, and its counts are forgotten.
    return state._replace(lbr=settled(platform.facility, lbr), running=1), 0


def left(design: Design, platform: Platform, state: State) -> State:
    """Return the state after a VM exit: the guest's CTL saved, the processor's cleared, the host's written back.

    LBREn that an XRSTORS set without an exit is noticed here. That the cycle count survives the exit is UNCONFIRMED:
    the model's clock counts the guest's instructions alone.
    """
    if not state.running:
        return state
    lbr, guest, kept, vmcs = state.lbr, state.guest, state.kept, state.vmcs
    if live(design, state):
        guest = guest._replace(ctl=lbr.ctl)
    ctl = lbr.ctl
    if vmcs.exit_controls & VM_EXIT_CLEAR_IA32_LBR_CTL:
        vmcs = vmcs._replace(lbr_ctl=ctl)
        ctl = kept.ctl if design.restores_host_ctl else 0
    lbr = lbr._replace(ctl=ctl, debugctl=kept.debugctl, xss=kept.xss, frozen=kept.frozen if state.owned else lbr.frozen)
    state = state._replace(lbr=lbr, guest=guest, vmcs=vmcs, kept=Kept(), running=0)
    if design.xrstors_asks and not state.event and enabled(state.rules.flavour, guest):
        return asked(design, platform, state)
    return state


def dump(design: Design, platform: Platform, state: State) -> str:
    """Return what dump_vmcs() prints of the LBRs: the field only with its entry control (row 103)."""
    ready = prepared(design, platform, state).vmcs
    lines = [
        f"EntryControls={ready.entry_controls:08x} ExitControls={ready.exit_controls:08x}",
        f"DebugCtl = 0x{ready.debugctl:016x}  XSS-exiting = 0x{ready.xss_exiting:016x}",
        f"LBR MSRs passed through: {ready.passthrough}",
    ]
    if ready.entry_controls & VM_ENTRY_LOAD_IA32_LBR_CTL and platform.facility.format == ARCH:
        lines.append(f"LBR_CTL = 0x{ready.lbr_ctl:016x}")
    return "\n".join(lines)
