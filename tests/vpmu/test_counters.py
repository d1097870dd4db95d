"""Counters that count: who counts what in which ring, what overflows, and which overflow asks for a PMI."""

from __future__ import annotations

import pytest

from archlbr.arch.cpuid import Leaf0A
from archlbr.vpmu.actions import Count, Rdpmc
from archlbr.vpmu.counters import fixed_ctrl_legal, global_legal, left, running, status_legal
from archlbr.vpmu.designs import ARCHLBR, SERIES_V2
from tests.vpmu.parts import (
    DEBUGCTL,
    EVTSEL,
    FIXED,
    FIXED_CTRL,
    GLOBAL_CTRL,
    PERF_CAPABILITIES,
    PMC,
    STATUS,
    Vcpu,
    leaves,
    pmu,
)

USR, OS, INT, EN = 1 << 16, 1 << 17, 1 << 20, 1 << 22
INSTRUCTIONS, BRANCHES, TAKEN, MISPREDICTED, CYCLES = 0xC0, 0xC4, 0x20C4, 0xC5, 0x3C
TOP = (1 << 48) - 1
ALL_ON = 0xF | 7 << 32
A_COUNT = Count(instructions=100, branches=20, cycles=300, taken=7, mispredicted=3, cpl=3)


def counting(version: int = 5, on: int = ALL_ON, **host: int) -> Vcpu:
    v = Vcpu(ARCHLBR, host, leaves(leaf0a=pmu(version)))
    if version >= 2:
        v.wr(GLOBAL_CTRL, on)
    return v


def near_the_top(v: Vcpu, msr: int, short_of: int = 1) -> None:
    """Let a counter overflow `short_of` events from now; the guest's own write would extend the sign of bit 31."""
    v.hi(msr, TOP + 1 - short_of)


@pytest.mark.parametrize(
    ("event", "counted"),
    [(INSTRUCTIONS, 100), (0x1C0, 100), (BRANCHES, 20), (TAKEN, 7), (MISPREDICTED, 3), (CYCLES, 300), (0x13C, 300),
     (0x12C4, 0)],
)  # fmt: skip
def test_an_event_counts_its_own(event: int, counted: int) -> None:
    v = counting()
    v.wr(EVTSEL + 2, event | USR | EN)
    v.do(A_COUNT)
    assert [v.rd(PMC + x) for x in range(4)] == [0, 0, counted, 0]
    assert (v.do(Rdpmc(2)), v.do(Rdpmc(4))) == (counted, "#GP")


CMASK, INV = 1 << 24, 1 << 23


@pytest.mark.parametrize(
    ("select", "counted"),
    [
        (INSTRUCTIONS | CMASK, 100), (INSTRUCTIONS | 2 * CMASK, 0), (BRANCHES | 255 * CMASK, 0), (CYCLES | CMASK, 300),
        (INSTRUCTIONS | INV, 100), (INSTRUCTIONS | INV | CMASK, 0), (INSTRUCTIONS | INV | 16 * CMASK, 300),
        (0x12C4 | INV | 16 * CMASK, 0),
    ],
)  # fmt: skip
def test_a_mask_counts_cycles_with_as_many_events_or_fewer(select: int, counted: int) -> None:
    v = counting()
    v.wr(EVTSEL + 2, select | USR | EN)
    v.do(A_COUNT)
    assert v.rd(PMC + 2) == counted


def test_the_fixed_counters_count_instructions_and_cycles() -> None:
    v = counting()
    v.wr(FIXED_CTRL, 0x222)
    v.do(A_COUNT)
    assert [v.rd(FIXED + x) for x in range(3)] == [100, 300, 300]
    assert [v.do(Rdpmc(1 << 30 | x)) for x in range(4)] == [100, 300, 300, "#GP"]


@pytest.mark.parametrize(("rings", "in_user", "in_kernel"), [(USR, 100, 0), (OS, 0, 100), (USR | OS, 100, 100)])
def test_a_ring_that_is_not_asked_for_is_not_counted(rings: int, in_user: int, in_kernel: int) -> None:
    for cpl, counted in ((3, in_user), (0, in_kernel)):
        v = counting()
        v.wr(EVTSEL, INSTRUCTIONS | rings | EN)
        v.wr(FIXED_CTRL, (rings >> 17 & 1) | (rings >> 16 & 1) << 1)
        v.do(A_COUNT._replace(cpl=cpl))
        assert (v.rd(PMC), v.rd(FIXED)) == (counted, counted)


