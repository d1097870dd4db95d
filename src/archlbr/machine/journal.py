"""The hook behind `record`: it notes which block starts, and what that means is worked out for many blocks at once.

The engine calls `sampling` for every block, so what it does there is what recording costs: one word into the journal.
`settle` then accounts for all rows, as `blocks.advance` would have one by one: counts, the predictor, the LBRs, and a
sample at each overflow. Samples show the last DEPTH records, so of a stretch without a sample only those branches that
its end still holds are handed to the LBRs. The journal is settled when it is full and whenever the engine stops; while
code can change under the table, at every block. Design: docs/decisions/018.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba import carray, uint64

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.cpu.predictor import predict_direction, predict_target
from archlbr.cpu.unicorn.blocks import advance_with_care, find_block, make_room
from archlbr.lbr import compiled as lbr
from archlbr.lbr.compiled import words as w
from archlbr.lbr.state import ARCH
from archlbr.machine import hooks
from archlbr.native import callback, native, native_inline

if TYPE_CHECKING:
    from archlbr.cpu.address import Word
    from archlbr.cpu.words import Words

_NONE, _COND, _OTHER = int(BranchKind.NONE), int(BranchKind.COND), int(BranchKind.OTHER)
_ROWS, _SIZE_SHIFT = at.JOURNAL_ROWS, at.JOURNAL_SIZE_SHIFT
_ADDRESS = (1 << at.JOURNAL_SIZE_SHIFT) - 1
_BEFORE = at.JOURNAL - 1  # the entry of the block before the first row, where row -1 would be
# A row once accounted for: the block's entry in the table, and the branch that led to it.
_ENTRY_MASK = (1 << 32) - 1
_KIND_SHIFT, _KIND_MASK = 60, 7
_COUNT_SHIFT, _COUNT_MASK = 32, at.META_COUNT_MASK  # instructions that retired from the row before to this one
_MISSED_SHIFT = 63
_USER = 3
_USER_KINDS = 8  # GATE: kinds that enter when the destination is above ring 0
_POPS = 0xFFFF0000  # GATE: kinds that pop
_ENTERS_OR_POPS = 1 << 16 | 1
_GATE, _DEPTH, _FORMAT = hooks.LBR_AT + w.GATE, hooks.LBR_AT + w.DEPTH, hooks.LBR_AT + w.FORMAT
_ARCH = ARCH
_LBR_AT, _LBR_END = hooks.LBR_AT, hooks.LBR_END
_SAMPLES_USED = hooks.SAMPLES_USED
_NEXT_TAKEN, _NEXT_RETIRED = hooks.NEXT_TAKEN, hooks.NEXT_RETIRED
# Words of samples beyond which the buffer could not hold one more for each row of a journal.
ENOUGH = hooks.SAMPLE_ROW * (hooks.SAMPLE_ROWS - at.JOURNAL_ROWS)
_ENOUGH = ENOUGH


@native_inline
def _at(words: Words, entry: Word, word: int) -> Word:
    return words[entry + uint64(word)]


@native
def _scan(words: Words, row: Word, end: Word) -> Word:
    """Account for rows up to an overflow: counts, predictor, and in each row how it was reached. Return the next."""
    retired, taken, before = words[at.RETIRED], words[at.TAKEN], words[at.CURRENT]
    next_taken, next_retired = words[_NEXT_TAKEN], words[_NEXT_RETIRED]
    learn_from, missed = words[at.LEARN_FROM], uint64(0)
    # Nobody sees the verdicts on branches that the filter leaves out; those on others do not depend on directions.
    shown = words[_GATE] >> uint64(_COND + _USER_KINDS) & uint64(1)
    directions_from = learn_from if shown else uint64(hooks.NEVER)
    if before == uint64(0):
        noted = words[uint64(at.JOURNAL) + row]
        before = find_block(words, noted & uint64(_ADDRESS), noted >> uint64(_SIZE_SHIFT))
        words[uint64(at.JOURNAL) + row] = before
        row += uint64(1)
        end = row if retired >= next_retired else end
    while row < end:
        noted = words[uint64(at.JOURNAL) + row]
        address = noted & uint64(_ADDRESS)
        entry = find_block(words, address, noted >> uint64(_SIZE_SHIFT))
        meta = _at(words, before, at.META)
        kind = meta & uint64(0xFF)
        count = meta >> uint64(at.META_COUNT_SHIFT) & uint64(at.META_COUNT_MASK)
        if kind == uint64(_COND):  # without a branch that follows the guest's: the host could not predict it
            went = uint64(address != _at(words, before, at.END))
            if taken >= directions_from:
                missed = predict_direction(words, meta >> uint64(at.META_HASH_SHIFT), went)
            taken += went
            reached = (missed << uint64(_MISSED_SHIFT) | uint64(_COND << _KIND_SHIFT)) & (uint64(0) - went)
        elif kind == uint64(_NONE):
            reached = uint64(0)
            if meta & uint64(at.META_REP | at.META_UNDECODED) != uint64(0):
                if meta & uint64(at.META_UNDECODED) != uint64(0):
                    words[at.UNDECODED] = _at(words, before, at.LAST)
                elif address == _at(words, before, at.LAST):
                    count -= uint64(1)  # one more pass of the instruction: not retired yet
        else:
            reached = kind << uint64(_KIND_SHIFT)
            if kind != uint64(_OTHER):
                if taken >= learn_from:
                    place = meta >> uint64(at.META_HASH_SHIFT)
                    missed = predict_target(words, kind, place, address, _at(words, before, at.END))
                taken += uint64(1)
                reached |= missed << uint64(_MISSED_SHIFT)
        retired += count
        words[uint64(at.JOURNAL) + row] = entry | reached | count << uint64(_COUNT_SHIFT)
        before = entry
        row += uint64(1)
        if (taken >= next_taken and reached != uint64(0)) or retired >= next_retired:
            break
    words[at.RETIRED], words[at.TAKEN], words[at.CURRENT] = retired, taken, before
    return row


@native
def _record(words: Words, first: Word, last: Word, clock: Word) -> None:
    """Hand the branches that led to the rows first..last - 1 to the LBRs; `clock` is what RETIRED was before them."""
    gate = words[_GATE]
    row = first
    if gate & uint64(_POPS) == 0 and words[_FORMAT] == _ARCH:
        # Of more than DEPTH the LBRs keep the last; the one before them says when the oldest one's cycles began.
        wanted = words[_DEPTH] + uint64(1)
        row, clock_here = last, words[at.RETIRED]
        while row > first and wanted != 0:
            row -= uint64(1)
            reached = words[uint64(at.JOURNAL) + row]
            kind = reached >> uint64(_KIND_SHIFT) & uint64(_KIND_MASK)
            if kind != _NONE:
                wanted -= gate >> (kind + uint64(_USER_KINDS)) & uint64(1)
            clock_here -= reached >> uint64(_COUNT_SHIFT) & uint64(_COUNT_MASK)
        clock = clock_here
    while row < last:
        reached = words[uint64(at.JOURNAL) + row]
        clock += reached >> uint64(_COUNT_SHIFT) & uint64(_COUNT_MASK)
        kind = reached >> uint64(_KIND_SHIFT) & uint64(_KIND_MASK)
        if kind != _NONE and gate >> (kind + uint64(_USER_KINDS)) & uint64(_ENTERS_OR_POPS):
            before = words[uint64(at.JOURNAL) + row - uint64(1)] & uint64(_ENTRY_MASK)
            lbr.record(
                words[_LBR_AT:_LBR_END],
                words[before + at.LAST],
                words[(reached & uint64(_ENTRY_MASK)) + at.KEY],
                kind,
                uint64(_USER),
                uint64(_USER),
                clock,
                reached >> uint64(_MISSED_SHIFT),
            )
        row += uint64(1)


@native
def settle(words: Words) -> None:
    """Account for all rows of the journal; the last one's block is the one that runs now."""
    used = words[at.JOURNAL_USED]
    if used == 0:
        return
    words[at.JOURNAL_USED] = uint64(0)
    make_room(words, used)
    words[_BEFORE] = words[at.CURRENT]
    first = uint64(0)
    while first < used:
        clock = words[at.RETIRED]
        last = _scan(words, first, used)
        _record(words, first, last, clock)
        address = words[words[at.CURRENT] + at.KEY]
        if words[uint64(at.JOURNAL) + last - uint64(1)] >> uint64(_KIND_SHIFT) != 0:
            hooks.count_taken(words, address)
        hooks.count_retired(words, address)
        first = last


