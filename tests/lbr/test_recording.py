"""Section 3.1 to 3.5 of the reference: what enters the stack, in which order, and what INFO says."""

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
    LER_FROM,
    LER_INFO,
    LER_TO,
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


# INFO ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        pytest.param(COND, 0b0000, id="2.5 COND"),
        pytest.param(IND_JMP, 0b0001, id="2.5 NEAR_IND_JMP"),
        pytest.param(REL_JMP, 0b0010, id="2.5 NEAR_REL_JMP"),
        pytest.param(IND_CALL, 0b0011, id="2.5 NEAR_IND_CALL"),
        pytest.param(REL_CALL, 0b0100, id="2.5 NEAR_REL_CALL"),
        pytest.param(RET, 0b0101, id="2.5 NEAR_RET"),
        pytest.param(OTHER, 0b1000, id="2.5 OTHER_BRANCH (UNCONFIRMED)"),
    ],
)
def test_br_type(make, kind, code):
    for ecx, expected in ((7, code), (3, 0)):
        part = make((0x4000000B, 7, ecx))
        part.wr(CTL, ALL)
        part.branch(kind)
        assert part.rd(INFO) == expected << 56


@pytest.mark.parametrize(
    ("ecx", "tsx", "flags", "info"),
    [
        pytest.param(7, True, {"mispredicted": 1}, 1 << 63, id="2.5 MISPRED"),
        pytest.param(6, True, {"mispredicted": 1}, 0, id="2.5 MISPRED needs ECX[0]"),
        pytest.param(7, True, {"in_tx": 1}, 1 << 62, id="2.5 IN_TSX"),
        pytest.param(7, True, {"abort": 1}, 1 << 61, id="2.5 TSX_ABORT"),
        pytest.param(7, True, {"in_tx": 1, "abort": 1, "mispredicted": 1}, 7 << 61, id="3.5 all three"),
        pytest.param(7, False, {"in_tx": 1, "abort": 1}, 0, id="3.5 without TSX both are 0 (undefined)"),
    ],
)
def test_flags(make, ecx, tsx, flags, info):
    part = make((0x4000000B, 7, ecx), tsx=tsx)
    part.wr(CTL, ALL)
    part.branch(COND, **flags)
    assert part.rd(INFO) == info


@pytest.mark.parametrize(
    ("gap", "count"),
    [
        pytest.param(0, 0, id="3.4 no time at all"),
        pytest.param(1, 1, id="3.4 one cycle"),
        pytest.param(0xFFFE, 0xFFFE, id="3.4 below saturation"),
        pytest.param(0xFFFF, 0xFFFF, id="3.4 at saturation"),
        pytest.param(0x10000, 0xFFFF, id="3.4 saturates"),
        pytest.param(1 << 40, 0xFFFF, id="3.4 saturates far out"),
    ],
)
def test_cycles_since_the_previous_entry(part, gap, count):
    part.wr(CTL, ALL)
    part.branch(COND, clock=1000)
    # The first entry after recording starts has no count.
    assert part.rd(INFO) == 0
    part.branch(COND, clock=1000 + gap)
    assert part.rd(INFO) == 1 << 60 | count


def test_3_4_a_branch_that_is_filtered_out_does_not_restart_the_count(part):
    part.wr(CTL, 0x010007)
    part.branch(COND, clock=10)
    part.branch(RET, clock=25)
    part.branch(COND, clock=40)
    assert part.rd(INFO) == 1 << 60 | 30


def test_3_4_the_count_needs_cpuid(make):
    part = make((0x4000000B, 7, 5))
    part.wr(CTL, ALL)
    part.branch(COND, clock=10)
    part.branch(COND, clock=20)
    assert part.rd(INFO) == 0


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(lambda part: (part.wr(CTL, 0), part.wr(CTL, ALL)), id="3.4 disable, enable"),
        pytest.param(lambda part: part.wr(DEPTH, 32), id="3.4 DEPTH written"),
        pytest.param(
            lambda part: (part.wr(0x1D9, 0x800), part.event("Pmi"), part.event("Thaw")), id="3.4 freeze, thaw"
        ),
        pytest.param(lambda part: (part.event("Smi"), part.event("Rsm")), id="3.4 SMI, RSM"),
        pytest.param(lambda part: part.event("DeepCState"), id="3.4 deep C-state"),
    ],
)
def test_the_count_is_invalid_after_a_pause(part, stop):
    part.wr(CTL, ALL)
    part.branch(COND, clock=10)
    part.branch(COND, clock=20)
    assert part.rd(INFO) == 1 << 60 | 10
    stop(part)
    part.branch(COND, 0x99, clock=30)
    assert (part.rd(FROM), part.rd(INFO)) == (0x99, 0)
    part.branch(COND, clock=34)
    assert part.rd(INFO) == 1 << 60 | 4