@pytest.mark.parametrize("on", [0, 1, 2, 1 << 32, 1 << 33, ALL_ON])
def test_global_ctrl_switches_each_counter(on: int) -> None:
    v = counting(on=on)
    v.wr(EVTSEL, INSTRUCTIONS | USR | EN)
    v.wr(EVTSEL + 1, INSTRUCTIONS | USR | EN)
    v.wr(FIXED_CTRL, 0x22)
    v.do(A_COUNT)
    assert [v.rd(PMC), v.rd(PMC + 1)] == [100 * (on & 1), 100 * (on >> 1 & 1)]
    assert [v.rd(FIXED), v.rd(FIXED + 1)] == [100 * (on >> 32 & 1), 300 * (on >> 33 & 1)]


def test_version_2_has_global_ctrl_and_version_1_counts_without() -> None:
    for version, expected in ((1, 100), (2, 0)):
        v = counting(version, on=0)
        v.wr(EVTSEL, INSTRUCTIONS | USR | EN)
        v.do(A_COUNT)
        assert v.rd(PMC) == expected


def test_counters_that_overflow_together_all_say_so() -> None:
    v = counting()
    for x in range(2):
        v.wr(EVTSEL + x, INSTRUCTIONS | USR | EN | INT)
        near_the_top(v, PMC + x, 100)
    v.wr(FIXED_CTRL, 0xAAA)
    for x in range(3):
        near_the_top(v, FIXED + x, 50)
    assert v.do(A_COUNT) == f"overflow {3 | 7 << 32:#x}"
    assert v.rd(STATUS) & ALL_ON == 3 | 7 << 32
    assert [v.rd(PMC), v.rd(PMC + 1)] == [0, 0]
    assert [v.rd(FIXED + x) for x in range(3)] == [50, 250, 250]


def test_one_event_short_of_the_top_is_no_overflow() -> None:
    v = counting()
    v.wr(EVTSEL, INSTRUCTIONS | USR | EN | INT)
    near_the_top(v, PMC, 101)
    assert (v.do(A_COUNT), v.rd(STATUS), v.rd(PMC)) == ("ok", 0, TOP)
    assert v.do(Count(instructions=1, cpl=3)) == "overflow 0x1"
    assert v.rd(PMC) == 0


@pytest.mark.parametrize(
    ("select", "control", "asked"), [(0, 2, 0), (INT, 2, 1), (0, 0xA, 1 << 32), (INT, 0xA, 1 << 32 | 1)]
)
def test_only_the_overflow_that_asks_brings_a_pmi(select: int, control: int, asked: int) -> None:
    v = counting()
    v.wr(EVTSEL, INSTRUCTIONS | USR | EN | select)
    v.wr(FIXED_CTRL, control)
    near_the_top(v, PMC)
    near_the_top(v, FIXED)
    assert v.do(A_COUNT) == (f"overflow {asked:#x}" if asked else "ok")
    assert v.rd(STATUS) & ALL_ON == 1 | 1 << 32


def test_an_overflow_stays_in_the_status_until_it_is_cleared() -> None:
    v = counting()
    v.wr(EVTSEL, INSTRUCTIONS | USR | EN)
    v.wr(EVTSEL + 1, INSTRUCTIONS | USR | EN)
    near_the_top(v, PMC)
    v.do(A_COUNT)
    near_the_top(v, PMC + 1)
    v.do(A_COUNT)
    assert v.rd(STATUS) & ALL_ON == 3


def test_what_is_left_until_an_overflow() -> None:
    v = counting()
    v.wr(EVTSEL + 1, TAKEN | USR | EN | INT)
    v.wr(FIXED_CTRL, 0xA0)
    near_the_top(v, PMC + 1, 9)
    near_the_top(v, FIXED + 1, 11)
    first, second = running(v.state)
    assert (first.bit, first.rings, first.asks, left(v.state, first)) == (1, USR, 1, 9)
    assert (second.bit, second.rings, second.asks, left(v.state, second)) == (33, USR, 1, 11)


def test_the_legal_bits_are_those_of_the_counters_there_are() -> None:
    v = counting()
    assert global_legal(v.state) == 0xF | 7 << 32
    assert fixed_ctrl_legal(v.state) == 0xBBB
    # OvfDSBuffer and CondChgd are 62 and 63, LBR_FRZ 58; CTR_FRZ, 59, goes with DEBUGCTL[12].
    counters = 0xF | 7 << 32 | 3 << 62
    assert status_legal(ARCHLBR, v.state) == counters | 1 << 58
    assert status_legal(ARCHLBR, counting(4, freezes_counters=1).state) == counters | 3 << 58
    assert status_legal(ARCHLBR, counting(3, freezes_counters=1).state) == counters
    assert status_legal(ARCHLBR, counting(4, pmu=0).state) == 3 << 62
    # Series v2 does not emulate LBR_FRZ, and a guest without LBRs has none.
    assert status_legal(SERIES_V2, v.state) == counters
    assert status_legal(ARCHLBR, Vcpu(ARCHLBR, None, leaves(leaf0a=pmu(4), leaf1c=None)).state) == counters


