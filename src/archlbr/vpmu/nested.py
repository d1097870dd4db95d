"""L1 runs L2: what L1 is offered, what L2 runs with, and what L1 gets back.

`step` sends VMLAUNCH and L2's exit here. The controls are offered to L1 when the platform says so (`nested`); hidden,
an L1 that sets them fails its entry. While L2 runs, `guest` holds the running context's CTL and DEBUGCTL and `nested`
L1's. L2 without a value of its own runs with LBREn = 0 and finds no LBR register where the controls are hidden, so that
nothing of L2 enters another's stack and L1's CTL, DEPTH and records stay (decision 023).
Authority: reference kvm-series.md P10, B 22, C.4; rows 56, 90 to 95.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs, vmx
from archlbr.errors import InternalError
from archlbr.lbr.state import ARCH
from archlbr.vpmu.actions import INVALID_CONTROLS, INVALID_GUEST_STATE, Fields, NestedEntry
from archlbr.vpmu.interception import guest_ctl, with_debugctl
from archlbr.vpmu.state import Nested, State, with_guest

if TYPE_CHECKING:
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform

ENTRY_CAPABILITIES = (vmx.IA32_VMX_ENTRY_CTLS, vmx.IA32_VMX_TRUE_ENTRY_CTLS)
EXIT_CAPABILITIES = (vmx.IA32_VMX_EXIT_CTLS, vmx.IA32_VMX_TRUE_EXIT_CTLS)


def offered(design: Design, platform: Platform, state: State) -> int:
    """Return 1 when L1 is offered the two controls; series v2 hides them always (P10)."""
    return int(platform.nested and platform.controls and state.rules.flavour == ARCH and not design.l2_runs_open)


def capability(design: Design, platform: Platform, state: State, index: int) -> int | None:
    """Return a VMX capability MSR as L1 reads it, the LBR controls alone, or None for another register."""
    if index in ENTRY_CAPABILITIES:
        return offered(design, platform, state) * vmx.VM_ENTRY_LOAD_IA32_LBR_CTL << 32
    if index in EXIT_CAPABILITIES:
        return offered(design, platform, state) * vmx.VM_EXIT_CLEAR_IA32_LBR_CTL << 32
    return None


def entered(design: Design, platform: Platform, state: State, launch: NestedEntry) -> tuple[State, int]:
    """Return the state in L2 and 0, or the state unchanged and why VMLAUNCH failed. The vCPU is out meanwhile."""
    if state.nested.active:
        raise InternalError("VMLAUNCH in L2: two levels are modelled")
    may = offered(design, platform, state)
    load = launch.entry_controls & vmx.VM_ENTRY_LOAD_IA32_LBR_CTL
    clear = launch.exit_controls & vmx.VM_EXIT_CLEAR_IA32_LBR_CTL
    if (load or clear) and not may:
        return state, INVALID_CONTROLS
    if load and launch.lbr_ctl & ~state.rules.facility.ctl_legal:
        return state, INVALID_GUEST_STATE
    l1_ctl = guest_ctl(design, state)
    # Offered and not asked for, CTL stays as it is over VM entry (UNCONFIRMED, mem; architecture.md 3.7).
    unasked = l1_ctl if may else 0
    ctl = launch.lbr_ctl if load else unasked
    held = launch.debugctl if design.strips_late else launch.debugctl & ~msrs.DEBUGCTL_LBR
    nested = Nested(1, load, clear, launch.passthrough, l1_ctl, state.guest.debugctl, held)
    state = with_guest(state, state.guest._replace(ctl=ctl))._replace(nested=nested)
    return with_debugctl(design, platform, state, launch.debugctl & msrs.DEBUGCTL_FREEZE_LBRS), 0


def exited(design: Design, platform: Platform, state: State) -> tuple[State, Fields]:
    """Return the state in L1 and what vmcs12 holds now. The vCPU is out meanwhile.

    A processor with the controls saves CTL at each exit and clears it if told; hidden, L1's value comes back. An exit
    clears DEBUGCTL, as the processor's does (load_vmcs12_host_state).
    """
    nested = state.nested
    if not nested.active:
        raise InternalError("an exit from L2, which does not run")
    may = offered(design, platform, state)
    l2_ctl = guest_ctl(design, state)
    ctl = nested.l1_ctl
    if may:
        ctl = 0 if nested.exit_controls else l2_ctl
    state = with_guest(state, state.guest._replace(ctl=ctl))._replace(nested=Nested())
    state = with_debugctl(design, platform, state, 0)
    return state, Fields(l2_ctl if may else 0, nested.debugctl12)


def absent(design: Design, platform: Platform, state: State) -> int:
    """Return 1 when L2 has no LBR registers: the controls are hidden (v12: invalid in guest mode); v2 does not ask."""
    return int(state.nested.active and not design.l2_runs_open and not offered(design, platform, state))


def reflects(design: Design, platform: Platform, state: State) -> int:
    """Return 1 when L2's access to an LBR register exits to L1: the controls are offered, L1's bitmap intercepts."""
    return int(state.nested.active and offered(design, platform, state) and not state.nested.passthrough)
