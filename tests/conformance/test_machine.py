"""The table asked by guest code on the board: the same answers, and proof that guest code gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from archlbr.arch.branches import BranchKind
from archlbr.arch.outcomes import DONE, GP, Value
from archlbr.conformance import questions as q
from archlbr.conformance.cases.table import CASES
from archlbr.conformance.cases.words import CTL, FROM, INFO, XSS, G
from archlbr.conformance.run import Verdict, run, run_case
from archlbr.conformance.targets.machine import CaseVcpu, MachineTarget
from archlbr.conformance.targets.model import ModelTarget
from archlbr.machine import msr_stubs as stubs
from archlbr.vpmu.designs import ARCHLBR, SERIES_V2, Design

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def machine() -> Iterator[MachineTarget]:
    target = MachineTarget()
    yield target
    target.close()


@pytest.mark.parametrize("design", [ARCHLBR, SERIES_V2], ids=lambda design: design.name)
def test_the_machine_s_verdicts_are_the_model_s(design: Design) -> None:
    machine = MachineTarget(design)
    try:
        on_machine = [(result.case.name, result.verdict, result.why) for result in run(machine, CASES)]
    finally:
        machine.close()
    assert on_machine == [(result.case.name, result.verdict, result.why) for result in run(ModelTarget(design), CASES)]
    assert [name for name, verdict, _ in on_machine if verdict is Verdict.FAIL] == []


def test_guest_code_asks_for_each_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[object, ...]] = []

    def watch(name: str) -> None:
        answer = getattr(CaseVcpu, name)

        def watched(vcpu: CaseVcpu, *words: object) -> object:
            heard.append((name, *words))
            return answer(vcpu, *words)

        monkeypatch.setattr(CaseVcpu, name, watched)

    for name in ("rdmsr", "wrmsr", "cpuid", "execute", "xsaves", "xrstors"):
        watch(name)
    target = MachineTarget()
    try:
        target.start(G)
        heard.clear()  # EFER, as the board was built
        assert target.execute(q.Wrmsr(CTL, 0x7F0007)) == DONE
        assert target.execute(q.Rdmsr(CTL)) == Value(0x7F0007)
        assert target.execute(q.Rdmsr(0x1C8)) == GP
        target.execute(q.Cpuid(0x1C, 0))
        target.execute(q.Wrmsr(XSS, 1 << 15))
        target.execute(q.Xsaves())
        assert target.execute(q.Xrstors(((512, 1 << 15), (520, 1 << 63 | 1 << 15)))) == DONE
        area = target.guest.area[:1384]
    finally:
        target.close()
    assert heard == [
        ("wrmsr", 0x14CE, 0x7F0007),
        ("rdmsr", 0x14CE),
        ("rdmsr", 0x1C8),
        ("cpuid", 0x1C, 0),
        ("wrmsr", 0xDA0, 0x8000),
        ("execute", stubs.STUBS["xsaves"].site),
        ("xsaves",),
        ("execute", stubs.STUBS["xrstors"].site),
        ("xrstors", area),
    ]


def test_a_branch_is_recorded_as_the_engine_took_it(machine: MachineTarget) -> None:
    machine.start(G)
    machine.execute(q.Wrmsr(CTL, 0x7F0007))
    machine.branch(q.Branch(0x401000, 0x402000, BranchKind.IND_CALL, 3))
    assert machine.execute(q.Rdmsr(FROM)) == Value(0x401000)
    info = machine.execute(q.Rdmsr(INFO))
    # architecture.md 2.5: 0 COND, 1 IND_JMP, 2 REL_JMP, 3 IND_CALL, 4 REL_CALL, 5 RET
    assert isinstance(info, Value)
    assert info.value >> 56 & 0xF == 3


def test_a_branch_outside_the_guest_s_memory_is_lacking(machine: MachineTarget) -> None:
    far = q.Branch(0x900000, 0x401000, BranchKind.REL_JMP)
    assert machine.lacks(G, (far,)) == "guest memory at 0x900000 and 0x401000"


def test_each_case_starts_afresh(machine: MachineTarget) -> None:
    chosen = [case for case in CASES if case.name in ("xrstors-restores", "xsaves-writes", "l2-no-ctl")]
    first = [run_case(machine, case) for case in chosen]
    assert [run_case(machine, case) for case in reversed(chosen)] == first[::-1]