@pytest.mark.parametrize(("fixed", "legal"), [(0, 0), (1, 0xB), (2, 0xBB), (3, 0xBBB)])
def test_without_fixed_counters_there_is_nothing_to_control(fixed: int, legal: int) -> None:
    v = Vcpu(ARCHLBR, None, leaves(leaf0a=Leaf0A.of(5, gp=2, fixed=fixed)))
    assert fixed_ctrl_legal(v.state) == legal
    assert global_legal(v.state) == 3 | (1 << fixed) - 1 << 32
    assert (v.wr(FIXED_CTRL, 1), v.rd(FIXED + fixed)) == ("ok" if fixed else "#GP", "#GP")


def test_version_1_counts_with_every_counter_it_has_and_keeps_no_status() -> None:
    v = counting(1)
    for x in range(4):
        v.wr(EVTSEL + x, INSTRUCTIONS | USR | EN | INT)
        near_the_top(v, PMC + x, 1 + x)
    assert v.do(Count(instructions=1, cpl=3)) == "overflow 0x1"
    assert [v.rd(PMC + x) for x in range(4)] == [0, TOP, TOP - 1, TOP - 2]
    assert (v.state.pmu.status, v.state.pmu.global_ctrl, v.state.pmu.fixed) == (0, 0, ())


def test_a_guest_without_a_pmu_has_no_counter() -> None:
    v = Vcpu(ARCHLBR, {"pmu": 0})
    assert (v.do(Rdpmc(0)), v.do(Rdpmc(1 << 30)), v.rd(PMC), v.rd(EVTSEL), v.rd(FIXED)) == ("#GP",) * 5
    assert v.do(A_COUNT) == "ok"


def test_narrow_counters_overflow_at_their_own_width() -> None:
    v = Vcpu(ARCHLBR, None, leaves(leaf0a=Leaf0A.of(5, gp=2, gp_width=40, fixed=3, fixed_width=36)))
    v.wr(GLOBAL_CTRL, 3 | 7 << 32)
    v.wr(EVTSEL + 1, INSTRUCTIONS | USR | EN | INT)
    v.wr(FIXED_CTRL, 0xA0)
    v.hi(PMC + 1, (1 << 40) - 90)
    v.wr(FIXED + 1, (1 << 36) - 290)
    assert (v.hi(PMC, 1 << 40), v.rd(FIXED + 1)) == ("refused", (1 << 36) - 290)
    first, second = running(v.state)
    assert (left(v.state, first), left(v.state, second)) == (90, 290)
    assert v.do(A_COUNT) == f"overflow {2 | 2 << 32:#x}"
    assert (v.rd(PMC + 1), v.rd(FIXED + 1)) == (10, 10)


def test_a_write_of_32_bits_extends_bit_31_to_the_counter_s_width() -> None:
    v = counting()
    for written, read in ((0x7FFF_FFFF, 0x7FFF_FFFF), (0x8000_0000, 0xFFFF_8000_0000), (1 << 40 | 5, 5)):
        assert (v.wr(PMC + 3, written), v.rd(PMC + 3), v.rd(PMC)) == ("ok", read, 0)


def test_counting_keeps_the_capabilities() -> None:
    v = counting()
    before = v.rd(PERF_CAPABILITIES)
    v.wr(EVTSEL, INSTRUCTIONS | USR | EN)
    v.do(A_COUNT)
    assert v.rd(PERF_CAPABILITIES) == before
    assert v.state.pmu.capabilities == before != 0


@pytest.mark.parametrize(("version", "on", "status"), [(2, 0, 1), (3, 0, 1), (4, ALL_ON, 1 | 1 << 59 | 1 << 58)])
def test_a_pmi_stops_the_counters_where_debugctl_asks(version: int, on: int, status: int) -> None:
    v = counting(version, freezes_counters=1)
    v.wr(DEBUGCTL, 1 << 12)
    assert v.rd(DEBUGCTL) == 1 << 12
    v.wr(EVTSEL, INSTRUCTIONS | USR | EN | INT)
    near_the_top(v, PMC)
    assert v.do(A_COUNT) == "overflow 0x1"
    # LBR_FRZ is DEBUGCTL[11]'s to ask for, and was not asked for.
    assert (v.rd(GLOBAL_CTRL), v.rd(STATUS)) == (on, status & ~(1 << 58))
    counted = v.rd(PMC)
    v.do(A_COUNT)
    assert v.rd(PMC) == counted
