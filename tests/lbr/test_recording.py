"""Sections 2.4 and 3.1 to 3.3 of the reference: what enters the stack, in which order, and what leaves it."""

from __future__ import annotations

import pytest

from tests.lbr.parts import (
    ALL,
    COND,
    CTL,
    DEPTH,
    FROM,
    IND_CALL,
    IND_JMP,
    INFO,
    KERNEL,
    ONES,
    OTHER,
    REL_CALL,
    REL_JMP,
    RET,
    TO,
    USER,
)

KINDS = {"COND": COND, "REL_JMP": REL_JMP, "IND_JMP": IND_JMP, "REL_CALL": REL_CALL, "IND_CALL": IND_CALL, "RET": RET,
         "OTHER": OTHER}  # fmt: skip
CALL_STACK = 0x38000F  # the filter Linux programs: calls, returns, both rings, CALL_STACK, LBREn


# Order --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [8, 16, 32])
def test_2_4_entry_0_is_the_newest_and_the_oldest_is_lost(part, depth):
    part.wr(DEPTH, depth)
    part.wr(CTL, ALL)
    for n in range(depth + 3):
        part.branch(COND, 0x100 + n, 0x200 + n)
        assert part.rd(FROM) == 0x100 + n
    assert [part.rd(FROM + x) for x in range(depth)] == [0x100 + depth + 2 - x for x in range(depth)]
    assert [part.rd(TO + x) for x in range(depth)] == [0x200 + depth + 2 - x for x in range(depth)]


def test_2_4_a_stack_that_is_not_full_ends_at_from_0(part):
    part.wr(CTL, ALL)
    part.branch(COND, 0x100, 0x200)
    part.branch(COND, 0x101, 0x201)
    assert [part.rd(FROM + x) for x in range(4)] == [0x101, 0x100, 0, 0]
    assert part.froms() == [0x101, 0x100]


# Filters by kind ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "bit"),
    [
        pytest.param("COND", 16, id="2.2 JCC"),
        pytest.param("REL_JMP", 17, id="2.2 NEAR_REL_JMP"),
        pytest.param("IND_JMP", 18, id="2.2 NEAR_IND_JMP"),
        pytest.param("REL_CALL", 19, id="2.2 NEAR_REL_CALL"),
        pytest.param("IND_CALL", 20, id="2.2 NEAR_IND_CALL"),
        pytest.param("RET", 21, id="2.2 NEAR_RET"),
        pytest.param("OTHER", 22, id="2.2 OTHER_BRANCH"),
    ],
)
def test_a_bit_includes_its_kind_and_no_other(part, kind, bit):
    part.wr(CTL, 1 << bit | 7)
    for number in KINDS.values():
        part.branch(number, 0x1000 + number)
    assert part.froms() == [0x1000 + KINDS[kind]]
    # All others: everything but this kind.
    part.wr(DEPTH, 32)
    part.wr(CTL, ALL & ~(1 << bit))
    for number in KINDS.values():
        part.branch(number, 0x1000 + number)
    assert part.froms() == [0x1000 + number for number in reversed(KINDS.values()) if number != KINDS[kind]]


@pytest.mark.parametrize(
    ("ctl", "recorded"),
    [
        pytest.param(0x000007, [], id="2.2 an all-zero kind filter records nothing"),
        pytest.param(0x7F0001, [], id="2.2 OS = USR = 0 records nothing (UNCONFIRMED)"),
        pytest.param(0x7F0006, [], id="2.2 LBREn = 0"),
        pytest.param(0x7F0007, [1, 2, 3, 4, 5, 6, 7], id="2.2 everything"),
        pytest.param(0x110007, [1, 5], id="2.2 two kinds"),
    ],
)
def test_inclusion_filters(part, ctl, recorded):
    part.wr(CTL, ctl)
    for number in KINDS.values():
        part.branch(number, number)
    assert part.froms() == recorded[::-1]


@pytest.mark.parametrize(
    ("ebx", "ctl", "recorded"),
    [
        pytest.param(6, 0x7F0001, ["kk", "ku", "uk", "uu"], id="2.2 EBX[0] = 0: every ring (UNCONFIRMED)"),
        pytest.param(5, 0x000005, ["ku", "uu"], id="2.2 EBX[1] = 0: every kind, rings filtered"),
        pytest.param(0, 0x000001, ["kk", "ku", "uk", "uu"], id="2.2 no filter: everything"),
    ],
)
def test_a_filter_cpuid_does_not_offer_admits_everything(make, ebx, ctl, recorded):
    part = make((0x4000000B, ebx, 7))
    part.wr(CTL, ctl)
    crossings = {"kk": (0, 0), "ku": (0, 3), "uk": (3, 0), "uu": (3, 3)}
    for number, (cpl_from, cpl_to) in enumerate(crossings.values(), 1):
        part.branch(COND + number, 0x10, number, cpl_from, cpl_to)
    rows = part.stack()
    assert [list(crossings)[row[1] - 1] for row in reversed(rows)] == recorded


def test_3_1_no_branch_leaves_no_record(part):
    part.wr(CTL, ALL)
    part.branch(0)
    assert part.stack() == []


# Rings --------------------------------------------------------------------------------------------------------------

