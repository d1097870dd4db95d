"""The projection to owners' tags is the facility: both are driven by one stream of operations and compared."""

from __future__ import annotations

import random

import pytest

from archlbr.arch import msrs
from archlbr.arch.branches import BranchKind
from archlbr.arch.cpuid import Leaf1C
from archlbr.lbr import state as facility_state
from archlbr.lbr import tagged
from archlbr.lbr.actions import Branch, Wrmsr
from archlbr.lbr.bank import HOST, VM
from archlbr.lbr.step import step

DEPTH = 8
CPL_0 = 0


def leaf() -> Leaf1C:
    return Leaf1C.of(depths=(8,), timed=False)


def address(tag: int, number: int) -> int:
    return tag << 32 | number << 4 | 8


def projected(facility, lbr, select: int) -> tagged.Lbrs:
    tags = tuple(entry.source >> 32 for entry in facility_state.newest_first(facility, lbr))
    return tagged.Lbrs(facility_state.recording(facility, lbr), select, tags)


@pytest.mark.parametrize("seed", range(20))
def test_each_operation_on_tags_is_the_facility_s(seed: int) -> None:
    facility = facility_state.architectural(leaf())
    lbr, tags = facility_state.initial(facility), tagged.reset(DEPTH)
    choose = random.Random(seed)
    on = msrs.CTL_LBREN | msrs.CTL_OS | msrs.CTL_KINDS
    for number in range(1, 400):
        what = choose.choice(["record", "record", "record", "wipe", "on", "off", "load"])
        if what == "record":
            tag = choose.choice([HOST, VM, VM + 1])
            here = address(tag, number)
            lbr, _ = step(facility, lbr, Branch(here, here + 64, int(BranchKind.REL_JMP), CPL_0, CPL_0, number))
            tags = tags.recorded(tag)
        elif what == "wipe":
            lbr, _ = step(facility, lbr, Wrmsr(msrs.IA32_LBR_DEPTH.index, DEPTH))
            tags = tags.wiped()
        elif what in ("on", "off"):
            lbr, _ = step(facility, lbr, Wrmsr(msrs.IA32_LBR_CTL.index, on if what == "on" else 0))
            tags = tagged.Lbrs(int(what == "on"), tags.select, tags.stack)
        else:
            stack = tuple(choose.choice([HOST, VM]) for _ in range(DEPTH))
            for place, tag in enumerate(stack):
                lbr, _ = step(facility, lbr, Wrmsr(msrs.IA32_LBR_FROM_IP.index + place, address(tag, number)))
            tags = tagged.Lbrs(tags.enable, tags.select, stack)
        assert projected(facility, lbr, tags.select) == tags, (number, what)


def test_what_is_recorded_and_what_is_wiped_leaves_the_filter_alone() -> None:
    programmed = tagged.Lbrs(1, 5, (2, 1, 0))
    assert programmed.recorded(7) == tagged.Lbrs(1, 5, (7, 2, 1))
    assert programmed._replace(enable=0).recorded(7) == tagged.Lbrs(0, 5, (2, 1, 0))
    assert programmed.wiped() == tagged.Lbrs(1, 5, (0, 0, 0))
    assert tagged.reset(2) == tagged.Lbrs(0, 0, (0, 0))
