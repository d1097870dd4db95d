"""The compiled block hooks: from the block that ran to the record it leaves.

The engine calls one of these as each block starts. `cpu.unicorn.blocks` says which branch was taken; `tracing` writes it
down, `sampling` hands it to the LBRs and counts it. One flat array holds everything they touch: the words of `cpu.words`
first, then those named here. Design: docs/decisions/010.
"""

from __future__ import annotations

from typing import Any

from numba import carray, cfunc, types, uint64

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.cpu.address import call1
from archlbr.cpu.unicorn.blocks import advance

BLOCK_HOOK = types.void(types.uint64, types.uint64, types.uint32, types.CPointer(types.uint64))

# The trace's ring: FROM, TO, kind for each taken branch.
TRACE_USED = at.WORDS  # words in use
TRACE_AT = at.WORDS + 8
TRACE_ROW = 3
TRACE_ROWS = 1 << 16
TRACE_WORDS = TRACE_AT + TRACE_ROW * TRACE_ROWS

_NONE = int(BranchKind.NONE)


@cfunc(BLOCK_HOOK, cache=True)
def tracing(engine: int, address: int, size: int, pointer: Any) -> None:
    """Write down every taken branch; stop when the ring is full, a slice ends or a signal waits."""
    words = carray(pointer, (TRACE_WORDS,))
    if words[at.REPEATED] != 0:
        words[at.REPEATED] = uint64(0)  # this block stopped the engine before it ran, and is accounted for
        return
    kind = advance(words, address, uint64(size))
    if kind != _NONE:
        used = words[TRACE_USED]
        words[TRACE_AT + used] = words[at.FROM]
        words[TRACE_AT + used + 1] = address
        words[TRACE_AT + used + 2] = kind
        words[TRACE_USED] = used + uint64(TRACE_ROW)
        if used + uint64(TRACE_ROW) == TRACE_ROW * TRACE_ROWS:
            words[at.REASON] = uint64(at.REASON_FLUSH)
            words[at.REPEATED] = uint64(1)
            call1(words[at.EMU_STOP], engine)
            return
    words[at.SLICE] -= uint64(1)
    if words[at.SLICE] == 0:
        words[at.REASON] = uint64(at.REASON_SLICE)
    elif words[at.SIGNALLED] != 0:
        words[at.REASON] = uint64(at.REASON_SIGNAL)
    else:
        return
    words[at.REPEATED] = uint64(1)
    call1(words[at.EMU_STOP], engine)
