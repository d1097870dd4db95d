"""What of a stream no sample will show, passed over quickly: only counted, or only learnt from.

`machine.streaming` calls these between samples. TAKEN, RETIRED, CURRENT and the predictor become what `leave` makes
them for the same blocks; the LBRs are not written. Most of a stream are loops that go the same way again and again: a
stretch that equals the one before it counts what that counted, and the predictor has learnt all of it after three
passes, since a counter that sees the same of each pass goes one way and stops.
Design: docs/decisions/042.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from numba import uint64

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.cpu.predictor import TOP
from archlbr.cpu.qemu.stream import EVENTS
from archlbr.cpu.unicorn.blocks import leave
from archlbr.machine import hooks
from archlbr.native import native, native_inline

if TYPE_CHECKING:
    from archlbr.cpu.address import Word
    from archlbr.cpu.words import Words

TABLE: Final = max(hooks.TRACE_WORDS, hooks.SAMPLING_WORDS)  # of a stream's blocks, behind the hooks' own words

# A pass is no longer than this. How long it is is found as Brent finds the period of a sequence (BIT 20, 1980): the
# place to compare with stays for twice as many blocks each time.
LONGEST: Final = 1 << 12
# Passes after which a predictor that sees the same pass again stays as it is: a two-bit counter takes three.
SETTLED_AFTER: Final = 4

_COND = int(BranchKind.COND)
_REL_JMP, _RET = int(BranchKind.REL_JMP), int(BranchKind.RET)  # these two and those between are always taken
_TABLE, _EVENTS, _LONGEST, _SETTLED_AFTER = TABLE, EVENTS, LONGEST, SETTLED_AFTER
_ODD = at.META_REP | at.META_UNDECODED


@native_inline
def _alike(blocks: Any, position: Word, end: Word, lag: Word) -> Word:
    """Return how many words from a position on equal those `lag` words before, a multiple of eight."""
    here = position
    while here + uint64(8) <= end:
        other = uint64(0)
        for place in range(here, here + uint64(8)):
            other |= uint64(blocks[place]) ^ uint64(blocks[place - lag])
        if other != 0:
            break
        here += uint64(8)
    return here - position


@native_inline
def passes_alike(blocks: Any, position: Word, end: Word, lag: Word, most: Word) -> Word:
    """Return how many passes of `lag` words, at most so many, follow that equal the one before the position."""
    return min(most, _alike(blocks, position, min(end, position + (most + uint64(1)) * lag), lag) // lag)


@native
def count_only(words: Words, blocks: Any, position: Word, end: Word) -> Word:
    """Count the branches that no sample will show; return how far it came.

    Ends where the predictor is to learn, and at what is rare, which is left to `leave`: events, REP and what could not
    be decoded.
    """
    current, taken, retired = words[at.CURRENT], words[at.TAKEN], words[at.RETIRED]
    until = words[at.LEARN_FROM]
    after, meta = words[current + uint64(at.END)], words[current + uint64(at.META)]
    anchor, since, taken_there, retired_there, span = current, position, taken, retired, uint64(1)
    while position < end and taken < until:
        number = uint64(blocks[position])
        kind = meta & uint64(0xFF)
        if number - uint64(1) >= uint64(_EVENTS - 1) or meta & uint64(_ODD) != 0:
            break
        position += uint64(1)
        retired += meta >> uint64(at.META_COUNT_SHIFT) & uint64(at.META_COUNT_MASK)
        current = uint64(_TABLE) + number * uint64(at.ENTRY)
        conditional = uint64(kind == _COND) & uint64(words[current] != after)
        taken += conditional | uint64(kind - uint64(_REL_JMP) <= uint64(_RET - _REL_JMP))
        after, meta = words[current + uint64(at.END)], words[current + uint64(at.META)]
        lag = position - since
        if current == anchor or lag >= span:
            passes = uint64(0)
            gained = taken - taken_there
            if current == anchor and gained != 0:
                left = until - min(until, taken + uint64(1))  # the predictor sees what follows the last of them
                passes = passes_alike(blocks, position, end, lag, left // gained)
                position += passes * lag
                taken += passes * gained
                retired += passes * (retired - retired_there)
            if passes != 0 or lag >= span:
                span = uint64(1) if passes != 0 else min(span << uint64(1), uint64(_LONGEST))
                anchor, since, taken_there, retired_there = current, position, taken, retired
    words[at.CURRENT], words[at.TAKEN], words[at.RETIRED] = current, taken, retired
    return position


@native
def learn_only(words: Words, blocks: Any, position: Word, end: Word, until: Word) -> Word:
    """Let the predictor see the branches before TAKEN reaches `until`; return how far it came.

    A pass that leaves the return stack as high as it found it does the same to it each time. Ends at what is rare, as
    `count_only` does.
    """
    anchor, since, span = words[at.CURRENT], position, uint64(1)
    taken_there, retired_there, top_there = words[at.TAKEN], words[at.RETIRED], words[TOP]
    while position < end and words[at.TAKEN] < until:
        number = uint64(blocks[position])
        if number - uint64(1) >= uint64(_EVENTS - 1) or words[words[at.CURRENT] + uint64(at.META)] & uint64(_ODD) != 0:
            break
        position += uint64(1)
        current = uint64(_TABLE) + number * uint64(at.ENTRY)
        leave(words, words[current])
        words[at.CURRENT] = current
        lag = position - since
        if current == anchor or lag >= span:
            passes = uint64(0)
            taken = words[at.TAKEN]
            gained = taken - taken_there
            if current == anchor and gained != 0 and words[TOP] == top_there:
                passes = passes_alike(blocks, position, end, lag, (until - min(until, taken)) // gained)
                passes -= min(passes, uint64(_SETTLED_AFTER))
                position += passes * lag
                words[at.TAKEN] += passes * gained
                words[at.RETIRED] += passes * (words[at.RETIRED] - retired_there)
            if passes != 0 or lag >= span:
                span = uint64(1) if passes != 0 else min(span << uint64(1), uint64(_LONGEST))
                anchor, since = current, position
                taken_there, retired_there, top_there = words[at.TAKEN], words[at.RETIRED], words[TOP]
    return position