def test_3_4_a_write_that_keeps_recording_keeps_the_count(part):
    part.wr(CTL, ALL)
    part.branch(COND, clock=10)
    part.wr(CTL, 0x010007)
    part.branch(COND, clock=13)
    assert part.rd(INFO) == 1 << 60 | 3


# Event logging ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ecx", "counts", "field"),
    [
        pytest.param(0x000F0007, [0b01_11_00_10], 0b01_11_00_10, id="6.5 two bits a counter"),
        pytest.param(0x000F0007, [0b01, 0b01], 0b10, id="6.5 counts add up to the next entry"),
        pytest.param(0x000F0007, [0b11, 0b01], 0b11, id="6.5 saturate at 3"),
        pytest.param(0x000F0007, [0b10_00, 0b10_01], 0b11_01, id="6.5 a counter each"),
        pytest.param(0x00050007, [0xFF], 0b00_11_00_11, id="6.5 only the counters CPUID names"),
        pytest.param(0x00000007, [0xFF], 0, id="6.5 no event logging"),
        pytest.param(0x000F0007, [0xFF00], 0, id="6.5 only counters 0 to 3"),
    ],
)
def test_event_counts(make, ecx, counts, field):
    part = make((0x4000000B, 7, ecx))
    part.wr(CTL, 0x010007)
    for number in counts[:-1]:
        part.branch(RET, counts=number)  # filtered out: the events still count
    part.branch(COND, counts=counts[-1])
    assert part.rd(INFO) == field << 32
    part.branch(COND)
    assert part.rd(INFO) & 0xFFFF << 32 == 0


def test_6_5_events_while_not_recording_do_not_count(part):
    part.branch(COND, counts=3)
    part.wr(CTL, ALL)
    part.branch(COND)
    assert part.rd(INFO) == 0


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


# LER ----------------------------------------------------------------------------------------------------------------


def ler(part):
    return part.rd(LER_FROM), part.rd(LER_TO), part.rd(LER_INFO)


def test_4_3_ler_takes_the_branch_before_the_event(part):
    part.wr(CTL, ALL)
    part.branch(REL_CALL, 0xA, 0xB, mispredicted=1, in_tx=1, clock=5)
    assert ler(part) == (0, 0, 0)
    part.branch(OTHER, 0xC, 0xD, USER, KERNEL, event=1)
    assert ler(part) == (0xA, 0xB, 0xC400_0000_0000_0000)
    assert part.froms() == [0xC, 0xA]
    part.branch(OTHER, 0xE, 0xF, KERNEL, KERNEL, event=1)
    assert ler(part) == (0xC, 0xD, 0x0800_0000_0000_0000)


def test_4_3_ler_info_has_no_counts(part):
    part.wr(CTL, ALL)
    part.branch(COND, clock=5)
    part.branch(COND, 0xA, 0xB, clock=9, counts=0xFF, abort=1)
    assert part.rd(INFO) == 1 << 61 | 1 << 60 | 0xFF << 32 | 4
    part.branch(OTHER, event=1)
    assert ler(part) == (0xA, 0xB, 1 << 61)


def test_4_3_system_calls_are_no_events(part):
    part.wr(CTL, ALL)
    part.branch(COND)
    part.branch(OTHER, 0xC, 0xD, USER, KERNEL)
    assert ler(part) == (0, 0, 0)


def test_4_3_an_event_that_is_filtered_out_updates_ler(part):
    """UNCONFIRMED: the filters choose which branches LER can see, not which events update it."""
    part.wr(CTL, 0x010005)
    part.branch(COND, 0xA, 0xB)
    part.branch(OTHER, 0xC, 0xD, USER, KERNEL, event=1)
    assert ler(part) == (0xA, 0xB, 0)
    assert part.froms() == [0xA]


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(lambda part: part.wr(CTL, 0x7F0006), id="4.3 LBREn = 0"),
        pytest.param(lambda part: (part.wr(0x1D9, 0x800), part.event("Pmi")), id="4.3 LBR_FRZ"),
    ],
)
def test_ler_stands_still_while_nothing_is_recorded(part, stop):
    part.wr(CTL, ALL)
    part.branch(COND, 0xA, 0xB)
    stop(part)
    part.branch(OTHER, 0xC, 0xD, event=1)
    assert ler(part) == (0, 0, 0)
