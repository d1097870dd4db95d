"""What exits and what does not: the MSR bitmap, the XSS-exiting bitmap, and where the guest's IA32_LBR_CTL is.

`vmcs` decides anew at each entry, `ownership` at each change of owner, before the guest can run again. FROM, TO and
INFO below DEPTH pass through while the guest owns the LBRs; CTL, DEPTH and LER always exit (P7). The MSR bitmap does
not bind XSAVES, so component 15 exits whenever the entries may not pass, and whenever the guest's leaf forbids a CTL
bit that the processor would take (decision 022).
Authority: reference kvm-series.md P4, P7, B 7; perf-kvm-contract.md A2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs
from archlbr.arch.xsave import COMPONENT_BIT
from archlbr.lbr.state import ARCH, settled
from archlbr.vpmu.state import CTL_AT, DEBUGCTL_AT, State, changed, with_both, with_guest, with_lbr

if TYPE_CHECKING:
    from archlbr.lbr import state as lbr_state
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform


def decided(design: Design, state: State) -> State:
    """Return the state with both bitmaps as ownership, CPUID and L2 ask for."""
    shut = state.nested.active and not design.l2_runs_open
    passthrough = state.guest.depth if state.owned and not shut else 0
    exits = design.xss_exiting and not (state.owned and state.rules.direct and not shut)
    vmcs = state.vmcs
    exiting = COMPONENT_BIT if exits else 0
    if passthrough == vmcs.passthrough and exiting == vmcs.xss_exiting:
        return state
    return state._replace(vmcs=vmcs._replace(passthrough=passthrough, xss_exiting=exiting))


def switches(design: Design, platform: Platform, state: State) -> int:
    """Return 1 when entry loads and exit clears IA32_LBR_CTL: as a pair, or not at all (P10).

    Both controls are on for each vCPU of a host that has them; series v2 drops them for L2 (decision 021).
    """
    return int(platform.controls and not (state.nested.active and design.l2_runs_open))


def live(design: Design, state: State) -> int:
    """Return 1 when the guest's IA32_LBR_CTL is in the processor: in the guest, and loaded there."""
    if not state.running:
        return 0
    if state.nested.active and design.l2_runs_open:
        return 0
    return state.owned | design.loads_unowned


def guest_ctl(design: Design, state: State) -> int:
    """Return IA32_LBR_CTL as the guest reads it."""
    return state.lbr.ctl if live(design, state) else state.guest.ctl


def with_ctl(design: Design, platform: Platform, state: State, ctl: int) -> State:
    """Return the state with another IA32_LBR_CTL of the guest's, and recording stopped or started at once."""
    if live(design, state):
        lbr = state.lbr
        return with_lbr(state, settled(platform.facility, changed(lbr, CTL_AT, ctl)))
    guest = state.guest
    state = with_guest(state, settled(state.rules.facility, changed(guest, CTL_AT, ctl)))
    return state if ctl & msrs.CTL_LBREN else _stopped(state)


def _stopped(state: State) -> State:
    """Return the state with the processor's counts forgotten: its owner's recording was stopped from outside."""
    lbr = state.lbr
    if state.running or not state.owned or not (lbr.timed or lbr.pending):
        return state
    return with_lbr(state, lbr._replace(since=0, timed=0, pending=0))


def enabled(flavour: int, file: lbr_state.State) -> int:
    """Return 1 when a register file has recording enabled: LBREn, or DEBUGCTL.LBR in the legacy facility."""
    return (file.ctl & msrs.CTL_LBREN) if flavour == ARCH else file.debugctl & msrs.DEBUGCTL_LBR


def disabled(design: Design, platform: Platform, state: State) -> State:
    """Return the state with the guest's enable bit cleared and nothing else."""
    if state.rules.flavour == ARCH:
        return with_ctl(design, platform, state, guest_ctl(design, state) & ~msrs.CTL_LBREN)
    return with_debugctl(design, platform, state, state.guest.debugctl & ~msrs.DEBUGCTL_LBR)


def loaded_debugctl(design: Design, state: State, value: int) -> int:
    """Return the IA32_DEBUGCTL that the processor runs the guest with, whose own is `value`.

    The legacy enable bit goes in only with ownership, and FREEZE_WHILE_SMM stays the host's (users-and-peers.md 3.2,
    bug 9).
    """
    if not (state.owned or design.loads_unowned):
        value &= ~msrs.DEBUGCTL_LBR
    if design.keeps_freeze_in_smm:
        value |= state.kept.debugctl & msrs.DEBUGCTL_FREEZE_SMM
    return value


def with_debugctl(design: Design, platform: Platform, state: State, value: int) -> State:
    """Return the state with another IA32_DEBUGCTL of the guest's, in the processor too while it runs."""
    lbr, guest = state.lbr, changed(state.guest, DEBUGCTL_AT, value)
    if state.running:
        lbr = changed(lbr, DEBUGCTL_AT, loaded_debugctl(design, state, value))
    if state.rules.flavour != ARCH:  # where the enable bit is in this register
        lbr, guest = settled(platform.facility, lbr), settled(state.rules.facility, guest)
    return with_both(state, lbr, guest)


def with_frozen(platform: Platform, state: State, frozen: int) -> State:
    """Return the state with another LBR_FRZ of the guest's; the bit goes with the LBRs, to whom they belong."""
    state = with_guest(state, settled(state.rules.facility, state.guest._replace(frozen=frozen)))
    if not (state.running and state.owned):
        return _stopped(state) if frozen else state
    return with_lbr(state, settled(platform.facility, state.lbr._replace(frozen=frozen)))