OS, USR, BOTH = 0x7F0003, 0x7F0005, 0x7F0007
RINGS = [
    pytest.param(USR, 3, 3, 0x10, id="3.2 USR: user to user"),
    pytest.param(USR, 3, 0, None, id="3.2 USR: user to kernel is not recorded"),
    pytest.param(USR, 0, 3, ONES, id="3.2 USR: kernel to user is, with FROM masked"),
    pytest.param(USR, 0, 0, None, id="3.2 USR: kernel to kernel is not"),
    pytest.param(OS, 0, 0, 0x10, id="3.2 OS: kernel to kernel"),
    pytest.param(OS, 3, 0, ONES, id="3.2 OS: user to kernel is, with FROM masked"),
    pytest.param(OS, 0, 3, None, id="3.2 OS: kernel to user is not"),
    pytest.param(OS, 3, 3, None, id="3.2 OS: user to user is not"),
    pytest.param(BOTH, 3, 0, 0x10, id="3.2 both: user to kernel, nothing masked"),
    pytest.param(BOTH, 0, 3, 0x10, id="3.2 both: kernel to user, nothing masked"),
    pytest.param(USR, 1, 2, 0x10, id="2.2 USR is CPL > 0: rings 1 and 2"),
    pytest.param(USR, 0, 1, ONES, id="2.2 USR is CPL > 0: ring 0 to 1"),
    pytest.param(OS, 2, 0, ONES, id="2.2 OS is CPL = 0: ring 2 to 0"),
    pytest.param(OS, 2, 1, None, id="2.2 OS is CPL = 0: ring 2 to 1"),
]


@pytest.mark.parametrize(("ctl", "cpl_from", "cpl_to", "source"), RINGS)
def test_the_destination_s_ring_decides(part, ctl, cpl_from, cpl_to, source):
    part.wr(CTL, ctl)
    part.branch(OTHER, 0x10, 0x20, cpl_from, cpl_to)
    # TO is never masked.
    assert [row[:2] for row in part.stack()] == ([] if source is None else [(source, 0x20)])


def test_3_2_a_masked_from_does_not_end_the_stack(part):
    part.wr(CTL, USR)
    part.branch(COND, 0x1, 0x2)
    part.branch(OTHER, 0xFFFF_8000_0000_0001, 0x3, KERNEL, USER)
    part.branch(COND, 0x4, 0x5)
    assert part.froms() == [0x4, ONES, 0x1]


# Call-stack mode ----------------------------------------------------------------------------------------------------


def test_3_3_calls_push_and_returns_pop(part):
    part.wr(CTL, CALL_STACK)
    part.branch(REL_CALL, 0xA, 0xB)
    part.branch(IND_CALL, 0xC, 0xD)
    part.branch(REL_CALL, 0xE, 0xF)
    assert [row[:2] for row in part.stack()] == [(0xE, 0xF), (0xC, 0xD), (0xA, 0xB)]
    part.branch(RET, 0xF1, 0xE1)
    assert [row[:2] for row in part.stack()] == [(0xC, 0xD), (0xA, 0xB)]
    part.branch(REL_CALL, 0x1, 0x2)
    assert [row[:2] for row in part.stack()] == [(0x1, 0x2), (0xC, 0xD), (0xA, 0xB)]


def test_3_3_a_pop_shifts_toward_0_and_clears_the_oldest(part):
    part.wr(DEPTH, 8)
    part.wr(CTL, CALL_STACK)
    for n in range(9):
        part.branch(REL_CALL, 0x100 + n, 0x200 + n)
    part.branch(RET)
    assert [part.rd(FROM + x) for x in range(8)] == [0x107, 0x106, 0x105, 0x104, 0x103, 0x102, 0x101, 0]
    assert (part.rd(TO + 7), part.rd(INFO + 7)) == (0, 0)


def test_3_3_overflow_loses_the_oldest_and_returns_run_out(part):
    part.wr(DEPTH, 8)
    part.wr(CTL, CALL_STACK)
    for n in range(10):
        part.branch(REL_CALL, 0x100 + n)
    for n in range(10):
        assert part.froms() == [0x100 + m for m in range(9 - n, 1, -1)]
        part.branch(RET)
    assert part.stack() == []


def test_3_3_popping_an_empty_stack_leaves_it_empty(part):
    part.wr(CTL, CALL_STACK)
    part.branch(RET)
    assert part.stack() == []
    part.branch(REL_CALL, 0xA)
    assert part.froms() == [0xA]


@pytest.mark.parametrize("kind", [COND, REL_JMP, IND_JMP, OTHER])
def test_3_3_with_other_kinds_enabled_nothing_else_enters(part, kind):
    part.wr(CTL, 0x7F000F)
    part.branch(REL_CALL, 0xA)
    part.branch(kind, 0xB)
    assert part.froms() == [0xA]


def test_3_3_a_return_that_is_filtered_out_does_not_pop(part):
    part.wr(CTL, 0x18000F)
    part.branch(REL_CALL, 0xA)
    part.branch(RET)
    assert part.froms() == [0xA]


def test_3_3_user_only_call_stack(part):
    part.wr(CTL, 0x38000D)
    part.branch(REL_CALL, 0xA)
    part.branch(REL_CALL, 0xB, cpl_from=KERNEL, cpl_to=KERNEL)
    part.branch(RET, cpl_from=KERNEL, cpl_to=KERNEL)
    assert part.froms() == [0xA]
