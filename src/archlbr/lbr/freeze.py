"""What stops recording and what starts it again: PMI, #DB, SMI and RSM, the resets, deep C-states.

`step` dispatches here. Each function is a row of the table in reference architecture.md 3.6; 5 has the legacy column.
"""

from __future__ import annotations

from archlbr.arch import msrs
from archlbr.lbr.state import ARCH, EMPTY, Facility, State, initial, settled

# #SMI with FREEZE_WHILE_SMM disables LBR, BTF, TR and BTS in DEBUGCTL (UNCONFIRMED, mem; SDM vol. 3B on
# DEBUGCTL[14]).
SMM_OFF = sum(msrs.IA32_DEBUGCTL.named(name).mask for name in ("LBR", "BTF", "TR", "BTS"))


def disabled(facility: Facility, state: State) -> State:
    """Return the state with the enable bit cleared and nothing else: LBREn, or DEBUGCTL.LBR."""
    if facility.format == ARCH:
        return settled(facility, state._replace(ctl=state.ctl & ~msrs.CTL_LBREN))
    return settled(facility, state._replace(debugctl=state.debugctl & ~msrs.DEBUGCTL_LBR))


def pmi(facility: Facility, state: State) -> State:
    """Freeze, if DEBUGCTL[11] asks for it: LBR_FRZ from PMU version 4 on, the enable bit cleared before."""
    if not state.debugctl & msrs.DEBUGCTL_FREEZE_LBRS:
        return state
    if facility.pmu_version >= 4:
        return settled(facility, state._replace(frozen=1))
    return disabled(facility, state)


def thaw(facility: Facility, state: State) -> State:
    """Clear LBR_FRZ; recording goes on if the enable bit is still set."""
    return settled(facility, state._replace(frozen=0))


def debug_exception(facility: Facility, state: State) -> State:
    """Clear the enable bit; #DB leaves no record (measured; 3.6)."""
    return disabled(facility, state)


def smi(facility: Facility, state: State) -> State:
    """Save and clear LBREn; with FREEZE_WHILE_SMM also save DEBUGCTL and disable tracing there. In SMM: held back."""
    if state.smm:
        return state
    saved = 1 | (state.ctl & msrs.CTL_LBREN) << 1
    debugctl, smm_debugctl = state.debugctl, 0
    if debugctl & msrs.DEBUGCTL_FREEZE_SMM:
        saved |= 4
        debugctl, smm_debugctl = debugctl & ~SMM_OFF, debugctl
    return settled(
        facility,
        state._replace(ctl=state.ctl & ~msrs.CTL_LBREN, debugctl=debugctl, smm=saved, smm_debugctl=smm_debugctl),
    )


def rsm(facility: Facility, state: State) -> State | None:
    """Restore LBREn, whatever the handler wrote to it (UNCONFIRMED), and a saved DEBUGCTL; None (#UD) outside SMM."""
    if not state.smm:
        return None
    ctl = state.ctl & ~msrs.CTL_LBREN | (state.smm >> 1 & 1)
    debugctl = state.smm_debugctl if state.smm & 4 else state.debugctl
    return settled(facility, state._replace(ctl=ctl, debugctl=debugctl, smm=0, smm_debugctl=0))


def init(facility: Facility, state: State) -> State:
    """Keep everything: INIT treats LBR_CTL as it treats DEBUGCTL (K-ctl); it is no warm reset (K-db)."""
    return state


def warm_reset(facility: Facility, state: State) -> State:
    """Keep every LBR register and DEPTH, clear LBREn; DEBUGCTL, XSS, LBR_FRZ and SMM become 0 (UNCONFIRMED)."""
    return settled(
        facility,
        state._replace(ctl=state.ctl & ~msrs.CTL_LBREN, debugctl=0, frozen=0, xss=0, smm=0, smm_debugctl=0),
    )


def cold_reset(facility: Facility, state: State) -> State:
    """Start over: all 0, DEPTH at its maximum."""
    return initial(facility)


def deep_c_state(facility: Facility, state: State) -> State:
    """Clear the entries where CPUID.1CH:EAX[30] says they may be; LER and the controls stay (UNCONFIRMED)."""
    if not facility.leaf.deep_c_reset:
        return state
    return wiped(state)


def wiped(state: State) -> State:
    """Return the state with every entry 0 and the counts forgotten."""
    return state._replace(stack=(EMPTY,) * state.depth, since=0, timed=0, pending=0)
