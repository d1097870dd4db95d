"""Which branch was taken, on synthetic sequences of blocks: records and counts that follow from the instructions."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from archlbr.arch.branches import BranchKind as Kind
from archlbr.cpu import words as at
from archlbr.cpu.predictor import Predictor, step
from archlbr.cpu.unicorn.blocks import advance_with_care, find_block, leave, retire_current
from tests.cpu.driver import Code, U, enter


@njit(error_model="numpy")
def _find(words, address, size):
    return find_block(words, address, size)


@njit(error_model="numpy")
def _leave(words, address):
    return leave(words, address)


@njit(error_model="numpy")
def _enter_each_byte(words, address, count):
    for offset in range(count):
        enter(words, address + U(offset), U(1))


class Block(NamedTuple):
    """A block of the program below: bytes, instructions, the last one's offset in it, its kind."""

    raw: str
    count: int
    last: int
    kind: Kind


BLOCKS = [
    Block("31c0 7510", 2, 2, Kind.COND),
    Block("90 e2f0", 2, 1, Kind.COND),
    Block("eb10", 1, 0, Kind.REL_JMP),
    Block("90 90 ffe0", 3, 2, Kind.IND_JMP),
    Block("e810000000", 1, 0, Kind.REL_CALL),
    Block("90 ffd0", 2, 1, Kind.IND_CALL),
    Block("c9 c3", 2, 1, Kind.RET),
    Block("0f05", 1, 0, Kind.OTHER),
    Block("e800000000", 1, 0, Kind.NONE),
    Block("90 90 90 90", 4, 3, Kind.NONE),
]
SIZES = [len(bytes.fromhex(block.raw)) for block in BLOCKS]
OFFSETS = [sum(SIZES[:index]) for index in range(len(BLOCKS))]
PROGRAM = Code(b"".join(bytes.fromhex(block.raw) for block in BLOCKS))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, len(BLOCKS) - 1), max_size=60))
def test_a_walk_from_block_to_block(walk: list[int]) -> None:
    PROGRAM.words[8:] = 0
    retired = taken = 0
    core = Predictor()
    before = None
    for now in walk:
        kind = PROGRAM.advance(OFFSETS[now], SIZES[now])
        if before is None:
            assert kind == Kind.NONE
        else:
            block = BLOCKS[before]
            retired += block.count
            source = PROGRAM.address + OFFSETS[before] + block.last
            end = PROGRAM.address + OFFSETS[before] + SIZES[before]
            target = PROGRAM.address + OFFSETS[now]
            jumped = block.kind != Kind.COND or target != end
            core, missed = step(core, block.kind, source, target, end, int(jumped))
            assert kind == (block.kind if jumped else Kind.NONE)
            taken += kind not in (Kind.NONE, Kind.OTHER)
            if kind != Kind.NONE:
                assert (PROGRAM[at.FROM], PROGRAM[at.MISPREDICTED]) == (source, missed)
        before = now
        assert (PROGRAM[at.RETIRED], PROGRAM[at.TAKEN]) == (retired, taken)
        assert PROGRAM.entry(PROGRAM[at.CURRENT])[:2] == (OFFSETS[now], OFFSETS[now] + SIZES[now])
    assert PROGRAM[at.MISSES] == PROGRAM[at.TABLE_USED] == len(set(walk))


def test_leaving_for_where_no_block_starts() -> None:
    code = Code(bytes.fromhex("90 ffe0"))
    code.advance(0, 3)
    assert int(_leave(code.words, U(0))) == Kind.IND_JMP
    assert (code[at.FROM], code[at.RETIRED], code[at.TAKEN]) == (code.address + 1, 2, 1)


# The engine runs one pass of a REP instruction a block: the block that ends in it, then blocks of it alone.
@pytest.mark.parametrize("passes", [1, 2, 3, 100])
def test_a_repeated_instruction_retires_once(passes: int) -> None:
    code = Code(bytes.fromhex("90 90 f3a4 c3"))
    kinds = [code.advance(0, 4)]
    for _ in range(passes - 1):
        kinds.append(code.advance(2, 2))
    kinds.append(code.advance(4, 1))
    assert kinds == [Kind.NONE] * (passes + 1)
    assert (code[at.RETIRED], code[at.TAKEN]) == (3, 0)


def test_a_block_that_the_engine_cuts_elsewhere_has_an_entry_for_each() -> None:
    code = Code(bytes.fromhex("90 90 90 eb10"))
    code.advance(0, 5)
    assert (code[at.MISSES], code.entry(code[at.CURRENT])[:3]) == (1, (0, 5, 3))
    code.advance(0, 2)  # left by its JMP; this time it is two NOPs long
    assert (code[at.MISSES], code[at.TABLE_USED]) == (2, 2)
    assert code.entry(code[at.CURRENT])[:3] == (0, 2, 1)
    assert (code[at.RETIRED], code[at.TAKEN]) == (4, 1)
    assert code.advance(2, 3) == Kind.NONE
    assert code[at.RETIRED] == 6
    code.advance(0, 5)
    assert (code[at.MISSES], code[at.TABLE_USED], code[at.TAKEN]) == (3, 3, 2)


