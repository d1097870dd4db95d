"""The compiled block hooks: from the block that ran to the record it leaves.

The engine calls one of these as each block starts. `cpu.unicorn.blocks` says which branch was taken; `tracing` writes
it down, `sampling` hands it to the LBRs, counts it and takes a sample when the counter overflows. One flat array holds
everything they touch: the words of `cpu.words` first, then those named here. Design: docs/decisions/010.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba import carray, types, uint64

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.cpu.address import Word, call1, callback, native
from archlbr.cpu.unicorn.blocks import advance
from archlbr.lbr import compiled as lbr
from archlbr.machine.pmi import take_sample

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BLOCK_HOOK = types.void(types.uint64, types.uint64, types.uint32, types.CPointer(types.uint64))

# tracing: a ring of FROM, TO, kind for each taken branch.
TRACE_USED = at.WORDS  # words in use
TRACE_AT = at.WORDS + 8
TRACE_ROW = 3
TRACE_ROWS = 1 << 16
TRACE_LIMIT = TRACE_ROW * TRACE_ROWS
TRACE_WORDS = TRACE_AT + TRACE_LIMIT

# sampling: the counter, the LBRs, and a buffer of samples.
POSITION = at.WORDS  # which word counts: at.TAKEN or at.RETIRED
NEXT = at.WORDS + 1  # the counter overflows when that word reaches this
PERIOD = at.WORDS + 2
OWNED = at.WORDS + 3  # the vPMU's ownership of the LBRs
SAMPLES_USED = at.WORDS + 4
LBR_AT = at.WORDS + 8
LBR_END = LBR_AT + lbr.COUNT
SAMPLES_AT = LBR_END
DEPTH_LIMIT = 32
SAMPLE_IP, SAMPLE_TIME, SAMPLE_COUNT = range(3)
SAMPLE_STACK = 3
SAMPLE_ROW = SAMPLE_STACK + 3 * DEPTH_LIMIT
SAMPLE_ROWS = 1024
SAMPLES_END = SAMPLES_AT + SAMPLE_ROW * SAMPLE_ROWS
SAMPLING_WORDS = SAMPLES_END

_NONE = int(BranchKind.NONE)
_USER = 3


@native
def _stop(words: npt.NDArray[np.uint64], engine: int, reason: int) -> None:
    # The engine stops before this block runs and calls the hook for it again.
    words[at.REASON] = reason
    words[at.REPEATED] = uint64(1)
    call1(words[at.EMU_STOP], engine)


@native
def _look_up(words: npt.NDArray[np.uint64], engine: int) -> None:
    words[at.SLICE] -= uint64(1)
    if words[at.SLICE] == 0:
        _stop(words, engine, uint64(at.REASON_SLICE))
    elif words[at.SIGNALLED] != 0:
        _stop(words, engine, uint64(at.REASON_SIGNAL))


@callback(BLOCK_HOOK)
def tracing(engine: Word, address: Word, size: Word, pointer: Any) -> None:
    """Write down every taken branch; stop when the ring is full, a slice ends or a signal waits."""
    words = carray(pointer, (TRACE_WORDS,))
    if words[at.REPEATED] != 0:
        words[at.REPEATED] = uint64(0)
        return
    kind = advance(words, address, uint64(size))
    if kind != _NONE:
        used = words[TRACE_USED]
        words[TRACE_AT + used] = words[at.FROM]
        words[TRACE_AT + used + 1] = address
        words[TRACE_AT + used + 2] = kind
        used += uint64(TRACE_ROW)
        words[TRACE_USED] = used
        if used == TRACE_LIMIT:
            _stop(words, engine, uint64(at.REASON_FLUSH))
            return
    _look_up(words, engine)


@callback(BLOCK_HOOK)
def sampling(engine: Word, address: Word, size: Word, pointer: Any) -> None:
    """Record every taken branch in the LBRs; on overflow take a sample; stop when the samples' buffer is full."""
    words = carray(pointer, (SAMPLING_WORDS,))
    if words[at.REPEATED] != 0:
        words[at.REPEATED] = uint64(0)
        return
    kind = advance(words, address, uint64(size))
    registers = words[LBR_AT:LBR_END]
    if kind != _NONE:
        lbr.record(
            registers,
            words[at.FROM],
            address,
            kind,
            uint64(_USER),
            uint64(_USER),
            words[at.RETIRED],
            words[at.MISPREDICTED],
        )
    if words[words[POSITION]] >= words[NEXT]:
        words[NEXT] += words[PERIOD]
        row = SAMPLES_AT + words[SAMPLES_USED]
        words[row + SAMPLE_IP] = address
        words[row + SAMPLE_TIME] = words[at.RETIRED]
        words[row + SAMPLE_COUNT] = uint64(
            take_sample(registers, words[OWNED], words[row + SAMPLE_STACK : row + SAMPLE_ROW])
        )
        words[SAMPLES_USED] += uint64(SAMPLE_ROW)
        if words[SAMPLES_USED] == SAMPLE_ROW * SAMPLE_ROWS:
            _stop(words, engine, uint64(at.REASON_FLUSH))
            return
    _look_up(words, engine)
