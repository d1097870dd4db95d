"""The projection to owners' tags is the facility: both are driven by one stream of operations and compared."""

from __future__ import annotations

import random

import pytest

from archlbr.arch import msrs
from archlbr.arch.branches import BranchKind
from archlbr.arch.cpuid import Leaf1C
from archlbr.arch.outcomes import GeneralProtection
from archlbr.lbr import state as facility_state
from archlbr.lbr import tagged
from archlbr.lbr.actions import Branch, Wrmsr
from archlbr.lbr.bank import HOST, NOBODY, VM
from archlbr.lbr.step import step

DEPTH = 8
CPL_0 = 0
OPEN = msrs.CTL_OS | msrs.CTL_KINDS
# Whose filter -> its bits of IA32_LBR_CTL; each but nobody's lets the kernel's branches in.
FILTERS = {NOBODY: 0, HOST: OPEN, VM: OPEN | msrs.CTL_USR}


def address(tag: int, number: int) -> int:
    return tag << 32 | number << 4 | 8 if tag else 0


def projected(facility, lbr) -> tagged.Lbrs:
    names = {bits: name for name, bits in FILTERS.items()}
    tags = tuple(entry.source >> 32 for entry in facility_state.newest_first(facility, lbr))
    return tagged.Lbrs(facility_state.recording(facility, lbr), names[lbr.ctl & ~msrs.CTL_LBREN], tags)


@pytest.mark.parametrize("seed", range(20))
def test_each_operation_on_tags_is_the_facility_s(seed: int) -> None:
    facility = facility_state.architectural(Leaf1C.of(depths=(DEPTH,), timed=False))
    lbr, tags = facility_state.initial(facility), tagged.reset(DEPTH)
    choose = random.Random(seed)

    def control(select: int, enable: int) -> list[Wrmsr]:
        return [Wrmsr(msrs.IA32_LBR_CTL.index, FILTERS[select] | msrs.CTL_LBREN * enable)]

    wipe = [Wrmsr(msrs.IA32_LBR_DEPTH.index, DEPTH)]
    for number in range(1, 400):
        what = choose.choice(["recorded"] * 4 + ["filled", "wiped", "cleared", "programmed", "controlled", "filtered",
                                                 "loaded", "written"])  # fmt: skip
        tag, select, enable = choose.choice([HOST, VM, VM + 1]), choose.choice(list(FILTERS)), choose.randrange(2)
        stack = tuple(choose.choice([NOBODY, HOST, VM]) for _ in range(DEPTH))
        here = address(tag, number)
        branch = Branch(here, here + 64, int(BranchKind.REL_JMP), CPL_0, CPL_0, number)
        # On tags, only a branch that the filter lets in is told of; nobody's lets none in.
        let_in = tags.select != NOBODY
        records = [Wrmsr(msrs.IA32_LBR_FROM_IP.index + place, address(one, number)) for place, one in enumerate(stack)]
        instructions, tags = {
            "recorded": ([branch], tags.recorded(tag) if let_in else tags),
            "filled": ([branch] * DEPTH, tags.filled(tag) if let_in else tags),
            "wiped": (wipe, tags.wiped()),
            "cleared": (wipe + control(NOBODY, tags.enable), tags.cleared()),
            "programmed": (control(select, enable), tags.programmed(select, enable)),
            "controlled": (control(tags.select, enable), tags.controlled(enable)),
            "filtered": (control(select, tags.enable), tags.filtered(select)),
            "loaded": (records + control(select, tags.enable), tags.loaded(select, stack)),
            "written": (records, tags.written(stack)),
        }[what]
        for instruction in instructions:
            lbr, outcome = step(facility, lbr, instruction)
            assert not isinstance(outcome, GeneralProtection), instruction
        assert projected(facility, lbr) == tags, (number, what)


def test_what_is_recorded_and_what_is_wiped_leaves_the_filter_alone() -> None:
    programmed = tagged.Lbrs(1, 5, (2, 1, 0))
    assert programmed.recorded(7) == tagged.Lbrs(1, 5, (7, 2, 1))
    assert programmed._replace(enable=0).recorded(7) == tagged.Lbrs(0, 5, (2, 1, 0))
    assert programmed.wiped() == tagged.Lbrs(1, 5, (0, 0, 0))
    assert tagged.reset(2) == tagged.Lbrs(0, 0, (0, 0))
