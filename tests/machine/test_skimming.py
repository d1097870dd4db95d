"""What is passed over of a stream against the pure predictor and a plain count, on streams made of repeated passes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from archlbr.arch.branches import BranchKind as Kind
from archlbr.cpu import words as at
from archlbr.cpu.predictor import Predictor, spread, state_of, step
from archlbr.cpu.qemu.stream import SYSCALL
from archlbr.machine.skimming import SETTLED_AFTER, TABLE, count_only, learn_only, passes_alike


class Block(NamedTuple):
    """A block: where it begins and ends, where its last instruction is, how many it has, its kind."""

    start: int
    end: int
    last: int
    count: int
    kind: Kind


BLOCKS = [
    Block(0x1000, 0x1010, 0x100E, 5, Kind.COND),
    Block(0x1010, 0x1020, 0x101E, 3, Kind.COND),
    Block(0x1020, 0x1030, 0x102B, 2, Kind.REL_CALL),
    Block(0x1040, 0x1050, 0x104F, 7, Kind.RET),
    Block(0x1030, 0x1040, 0x103E, 1, Kind.IND_JMP),
    Block(0x1050, 0x1060, 0x105F, 4, Kind.NONE),
    # Its last instruction is given the first block's address: both have one counter.
    Block(0x1060, 0x1070, 0x100E, 6, Kind.COND),
]
SPREAD = njit(error_model="numpy")(lambda address: spread(address))
PASS = st.tuples(st.lists(st.integers(1, len(BLOCKS)), min_size=1, max_size=9), st.integers(1, 40))


def fresh() -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    words = np.zeros(TABLE + at.ENTRY * (len(BLOCKS) + 1), np.uint64)
    for number, block in enumerate(BLOCKS, 1):
        meta = block.kind | block.count << at.META_COUNT_SHIFT | SPREAD(np.uint64(block.last)) << at.META_HASH_SHIFT
        entry = TABLE + at.ENTRY * number
        for part, value in ((at.KEY, block.start), (at.END, block.end), (at.LAST, block.last), (at.META, meta)):
            words[entry + part] = value
    return words


class Count(NamedTuple):
    """How far a stream was followed, and what that came to."""

    position: int = 0
    taken: int = 0
    retired: int = 0
    predictor: Predictor = Predictor()


def plainly(numbers: list[int], count: Count, until: int, end: int, learns_from: int) -> Count:
    """Follow a stream block by block."""
    position, taken, retired, core = count
    while position < end and taken < until:
        before, now = BLOCKS[numbers[position] - 1], BLOCKS[numbers[position + 1] - 1]
        jumped = before.kind != Kind.NONE and (before.kind != Kind.COND or now.start != before.end)
        if before.kind != Kind.NONE and taken >= learns_from:
            core, _ = step(core, before.kind, before.last, now.start, before.end, int(jumped))
        position, taken, retired = position + 1, taken + jumped, retired + before.count
    return Count(position, taken, retired, core)


@settings(max_examples=150, deadline=None)
@given(st.lists(PASS, min_size=1, max_size=6), st.integers(0, 300), st.integers(0, 300))
def test_it_comes_to_what_each_block_by_itself_does(
    passes: list[tuple[list[int], int]], only: int, learnt: int
) -> None:
    numbers = [number for blocks, times in passes for _ in range(times) for number in blocks]
    words, stream = fresh(), np.array(numbers[1:], np.uint32)
    words[at.CURRENT] = TABLE + at.ENTRY * numbers[0]
    words[at.LEARN_FROM] = only
    place = np.uint64(count_only(words, stream, np.uint64(0), np.uint64(len(stream))))
    expected = plainly(numbers, Count(), only, len(stream), only)
    assert (place, int(words[at.TAKEN]), int(words[at.RETIRED])) == expected[:3]
    assert state_of(words) == Predictor()
    place = np.uint64(learn_only(words, stream, place, np.uint64(len(stream)), np.uint64(only + learnt)))
    expected = plainly(numbers, expected, only + learnt, len(stream), only)
    if place != expected.position:  # it may go on to the next taken branch, never past it
        assert int(words[at.TAKEN]) == expected.taken
    expected = plainly(numbers, expected, 1 << 62, int(place), only)
    assert (place, int(words[at.TAKEN]), int(words[at.RETIRED]), state_of(words)) == expected
    assert words[at.CURRENT] == TABLE + at.ENTRY * numbers[int(place)]


@njit(error_model="numpy")
def _alike(stream, position, end, lag, most):
    return passes_alike(stream, position, end, lag, most)


def alike(stream: list[int], position: int, lag: int, most: int) -> int:
    words = np.array(stream, np.uint32)
    return int(_alike(words, *(np.uint64(number) for number in (position, len(stream), lag, most))))


def test_passes_are_counted_to_the_first_that_differs() -> None:
    assert alike([1, 2, 3] * 40, 3, 3, 99) == 37  # 112 of the 117 words: eight at a time
    assert alike([1, 2, 3] * 40, 3, 3, 7) == 7
    assert alike([1, 2, 3] * 40 + [1, 2, 4] + [1, 2, 3] * 40, 3, 3, 99) == 37
    assert alike([5] * 100, 1, 1, 99) == 96
    assert alike([1, 2] * 40, 3, 3, 99) == 0
    assert alike([1, 2, 3], 3, 3, 99) == 0


def test_it_ends_before_an_event() -> None:
    for follow in (count_only, learn_only):
        words, stream = fresh(), np.array([1] * 50 + [SYSCALL, 1, 1], np.uint32)
        words[at.CURRENT] = TABLE + at.ENTRY
        words[at.LEARN_FROM] = 1 << 40 if follow is count_only else 0
        more = () if follow is count_only else (np.uint64(1 << 40),)
        assert follow(words, stream, np.uint64(0), np.uint64(len(stream)), *more) == 50
        assert (words[at.TAKEN], words[at.RETIRED]) == (50, 250)


def test_a_counter_has_learnt_a_pass_before_passes_are_left_out() -> None:
    # Whatever a pass does to a two-bit counter, done once more than three times changes nothing: each of its branches
    # moves the counter up or down, so that a pass keeps their order, and such a map of four values comes to rest.
    moves = (lambda count: min(3, count + 1), lambda count: max(0, count - 1))
    for sequence in range(2, 1 << 9):  # a leading one, then the branches of a pass
        for count in range(4):
            at_rest = count
            for _ in range(SETTLED_AFTER - 1):
                for place in range(sequence.bit_length() - 1):
                    at_rest = moves[sequence >> place & 1](at_rest)
            again = at_rest
            for place in range(sequence.bit_length() - 1):
                again = moves[sequence >> place & 1](again)
            assert again == at_rest
