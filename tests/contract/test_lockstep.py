"""What is explored is what runs: one step, over tags and over the real facility, side by side.

Random walks through `host.step` are made twice, over `lbr.tagged` and over `lbr.facility_bank`, where each operation on
the registers is instructions of `lbr.step`. After each step the tags of the one are the addresses of the other.
"""

from __future__ import annotations

import random

import pytest

from archlbr.arch import msrs, xsave
from archlbr.arch.cpuid import Leaf1C
from archlbr.arch.outcomes import DONE
from archlbr.check.explore import possible
from archlbr.contract import designs
from archlbr.contract.scenarios import ALL, FLEXIBLE, OF_GUEST, OF_TASK, PINNED
from archlbr.contract.world import Scenario, setting
from archlbr.host import initial, step
from archlbr.lbr import state as facility_state
from archlbr.lbr.actions import Wrmsr
from archlbr.lbr.facility_bank import FacilityBank
from archlbr.lbr.step import step as lbr_step

DEPTH = 8
OPEN = msrs.CTL_OS | msrs.CTL_KINDS
PAIRS = [(FLEXIBLE, FLEXIBLE), (PINNED, FLEXIBLE), (OF_GUEST, PINNED), (OF_TASK, FLEXIBLE)]


def bank() -> FacilityBank:
    facility = facility_state.architectural(Leaf1C.of(depths=(DEPTH,), timed=False))
    state, outcome = lbr_step(
        facility, facility_state.initial(facility), Wrmsr(msrs.IA32_XSS.index, xsave.COMPONENT_BIT)
    )
    assert outcome == DONE
    # LBR_SELECT = 0 lets every branch in, and so does the filter that nobody programmed.
    return FacilityBank(facility, state, (OPEN,) * 4)


def tags(stack) -> tuple[int, ...]:
    # An intercepted WRMSR leaves tags in KVM's own copy: they never were in a register.
    return tuple(entry if isinstance(entry, int) else entry.source >> 32 for entry in stack)


def shown(told) -> tuple[object, ...]:
    sample = told.sample and (tags(told.sample.records), told.sample.none, told.sample.fresh)
    return told.read and tags(told.read), told.wrote, sample, told.in_guest


@pytest.mark.parametrize("name", list(designs.DESIGNS))
@pytest.mark.parametrize("events", PAIRS, ids=range(len(PAIRS)))
def test_the_step_is_the_same_over_tags_and_over_the_facility(name: str, events) -> None:
    scenario = Scenario("lockstep", "", ALL, cpus=2, vcpus=2, depth=DEPTH, events=events, roams=1)
    design, where = designs.named(name), setting(scenario)
    model = designs.model(design, scenario)
    choose = random.Random(len(name))
    world = model.initial()[0]
    real = initial((bank(), bank()), 2)
    kinds = set()
    for number in range(500):
        action, after = choose.choice(list(possible(model, world)))
        wanted, moved = step(design, where, world.host, action), step(design, where, real, action)
        assert wanted is not None
        assert moved is not None
        real, told = moved
        assert shown(told) == shown(wanted[1])
        world = after
        kinds.add(action[0])
        for one, other in zip(world.host.cpus, real.cpus, strict=True):
            registers = (one.lbr.enable, one.lbr.select, one.lbr.stack)
            assert registers == (other.lbr.enable, other.lbr.select, tags(other.lbr.stack)), (number, action)
            assert one._replace(lbr=None) == other._replace(lbr=None), (number, action)
        assert [vcpu._replace(image=tags(vcpu.image)) for vcpu in real.vcpus] == list(world.host.vcpus)
        assert [task._replace(image=tags(task.image)) for task in real.tasks] == list(world.host.tasks)
    always = {"vmenter", "exit", "switch"} | ({"branch", "lbr_on"} if design.exposes else set())
    assert always <= kinds
