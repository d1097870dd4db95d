"""Recording a branch natively: the twin of `lbr.record`, `lbr.filters` and `lbr.legacy`.

`machine` calls `record` from its own native hooks for every branch and `read_stack` for every sample. A branch that
the controls keep out costs a load and a test; one that enters moves no other entry. The authorities stand in the pure
modules; a property test holds the two equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from archlbr.arch import msrs
from archlbr.arch.branches import BranchKind
from archlbr.lbr.compiled import words as w
from archlbr.lbr.state import (
    ARCH,
    FORMAT_32,
    FORMAT_EIP_FLAGS,
    FORMAT_EIP_FLAGS2,
    FORMAT_INFO,
    FORMAT_INFO2,
    FORMAT_TIME,
)
from archlbr.native import native, native_inline

if TYPE_CHECKING:
    from archlbr.lbr.compiled.words import Words


# numba computes in float64 when signed meets unsigned, so every constant is unsigned.
_U = np.uint64
U0, U1, U2, U3, U4, U7, U8, U15, U16, U32, U48, U56, U61, U63 = (
    _U(n) for n in (0, 1, 2, 3, 4, 7, 8, 15, 16, 32, 48, 56, 61, 63)
)
_ALL = _U((1 << 64) - 1)
_ARCH = _U(ARCH)
_FORMAT_32, _FLAGS, _FLAGS2, _INFO, _TIME, _INFO2 = (
    _U(n) for n in (FORMAT_32, FORMAT_EIP_FLAGS, FORMAT_EIP_FLAGS2, FORMAT_INFO, FORMAT_TIME, FORMAT_INFO2)
)
_RING, _STRIDE = _U(w.RING), _U(w.STRIDE)
_ENTER_OR_POP, _POP = _U(0x10001), _U(0x10000)
_RECORDING = _U(w.GATE_RECORDING)
_KINDS = _U(0xFE)
_CALLS = _U(1 << BranchKind.REL_CALL | 1 << BranchKind.IND_CALL)
_RETURN = _U(1 << BranchKind.RET)
_SELECT_NIBBLES = _U(w.SELECT_NIBBLES)
_CYCLES = _U(msrs.CYC_CNT_MAX)
_VALID = _U(msrs.INFO_CYC_VALID)
_LER_INFO = _U(msrs.LER_INFO_MASK)
_CALL_STACK = _U(msrs.CTL_CALL_STACK)
_SELECT_CALL_STACK = _U(msrs.SELECT_CALL_STACK)
_LOW_32, _LOW_48, _LOW_61, _LOW_63 = (_U((1 << n) - 1) for n in (32, 48, 61, 63))


@native
def refresh(words: Words) -> None:
    """Derive GATE from the controls; forget the counts when recording has stopped (`state.settled`)."""
    arch = words[w.FORMAT] == _ARCH
    words[w.RING_END] = _RING + _STRIDE * words[w.DEPTH]
    enable = words[w.CTL] if arch else words[w.DEBUGCTL]
    if not enable & U1 or words[w.FROZEN]:
        words[w.GATE] = words[w.TIMED] = words[w.SINCE] = words[w.PENDING] = U0
        return
    gate = _RECORDING
    if arch:
        ctl = words[w.CTL]
        kinds = ctl >> U15 & _KINDS if words[w.BRANCH_FILTER] else _KINDS
        kernel = user = U1
        if words[w.CPL_FILTER]:
            kernel, user = ctl >> U1 & U1, ctl >> U2 & U1
            gate |= (U1 - kernel) << U32 | (U1 - user) << _U(33)
        stack_mode = ctl & _CALL_STACK
    else:
        select = words[w.SELECT]
        kinds = U0
        for kind in range(1, 8):
            bit = _SELECT_NIBBLES >> _U(4 * kind) & U15
            kinds |= (U1 - (select >> bit & U1)) << _U(kind)
        kernel, user = U1 - (select & U1), U1 - (select >> U1 & U1)
        stack_mode = select & _SELECT_CALL_STACK
    rings = kernel | user << U8
    if stack_mode:
        gate |= (kinds & _CALLS) * rings | (kinds & _RETURN) * rings << U16
    else:
        gate |= kinds * rings
    words[w.GATE] = gate


@native_inline
def record(words: Words, source: _U, target: _U, kind: _U, cpl_from: _U, cpl_to: _U, clock: _U, flags: _U) -> None:
    """Record a branch, if the filters admit it.

    flags: bit 0 mispredicted, 1 in a transaction, 2 abort, 3 an event (LER), 23:8 event counts of 2 bits. All uint64.
    """
    if flags > U7:
        _observe(words, flags)
    gate = words[w.GATE]
    admitted = gate >> (kind + U8) if cpl_to else gate >> kind
    if not admitted & _ENTER_OR_POP:
        return
    head = words[w.HEAD]
    if admitted & _POP:
        words[head] = words[head + U1] = words[head + U2] = U0
        if head == _RING:
            head = words[w.RING_END]
        words[w.HEAD] = head - _STRIDE
        return
    head += _STRIDE
    if head == words[w.RING_END]:
        head = _RING
    words[w.HEAD] = head
    if words[w.FORMAT] != _ARCH:
        _write_legacy(words, head, source, target, clock, flags)
        return
    if gate >> (_U(33) if cpl_from else U32) & U1:
        source = _ALL
    flags &= words[w.FLAGS]
    info = words[w.TYPES] >> (kind << U2) << U56 & _U(0xF << 56)
    info |= (flags & U1) << U63 | (flags & U2) << U61 | (flags & U4) << _U(59) | words[w.PENDING] << U32
    words[w.PENDING] = U0
    if words[w.TIMED]:
        elapsed = clock - words[w.SINCE]
        info |= _VALID | (elapsed if elapsed < _CYCLES else _CYCLES)
        words[w.SINCE] = clock
    elif words[w.TIMES]:
        words[w.TIMED] = U1
        words[w.SINCE] = clock
    words[head] = source
    words[head + U1] = target
    words[head + U2] = info


@native
def _observe(words: Words, flags: _U) -> None:
    """Count events and update LER, while recording, whatever becomes of the branch."""
    if not words[w.GATE] & _RECORDING:
        return
    counts = flags >> U8 & words[w.LANES]
    if counts:
        pending, total = words[w.PENDING], U0
        for lane in range(0, 16, 2):
            low = _U(lane)
            both = (pending >> low & U3) + (counts >> low & U3)
            total |= (both if both < U3 else U3) << low
        words[w.PENDING] = total
    if flags & _U(w.EVENT):
        head = words[w.HEAD]
        words[w.LER_FROM] = words[head]
        words[w.LER_TO] = words[head + U1]
        words[w.LER_INFO] = words[head + U2] & _LER_INFO if words[w.FORMAT] == _ARCH else U0


@native
def _write_legacy(words: Words, head: _U, source: _U, target: _U, clock: _U, flags: _U) -> None:
    """Write an entry in a legacy format (`legacy.encoded`)."""
    form = words[w.FORMAT]
    flags &= words[w.FLAGS]
    bits = (flags & U1) << U63 | (flags & U2) << U61 | (flags & U4) << _U(59)
    cycles = info = U0
    if words[w.TIMED]:
        elapsed = clock - words[w.SINCE]
        cycles = elapsed if elapsed < _CYCLES else _CYCLES
    if words[w.TIMES]:
        words[w.TIMED] = U1
        words[w.SINCE] = clock
    if form in (_INFO, _INFO2):
        info = bits | cycles
    elif form == _FORMAT_32:
        source &= _LOW_32
        target &= _LOW_32
    elif form == _FLAGS:
        source = source & _LOW_63 | bits
    elif form == _FLAGS2:
        source = source & _LOW_61 | bits
    elif form == _TIME:
        source = source & _LOW_63 | bits
        target = target & _LOW_48 | cycles << U48
    words[head] = source
    words[head + U1] = target
    words[head + U2] = info


@native
def read_stack(words: Words, out: Words) -> int:
    """Copy FROM, TO, INFO newest first into `out` (uint64[3 * DEPTH] or more), up to FROM = 0; return the entries."""
    at = words[w.HEAD]
    for count in range(words[w.DEPTH]):
        source = words[at]
        if not source:
            return count
        out[3 * count] = source
        out[3 * count + 1] = words[at + U1]
        out[3 * count + 2] = words[at + U2]
        if at == _RING:
            at = words[w.RING_END]
        at -= _STRIDE
    return int(words[w.DEPTH])


@native
def wipe(words: Words) -> None:
    """Clear the entries and forget the counts."""
    for at in range(w.RING, w.COUNT):
        words[at] = U0
    words[w.HEAD] = _RING
    words[w.TIMED] = words[w.SINCE] = words[w.PENDING] = U0
