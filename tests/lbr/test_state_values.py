"""Whole states, field by field, where the behaviour that a field has shows only much later."""

from __future__ import annotations

import pytest

from archlbr.arch.cpuid import Leaf1C
from archlbr.lbr import freeze
from archlbr.lbr.actions import Branch
from archlbr.lbr.legacy import encoded
from archlbr.lbr.state import EMPTY, Entry, architectural, initial, legacy, newest_first, settled
from archlbr.lbr.xsaves import xsaves

EIGHT = Leaf1C.of(depths=(8,))
BUSY = {"since": 7, "timed": 1, "pending": 0b10}


def test_what_is_wiped_forgets_the_counts_and_keeps_the_rest() -> None:
    facility = architectural(EIGHT)
    state = initial(facility)._replace(ctl=7, stack=(Entry(1, 2, 3),) * 8, ler=Entry(4, 5, 6), xss=1 << 15, **BUSY)
    assert freeze.wiped(state) == state._replace(stack=(EMPTY,) * 8, since=0, timed=0, pending=0)


def test_counts_are_forgotten_once_recording_has_stopped() -> None:
    facility = architectural(EIGHT)
    on = initial(facility)._replace(ctl=1, **BUSY)
    assert settled(facility, on) == on
    for stopped in (on._replace(ctl=0), on._replace(frozen=1)):
        assert settled(facility, stopped) == stopped._replace(since=0, timed=0, pending=0)
        # Events counted without a time are forgotten, too.
        untimed = stopped._replace(since=0, timed=0)
        assert settled(facility, untimed) == untimed._replace(pending=0)


def test_facilities_have_no_tsx_unless_they_say_so() -> None:
    assert (architectural(EIGHT).tsx, architectural(EIGHT, tsx=True).tsx) == (0, 1)
    assert (legacy(5, 32).tsx, legacy(5, 32, tsx=True).tsx) == (0, 1)


@pytest.mark.parametrize("tos", range(4))
def test_a_legacy_stack_is_read_from_the_top_down_and_round(tos: int) -> None:
    facility = legacy(3, 4)
    state = initial(facility)._replace(tos=tos, stack=tuple(Entry(number, 0, 0) for number in range(4)))
    assert [entry.source for entry in newest_first(facility, state)] == [(tos - x) % 4 for x in range(4)]


# Formats without an INFO register leave it 0 (reference architecture.md 5).
@pytest.mark.parametrize("form", [0, 1, 2, 3, 4, 6])
def test_a_format_without_an_info_register_leaves_it_0(form: int) -> None:
    for tsx in (False, True):
        facility = legacy(form, 4, tsx=tsx)
        branch = Branch(0x1234, 0x5678, 1, clock=9, mispredicted=1)
        assert encoded(facility, initial(facility), branch).info == 0


def test_bytes_behind_the_area_are_left_as_they_are() -> None:
    facility = architectural(EIGHT)
    state = initial(facility)._replace(ctl=7, xss=1 << 15, stack=(Entry(1, 2, 3), *(EMPTY,) * 7))
    behind = bytes(range(100))
    area = xsaves(state, bytes(576 + 808) + behind, 1 << 15)
    assert (len(area), area[576 + 808 :]) == (576 + 808 + 100, behind)
    assert area[576 + 40 : 576 + 64] == b"".join(value.to_bytes(8, "little") for value in (1, 2, 3))
