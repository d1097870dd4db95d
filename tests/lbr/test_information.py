"""Sections 2.5, 3.4, 3.5, 4.3 and 6.5 of the reference: what INFO says of an entry, and what LER keeps."""

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
    OTHER,
    REL_CALL,
    REL_JMP,
    RET,
    USER,
)

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
