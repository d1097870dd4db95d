"""What happens when a branch is taken: entry, INFO, LER, event counts.

`step` feeds branches in; `filters` admits them; `legacy` writes them for the other flavour. Each branch comes with
what the core knows of it: addresses, kind, rings, model clock, misprediction, transaction. Authority: reference
architecture.md 2.5, 3.2 to 3.5, 4.3 and 6.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs
from archlbr.arch.branches import BR_TYPE, KINDS
from archlbr.lbr import legacy
from archlbr.lbr.filters import PASS, POP, admitted
from archlbr.lbr.state import ARCH, EMPTY, Entry, Facility, State, elapsed, recording

if TYPE_CHECKING:
    from archlbr.lbr.actions import Branch

# A FROM whose ring is filtered out reads as 64 ones, never 0, which would end the stack (3.2). The manual's text is
# said to show 0FFFFFFFFH; the width is UNCONFIRMED.
MASKED = (1 << 64) - 1

TYPE_CODE: tuple[int, ...] = (0, *(BR_TYPE[row.kind] << 56 for row in KINDS))


def record(facility: Facility, state: State, branch: Branch) -> State:
    """Return the state after a branch, recorded or not."""
    if not recording(facility, state):
        return state
    if facility.format != ARCH:
        return legacy.record(facility, state, branch)
    stack = state.stack
    if branch.counts:
        state = state._replace(pending=added(state.pending, branch.counts & facility.lanes))
    # LER takes what entry 0 was just before the event (4.3). That it does so whatever becomes of the event itself in
    # the filters is UNCONFIRMED.
    if branch.event:
        newest = stack[0]
        state = state._replace(ler=newest._replace(info=newest.info & msrs.LER_INFO_MASK))
    admission = admitted(facility, state.ctl, branch.kind, branch.cpl_to)
    if admission == PASS:
        return state
    if admission == POP:
        # The oldest slot becomes 0; popping an empty stack leaves it empty (UNCONFIRMED). The counts run on.
        return state._replace(stack=(*stack[1:], EMPTY))
    leaf = facility.leaf
    source = branch.source
    if leaf.cpl_filter and not state.ctl & (msrs.CTL_USR if branch.cpl_from else msrs.CTL_OS):
        source = MASKED
    entry = Entry(source, branch.target, information(facility, state, branch))
    timed = int(leaf.timed)
    return state._replace(stack=(entry, *stack[:-1]), since=branch.clock * timed, timed=timed, pending=0)


def information(facility: Facility, state: State, branch: Branch) -> int:
    """Return IA32_LBR_0_INFO for a branch; what CPUID does not offer reads 0 (2.5)."""
    leaf = facility.leaf
    info = state.pending << 32
    if leaf.branch_type:
        info |= TYPE_CODE[branch.kind]
    if leaf.mispredict and branch.mispredicted:
        info |= msrs.INFO_MISPRED
    if facility.tsx:
        info |= branch.in_tx * msrs.INFO_IN_TX | branch.abort * msrs.INFO_ABORT
    if state.timed:
        info |= msrs.INFO_CYC_VALID | elapsed(state.since, branch.clock)
    return info


def added(pending: int, counts: int) -> int:
    """Return the sum of two sets of 2-bit counts, each saturating at 3 (6.5)."""
    total = 0
    for low in range(0, 16, 2):
        total |= min((pending >> low & 3) + (counts >> low & 3), 3) << low
    return total
