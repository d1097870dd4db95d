"""The legacy, model-specific flavour: a ring with a top-of-stack pointer, a filter that suppresses, flags inside FROM
and TO.

`record` and `registers` call it behind the same step. Authority: reference architecture.md 5 (its sources: older
editions of arch/x86/events/intel/lbr.c and the SDM's chapters on model-specific LBRs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.lbr.filters import PASS, POP, unsuppressed
from archlbr.lbr.state import (
    EMPTY,
    FORMAT_32,
    FORMAT_EIP_FLAGS,
    FORMAT_EIP_FLAGS2,
    FORMAT_INFO,
    FORMAT_INFO2,
    FORMAT_TIME,
    Entry,
    Facility,
    State,
    elapsed,
)

if TYPE_CHECKING:
    from archlbr.lbr.actions import Branch

_MASK = (1 << 64) - 1


def record(facility: Facility, state: State, branch: Branch) -> State:
    """Return the state after a branch; TOS moves up before an entry is written and down after one is popped.

    A popped entry becomes 0, as readers rely on (L-lbr); FROM is not masked on a ring crossing (UNCONFIRMED).
    """
    stack, tos = state.stack, state.tos
    if branch.event:
        state = state._replace(ler=stack[tos]._replace(info=0))
    admission = unsuppressed(state.select, branch.kind, branch.cpl_to)
    if admission == PASS:
        return state
    if admission == POP:
        return state._replace(stack=(*stack[:tos], EMPTY, *stack[tos + 1 :]), tos=(tos - 1) % facility.max_depth)
    tos = (tos + 1) % facility.max_depth
    timed = int(facility.format >= FORMAT_INFO)
    entry = encoded(facility, state, branch)
    stack = (*stack[:tos], entry, *stack[tos + 1 :])
    return state._replace(stack=stack, tos=tos, since=branch.clock * timed, timed=timed)


def encoded(facility: Facility, state: State, branch: Branch) -> Entry:
    """Return the registers of a branch in the facility's format.

    The first entry after recording starts has 0 cycles. Bits 62:61 of FROM in format 4 are off without TSX, whatever
    the address (L-lbr, lbr_from_signext_quirk_wr); format 0 keeps 32 bits (UNCONFIRMED).
    """
    form, source, target = facility.format, branch.source, branch.target
    tsx = branch.in_tx << 62 | branch.abort << 61 if facility.tsx else 0
    cycles = elapsed(state.since, branch.clock) if state.timed else 0
    mispredicted = branch.mispredicted << 63
    if form == FORMAT_32:
        return Entry(source & 0xFFFFFFFF, target & 0xFFFFFFFF, 0)
    if form == FORMAT_EIP_FLAGS:
        return Entry(source & _MASK >> 1 | mispredicted, target, 0)
    if form == FORMAT_EIP_FLAGS2:
        return Entry(source & _MASK >> 3 | mispredicted | tsx, target, 0)
    if form == FORMAT_INFO:
        return Entry(source, target, mispredicted | tsx | cycles)
    if form == FORMAT_TIME:
        return Entry(source & _MASK >> 1 | mispredicted, target & _MASK >> 16 | cycles << 48, 0)
    if form == FORMAT_INFO2:
        return Entry(source, target, mispredicted | cycles)
    return Entry(source, target, 0)


def source_writable(facility: Facility, value: int) -> bool:
    """Say whether WRMSR accepts a FROM value: the bits under the flags must be an address (UNCONFIRMED).

    In format 4 without TSX bits 62:61 belong to the sign extension (L-lbr, lbr_from_signext_quirk_wr).
    """
    form = facility.format
    if form == FORMAT_32:
        return value >> 32 == 0
    if form in (FORMAT_EIP_FLAGS, FORMAT_TIME) or (form == FORMAT_EIP_FLAGS2 and not facility.tsx):
        return sign_extended(value, facility.linear_width, 63)
    if form == FORMAT_EIP_FLAGS2:
        return sign_extended(value, facility.linear_width, 61)
    return sign_extended(value, facility.linear_width, 64)


def target_writable(facility: Facility, value: int) -> bool:
    """Say whether WRMSR accepts a TO value; format 6 keeps cycles in 63:48, format 0 has 32 bits (UNCONFIRMED)."""
    form = facility.format
    if form == FORMAT_32:
        return value >> 32 == 0
    return form == FORMAT_TIME or sign_extended(value, facility.linear_width, 64)


def sign_extended(value: int, width: int, top: int) -> bool:
    """Say whether bits top-1 .. width-1 of a value are all the same."""
    high = (value & (1 << top) - 1) >> (width - 1)
    return high in (0, (1 << (top - width + 1)) - 1)
