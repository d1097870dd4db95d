"""The compiled block hooks: from the block that ran to the record it leaves.

The engine calls one of these as each block starts. `cpu.unicorn.blocks` says which branch was taken; `tracing` writes
it down at once, `machine.journal` later and for many blocks; the counters, the LBRs and the buffer of samples that it
works on are here. One flat array holds everything they touch: the words of `cpu.words` first, then those named here.
Design: docs/decisions/010 and 018.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba import carray, types, uint64

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.cpu.address import Word, call1, call5
from archlbr.cpu.unicorn.blocks import advance, advance_with_care, leave
from archlbr.lbr import compiled as lbr
from archlbr.machine.pmi import take_sample
from archlbr.native import callback, native, native_inline

if TYPE_CHECKING:
    from archlbr.cpu.words import Words

BLOCK_HOOK = types.void(types.uint64, types.uint64, types.uint32, types.CPointer(types.uint64))

# tracing: a ring of FROM, TO, kind for each taken branch.
TRACE_USED = at.WORDS  # words in use
TRACE_AT = at.WORDS + 8
TRACE_ROW = 3
TRACE_ROWS = 1 << 16
TRACE_LIMIT = TRACE_ROW * TRACE_ROWS
TRACE_WORDS = TRACE_AT + TRACE_LIMIT

# sampling: the counter, the LBRs, and a buffer of samples.
NEXT_TAKEN = at.WORDS  # the counter of taken branches overflows when at.TAKEN reaches this; NEVER: it does not count
NEXT_RETIRED = at.WORDS + 1  # the same for instructions
PERIOD = at.WORDS + 2
OWNED = at.WORDS + 3  # the vPMU's ownership of the LBRs
SAMPLES_USED = at.WORDS + 4
JITTER = at.WORDS + 5  # each period is PERIOD and 0..JITTER more
JITTER_STATE = at.WORDS + 6  # the generator's; never 0
LEARNING = at.WORDS + 7  # taken branches before an overflow that the predictor sees; NEVER: all
LBR_AT = at.WORDS + 8
LBR_END = LBR_AT + lbr.COUNT
SAMPLES_AT = LBR_END
DEPTH_LIMIT = 32
SAMPLE_IP, SAMPLE_TIME, SAMPLE_COUNT = range(3)
SAMPLE_STACK = 3
SAMPLE_ROW = SAMPLE_STACK + 3 * DEPTH_LIMIT
SAMPLE_ROWS = 4096
SAMPLES_END = SAMPLES_AT + SAMPLE_ROW * SAMPLE_ROWS
SAMPLING_WORDS = SAMPLES_END

NEVER = 1 << 63
_NEVER = NEVER
_NONE = int(BranchKind.NONE)
_REPEATED = 64  # no branch kind: the hook is called a second time for a block
_USER = 3


@native
def stop(words: Words, engine: Word, reason: Word) -> None:
    """Stop the engine before this block runs; the hook is called for it again."""
    if words[at.REASON] == at.REASON_NONE:  # the first reason stays: a full buffer must be emptied before all else
        words[at.REASON] = reason
    words[at.UNUSUAL] |= uint64(at.UNUSUAL_REPEATED)
    call1(words[at.EMU_STOP], engine)
    if words[at.LEAVE] != 0:  # does not return: the engine has what it needs to begin this block again
        call5(words[at.LEAVE], engine, uint64(0), uint64(0), uint64(0), uint64(0))


# Called once RETIRED has reached LIMIT. LIMIT is written before the signal's flag is looked at, so that a handler that
# clears it in between is seen; the one that cannot be seen waits for PATIENCE.
@native
def _look_around(words: Words, engine: Word, overflow: Word) -> None:
    retired = words[at.RETIRED]
    limit = min(words[at.DEADLINE], retired + uint64(at.PATIENCE))
    words[at.LIMIT] = min(limit, overflow)
    if words[at.SIGNALLED] != 0:
        stop(words, engine, uint64(at.REASON_SIGNAL))
    elif retired >= words[at.DEADLINE]:
        stop(words, engine, uint64(at.REASON_SLICE))


@native
def _advance_unusually(words: Words, address: Word, size: Word) -> Word:
    if words[at.UNUSUAL] & uint64(at.UNUSUAL_REPEATED) != 0:
        words[at.UNUSUAL] &= ~uint64(at.UNUSUAL_REPEATED)
        return uint64(_REPEATED)
    return advance_with_care(words, address, size)


# xorshift64 (Marsaglia, Xorshift RNGs, 2003): deterministic, and a sample's only cost.
@native
def next_jitter(words: Words) -> Word:
    """Return how much longer than PERIOD the next period is."""
    if words[JITTER] == 0:
        return uint64(0)
    state = words[JITTER_STATE]
    state ^= state << uint64(13)
    state ^= state >> uint64(7)
    state ^= state << uint64(17)
    words[JITTER_STATE] = state
    return state % (words[JITTER] + uint64(1))


@native
def _sample(words: Words, address: Word) -> None:
    row = SAMPLES_AT + words[SAMPLES_USED]
    words[row + SAMPLE_IP] = address
    words[row + SAMPLE_TIME] = words[at.RETIRED]
    stack = words[row + SAMPLE_STACK : row + SAMPLE_ROW]
    words[row + SAMPLE_COUNT] = uint64(take_sample(words[LBR_AT:LBR_END], words[OWNED], stack))
    words[SAMPLES_USED] += uint64(SAMPLE_ROW)


@native
def learn(words: Words) -> None:
    """Let the predictor see the branches before the next overflow: no sample shows what it says of others."""
    taken, span = words[NEXT_TAKEN], words[LEARNING]
    words[at.LEARN_FROM] = taken - span if taken > span else uint64(0)


@native_inline
def count_taken(words: Words, address: Word) -> None:
    """Take a sample when the counter of taken branches has overflowed; the buffer must have room."""
    if words[at.TAKEN] >= words[NEXT_TAKEN]:
        words[NEXT_TAKEN] += words[PERIOD] + next_jitter(words)
        learn(words)
        _sample(words, address)


@native_inline
def count_retired(words: Words, address: Word) -> None:
    """Take a sample when the counter of instructions has overflowed; the buffer must have room."""
    if words[at.RETIRED] >= words[NEXT_RETIRED]:
        # A block longer than the period overflows the counter more than once, and one PMI serves them all.
        words[NEXT_RETIRED] += next_jitter(words) + words[PERIOD] * (
            uint64(1) + (words[at.RETIRED] - words[NEXT_RETIRED]) // words[PERIOD]
        )
        _sample(words, address)


@native_inline
def write_down(words: Words, address: Word, kind: Word) -> Word:
    """Put a branch into the ring; return the words in use."""
    used = words[TRACE_USED]
    words[TRACE_AT + used] = words[at.FROM]
    words[TRACE_AT + used + 1] = address
    words[TRACE_AT + used + 2] = kind
    words[TRACE_USED] = used + uint64(TRACE_ROW)
    return used + uint64(TRACE_ROW)


@native_inline
def record_branch(words: Words, address: Word, kind: Word) -> None:
    """Hand the branch that `leave` found to the LBRs."""
    lbr.record(
        words[LBR_AT:LBR_END],
        words[at.FROM],
        address,
        kind,
        uint64(_USER),
        uint64(_USER),
        words[at.RETIRED],
        words[at.MISPREDICTED],
    )


@native
def trace_landing(words: Words, address: Word) -> None:
    """Write down the branch to an address where no code can run: no block starts there, so no hook is called."""
    if words[at.CURRENT] == 0:
        return
    kind = leave(words, address)
    if kind != _NONE:
        write_down(words, address, kind)
    words[at.CURRENT] = uint64(0)


@native
def sample_landing(words: Words, address: Word) -> None:
    """Record the branch to an address where no code can run."""
    if words[at.CURRENT] == 0:
        return
    kind = leave(words, address)
    if kind != _NONE:
        record_branch(words, address, kind)
    words[at.CURRENT] = uint64(0)


@callback(BLOCK_HOOK)
def tracing(engine: Word, address: Word, size: Word, pointer: Any) -> None:
    """Write down every taken branch; stop when the ring is full, a slice ends or a signal waits."""
    words = carray(pointer, (TRACE_WORDS,))
    if words[at.UNUSUAL] == 0:
        kind = advance(words, address, uint64(size))
    else:
        kind = _advance_unusually(words, address, uint64(size))
        if kind == _REPEATED:
            return
    if kind != _NONE and write_down(words, address, kind) == TRACE_LIMIT:
        stop(words, engine, uint64(at.REASON_FLUSH))
        return
    if words[at.RETIRED] >= words[at.LIMIT]:
        _look_around(words, engine, uint64(_NEVER))