# One row, and the table may be older than the code.
@native
def _settle_with_care(words: Words) -> None:
    noted = words[at.JOURNAL]
    words[at.JOURNAL_USED] = uint64(0)
    if words[at.UNUSUAL] & uint64(at.UNUSUAL_REPEATED) != 0:  # accounted for before it stopped the engine
        words[at.UNUSUAL] &= ~uint64(at.UNUSUAL_REPEATED)
        return
    address = noted & uint64(_ADDRESS)
    kind = advance_with_care(words, address, noted >> uint64(_SIZE_SHIFT))
    if kind != _NONE:
        hooks.record_branch(words, address, kind)
        hooks.count_taken(words, address)
    hooks.count_retired(words, address)


# Called once the journal has LIMIT rows. LIMIT is written before the signal's flag is looked at, so that a handler that
# clears it in between is seen; the one that cannot be seen waits until the journal is full.
@native
def _look_around(words: Words, engine: Word) -> None:
    if words[at.UNUSUAL] == 0:
        settle(words)
    else:
        repeated = words[at.UNUSUAL] & uint64(at.UNUSUAL_REPEATED)
        _settle_with_care(words)
        if repeated != 0:
            return  # LIMIT stays 0: the next block looks
    words[at.LIMIT] = uint64(0) if words[at.UNUSUAL] != 0 else uint64(_ROWS)
    if words[_SAMPLES_USED] > _ENOUGH:
        hooks.stop(words, engine, uint64(at.REASON_FLUSH))
    elif words[at.SIGNALLED] != 0:
        hooks.stop(words, engine, uint64(at.REASON_SIGNAL))
    elif words[at.RETIRED] >= words[at.DEADLINE]:
        hooks.stop(words, engine, uint64(at.REASON_SLICE))


@callback(hooks.BLOCK_HOOK)
def sampling(engine: Word, address: Word, size: Word, pointer: Any) -> None:
    """Note that a block starts; settle the journal when it is full or somebody asks."""
    words = carray(pointer, (hooks.SAMPLING_WORDS,))
    used = words[at.JOURNAL_USED]
    words[uint64(at.JOURNAL) + used] = address | uint64(size) << uint64(_SIZE_SHIFT)
    words[at.JOURNAL_USED] = used + uint64(1)
    if used + uint64(1) >= words[at.LIMIT]:
        _look_around(words, engine)
