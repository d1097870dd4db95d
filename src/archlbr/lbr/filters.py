"""Which branches enter the stack: the inclusion lists of IA32_LBR_CTL, the suppression list of MSR_LBR_SELECT.

`record` and `legacy` ask; the two functions are the two flavours side by side. Authority: reference architecture.md
2.2, 3.2, 3.3 and 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs
from archlbr.arch.branches import CTL_BIT, KINDS, SELECT_BIT, BranchKind

if TYPE_CHECKING:
    from archlbr.lbr.state import Facility

# By kind: the bit that includes it, and the bit that suppresses it.
INCLUDE: tuple[int, ...] = (0, *(1 << CTL_BIT[row.kind] for row in KINDS))
SUPPRESS: tuple[int, ...] = (0, *(1 << SELECT_BIT[row.kind] for row in KINDS))

PASS, PUSH, POP = range(3)

# In call-stack mode calls push and returns pop. With other filters than these the content is undefined: nothing else
# enters (UNCONFIRMED; 3.3).
CALL_STACK: tuple[int, ...] = tuple(
    PUSH if kind in (BranchKind.REL_CALL, BranchKind.IND_CALL) else POP if kind == BranchKind.RET else PASS
    for kind in BranchKind
)


def admitted(facility: Facility, ctl: int, kind: int, cpl_to: int) -> int:
    """Return PASS, PUSH or POP for a branch of this kind that ends in this ring.

    The ring that counts is the destination's (UNCONFIRMED, mem; 3.2). Both filters include: an empty one admits
    nothing (measured for the types; UNCONFIRMED for the rings; 2.2). A filter CPUID does not offer admits everything.
    """
    leaf = facility.leaf
    if not kind:
        return PASS
    if leaf.cpl_filter and not ctl & (msrs.CTL_USR if cpl_to else msrs.CTL_OS):
        return PASS
    if leaf.branch_filter and not ctl & INCLUDE[kind]:
        return PASS
    return CALL_STACK[kind] if ctl & msrs.CTL_CALL_STACK else PUSH


def unsuppressed(select: int, kind: int, cpl_to: int) -> int:
    """Return PASS, PUSH or POP for a branch of the legacy facility; a set bit of MSR_LBR_SELECT suppresses (5).

    The ring that counts is the destination's (arch/x86/events/utils.c).
    """
    if not kind:
        return PASS
    if select & (msrs.SELECT_CPL_NEQ_0 if cpl_to else msrs.SELECT_CPL_EQ_0) or select & SUPPRESS[kind]:
        return PASS
    return CALL_STACK[kind] if select & msrs.SELECT_CALL_STACK else PUSH