def test_blocks_at_one_place_in_the_table_are_told_apart() -> None:
    code = Code(b"\x90" * 4000)
    slots = [int(_find(code.words, U(code.address + offset), U(1))) for offset in range(4000)]
    assert len(set(slots)) == 4000
    assert [int(_find(code.words, U(code.address + offset), U(1))) for offset in range(4000)] == slots
    assert code[at.MISSES] == code[at.TABLE_USED] == 4000


def test_a_table_half_full_is_emptied_and_goes_on() -> None:
    half = at.SLOTS // 2
    code = Code(b"\x90" * (half + 10))
    _enter_each_byte(code.words, U(code.address), half + 1)
    assert code[at.TABLE_USED] == code[at.MISSES] == half + 1
    assert code.advance(0, 1) == Kind.NONE  # known: nothing is forgotten
    assert code[at.TABLE_USED] == half + 1
    code.advance(half + 1, 1)
    assert (code[at.TABLE_USED], code[at.MISSES]) == (1, half + 2)
    assert code.entry(code[at.CURRENT])[:3] == (half + 1, half + 2, half + 1)
    code.advance(0, 1)
    assert (code[at.TABLE_USED], code[at.MISSES], code[at.RETIRED]) == (2, half + 3, half + 3)
    filled = [slot for slot in range(at.TABLE, at.WORDS, at.ENTRY) if code.words[slot]]
    assert len(filled) == 2


CARE = bytes.fromhex("90 90 c60001 90 90 7510")  # nop nop; mov byte [rax], 1; nop nop; jne


def test_a_block_that_stored_into_itself_ends_at_the_store() -> None:
    code = Code(CARE)
    code.advance(0, 9)
    code.poke(5, bytes.fromhex("6690"))
    code.words[at.UNUSUAL] |= U(at.UNUSUAL_STORED)
    kind = advance_with_care(code.words, U(code.address + 5), U(4))
    assert kind == Kind.NONE
    assert (code[at.RETIRED], code[at.TAKEN]) == (3, 0)
    assert code[at.UNUSUAL] & at.UNUSUAL_STORED == 0
    code.advance(0, 9)
    assert (code[at.RETIRED], code[at.TAKEN]) == (5, 1)  # 66 90 is one instruction, and the JNE


def test_a_store_that_the_hook_did_not_see_is_told_by_where_the_block_goes() -> None:
    code = Code(CARE)
    code.advance(0, 9)
    # The JNE leads to 9 + 16; nothing in the block leads to 5 but a cut.
    assert advance_with_care(code.words, U(code.address + 5), U(4)) == Kind.NONE
    assert (code[at.RETIRED], code[at.TAKEN]) == (3, 0)


def test_a_branch_into_its_own_block_is_a_branch() -> None:
    code = Code(bytes.fromhex("90 90 90 75fc"))  # jne to 1
    code.advance(0, 5)
    assert advance_with_care(code.words, U(code.address + 1), U(4)) == Kind.COND
    assert (code[at.RETIRED], code[at.TAKEN], code[at.FROM]) == (4, 1, code.address + 3)


@pytest.mark.parametrize("volatile", [False, True])
def test_only_writable_code_is_decoded_each_time(volatile: bool) -> None:
    code = Code(bytes.fromhex("90 90 75fc"))
    if volatile:
        code.words[at.VOLATILE] = code.address
        code.words[at.VOLATILE + 1] = code.address + 4
        code.words[at.VOLATILE_COUNT] = 1
    advance_with_care(code.words, U(code.address), U(4))
    code.poke(0, bytes.fromhex("6690 c2"))  # the same length: one NOP, and RET 0FCH
    code.words[at.CURRENT] = 0
    advance_with_care(code.words, U(code.address), U(4))
    meta = code.entry(code[at.CURRENT])[3]
    assert meta & 0xFF == (Kind.NONE if volatile else Kind.COND)
    # 66 90 and the first two bytes of a RET imm16: one instruction, and a cut one.
    assert meta >> at.META_COUNT_SHIFT & at.META_COUNT_MASK == (1 if volatile else 3)
    assert bool(meta & at.META_UNDECODED) == volatile


@pytest.mark.parametrize(("end", "retired"), [(0, 0), (1, 1), (2, 2), (5, 3), (6, 4), (7, 5), (9, 6)])
def test_a_stop_inside_a_block_counts_what_ran(end: int, retired: int) -> None:
    code = Code(CARE)
    code.advance(0, 9)
    retire_current(code.words, U(code.address + end))
    assert (code[at.RETIRED], code[at.CURRENT], code[at.TAKEN]) == (retired, 0, 0)
    assert code.advance(2, 7) == Kind.NONE
    assert code[at.RETIRED] == retired


def test_a_stop_before_a_block_counts_nothing_of_it() -> None:
    code = Code(CARE)
    code.advance(0, 9)
    code.words[at.UNUSUAL] = at.UNUSUAL_REPEATED | at.UNUSUAL_STORED | at.UNUSUAL_VOLATILE
    retire_current(code.words, U(code.address))
    assert (code[at.RETIRED], code[at.CURRENT], code[at.UNUSUAL]) == (0, 0, at.UNUSUAL_VOLATILE)


def test_a_block_the_decoder_refuses_is_named() -> None:
    code = Code(bytes.fromhex("90 06 90"))
    code.advance(0, 2)
    assert code.advance(2, 1) == Kind.NONE
    assert (code[at.UNDECODED], code[at.RETIRED]) == (code.address, 1)
