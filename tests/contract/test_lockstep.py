"""What is checked is what the hardware does: `archlbr`'s hand-over, run on the real facility beside the model.

Random walks through the model are followed on `lbr.step`, a processor a pCPU, by the instructions that each action
Random walks through the model are followed on `lbr.step`, one processor a pCPU, by the instructions that each action
the tags of the model are the addresses of the facility.
"""

from __future__ import annotations

import random

import pytest

from archlbr.arch import msrs, xsave
from archlbr.arch.branches import BranchKind
from archlbr.arch.cpuid import Leaf1C
from archlbr.arch.outcomes import DONE, Image
from archlbr.check.explore import possible
from archlbr.contract import designs
from archlbr.contract import world as at
from archlbr.contract.scenarios import ALL, FLEXIBLE
from archlbr.contract.world import Scenario
from archlbr.lbr import state as facility_state
from archlbr.lbr.actions import Branch, Wrmsr, Xrstors, Xsaves
from archlbr.lbr.step import step
from archlbr.lbr.tagged import HOST, VM
from archlbr.perf.events import ACTIVE

DEPTH = 8
ON = msrs.CTL_LBREN | msrs.CTL_OS | msrs.CTL_KINDS
EMPTY_AREA = bytes(xsave.AREA_SIZE)
SCENARIO = Scenario("lockstep", "", ALL, cpus=2, vcpus=2, depth=DEPTH, events=(FLEXIBLE, FLEXIBLE), roams=1)


class Processor:
    """One real facility and the instructions that KVM and perf execute on it."""

    def __init__(self) -> None:
        self.facility = facility_state.architectural(Leaf1C.of(depths=(DEPTH,), timed=False))
        self.lbr = facility_state.initial(self.facility)
        self.write(msrs.IA32_XSS.index, xsave.COMPONENT_BIT)
        self.clock = 0

    def write(self, msr: int, value: int) -> None:
        self.lbr, outcome = step(self.facility, self.lbr, Wrmsr(msr, value))
        assert outcome == DONE

    def ctl(self, value: int) -> None:
        self.write(msrs.IA32_LBR_CTL.index, value)

    def wipe(self) -> None:
        self.write(msrs.IA32_LBR_DEPTH.index, DEPTH)

    def branch(self, tag: int) -> None:
        self.clock += 1
        here = tag << 32 | self.clock << 8
        self.lbr, _ = step(self.facility, self.lbr, Branch(here, here + 8, int(BranchKind.REL_JMP), 0, 0, self.clock))

    def save(self) -> bytes:
        self.lbr, outcome = step(self.facility, self.lbr, Xsaves(EMPTY_AREA))
        assert isinstance(outcome, Image)
        return outcome.content

    def load(self, area: bytes) -> None:
        self.lbr, outcome = step(self.facility, self.lbr, Xrstors(area))
        assert outcome == DONE

    def tags(self) -> tuple[int, ...]:
        return tuple(entry.source >> 32 for entry in self.lbr.stack)


INITIAL_AREA = Processor().save()


def follow(kind, before, after, processor: Processor, areas: list[bytes], v: int) -> None:
    """Execute what an action stands for."""
    owned = before.owner == VM + v
    if kind == "stop_host":
        processor.ctl(0)
    elif kind == "load_guest":
        processor.load(areas[v])
    elif kind in ("vmenter", "reenter"):
        processor.ctl(ON if after.lbr.enable else 0)
    elif kind in ("exit", "lbr_on", "lbr_off", "nest", "unnest", "smi", "rsm"):
        processor.ctl(0)
    elif kind == "save_guest":
        areas[v] = processor.save()
    elif kind in ("start_host", "grant"):
        processor.wipe()
        processor.ctl(ON)
    elif kind in ("switch", "to_user"):
        if before.thread and owned:
            areas[v] = processor.save()
    elif kind in ("install", "enable"):
        if before.owner >= VM:
            areas[before.owner - VM] = processor.save()
        else:
            processor.wipe()
            processor.ctl(ON)
    elif kind in ("disable", "remove"):
        if before.perf.event == ACTIVE:
            processor.ctl(0)
    elif kind == "branch":
        processor.branch(VM + v)
    elif kind == "host_branch":
        for _ in range(DEPTH):
            processor.branch(HOST)
    elif kind in ("depth", "xrstors"):
        processor.wipe()
    elif kind == "hole":
        for place, tag in enumerate(after.lbr.stack):
            processor.write(msrs.IA32_LBR_FROM_IP.index + place, tag << 32)
    else:
        assert kind in ("enter", "irqs_on", "to_kernel", "migrate", "nmi")


@pytest.mark.parametrize("seed", range(6))
def test_each_step_of_the_hand_over_is_instructions_on_the_facility(seed: int) -> None:
    host = designs.model(designs.named("archlbr"), SCENARIO)
    choose = random.Random(seed)
    world = host.initial()[0]
    processors, areas, kinds = [Processor(), Processor()], [INITIAL_AREA] * 2, set()
    for number in range(3000):
        action, after = choose.choice(list(possible(host, world)))
        kind, c, _ = action
        before = world.cpus[c]
        follow(kind, before, after.cpus[c], processors[c], areas, before.thread - 1)
        world = after
        kinds.add(kind)
        for cpu, processor in zip(world.cpus, processors, strict=True):
            shown = (processor.tags(), facility_state.recording(processor.facility, processor.lbr))
            # While a load is due, what is in the registers belongs to nobody and is not compared.
            assert shown == (cpu.lbr.stack, cpu.lbr.enable) or cpu.phase == at.ENTRY_STOPPED, (number, action)
    assert {"load_guest", "save_guest", "start_host", "grant", "branch", "host_branch", "hole", "switch"} <= kinds
