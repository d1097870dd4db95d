"""Every row that needs guest code, as real instructions of a guest that gcc built, on the board that `run` runs.

Which rows need it follows from what they ask. What asks no guest is listed by its reason; a new kind of question is in
neither list, and fails here.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, get_args

import pytest

from archlbr.conformance import questions as q
from archlbr.conformance.bugs import BUGS, Bug
from archlbr.conformance.cases.table import CASES
from archlbr.conformance.run import Verdict, run, run_case
from archlbr.conformance.targets.machine import MachineTarget
from archlbr.conformance.targets.model import ModelTarget
from archlbr.cpu import words as at
from archlbr.vpmu.designs import ARCHLBR, DEFECTS, SERIES_V2, Design
from tests.conformance.guest_rows import booted
from tests.guests.images import needs_compiler

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from archlbr.conformance.answers import Answer
    from archlbr.conformance.case import Case
    from archlbr.conformance.target import Target
    from archlbr.machine.board import Board
    from archlbr.machine.msr_guest import Layout

GUEST_CODE = (q.Branch, *get_args(q.Instruction))
# What no guest code does, and who does it.
NO_GUEST_CODE = {
    "userspace asks KVM, by an ioctl": (q.Offered, q.SaveList, q.FeatureMsr, q.SetCpuid, q.GetMsr, q.SetMsr, q.NewVm),
    "the host, or the platform, lets it happen": (q.Happen, q.EnterL2),
    "it is seen from outside the guest": (q.Look,),
}


def needs_guest(case: Case) -> bool:
    return any(isinstance(step.question, GUEST_CODE) for step in case.steps)


def reasons(case: Case) -> set[str]:
    """Why a case needs no guest code: one reason for each question, in words."""
    return {
        reason
        for step in case.steps
        for reason, kinds in NO_GUEST_CODE.items()
        if isinstance(step.question, kinds)
    }  # fmt: skip


GUEST_ROWS = [case for case in CASES if needs_guest(case)]
OTHER_ROWS = [case for case in CASES if not needs_guest(case)]


class Counted(MachineTarget):
    """A machine that keeps, for each question of guest code, how many instructions its board executed for it."""

    def __init__(self, design: Design, layout: Callable[[Board], Layout]) -> None:
        super().__init__(design, layout)
        self.executed: list[int] = []

    def execute(self, instruction: q.Instruction) -> Answer:
        return self.counted(lambda: super(Counted, self).execute(instruction))

    def branch(self, branch: q.Branch) -> Answer:
        return self.counted(lambda: super(Counted, self).branch(branch))

    def counted(self, ask: Callable[[], Answer]) -> Answer:
        before = self.ran()
        answer = ask()
        self.executed.append(self.ran() - before)
        return answer

    def ran(self) -> int:
        # The last block is accounted for when the next begins.
        words = self.board.words
        current = words[at.CURRENT]
        last = 0 if words[at.UNUSUAL] or not current else words[current + at.META] >> at.META_COUNT_SHIFT & 0xFFFF
        return int(words[at.RETIRED]) + int(last)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Board], Layout]:
    return booted(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def machine(guest: Callable[[Board], Layout]) -> Iterator[Counted]:
    target = Counted(ARCHLBR, guest)
    yield target
    target.close()


def test_each_row_needs_guest_code_or_says_why_not() -> None:
    assert [case.name for case in OTHER_ROWS if not reasons(case)] == []
    kinds = {kind for listed in NO_GUEST_CODE.values() for kind in listed}
    assert {type(step.question) for case in OTHER_ROWS for step in case.steps} <= kinds
    assert (len(GUEST_ROWS), len(OTHER_ROWS)) == (677, 237)


def test_every_kind_of_question_is_in_one_list() -> None:
    listed = [*GUEST_CODE, *(kind for kinds in NO_GUEST_CODE.values() for kind in kinds)]
    asked = {kind for one in get_args(q.Question) for kind in (get_args(one) or (one,))}
    assert Counter(listed) == Counter(asked)


@needs_compiler
def test_each_row_runs_as_guest_code_and_meets_the_suite_s_own_expectation(machine: Counted) -> None:
    for case in GUEST_ROWS:
        machine.executed.clear()
        result = run_case(machine, case)
        known = {instance.where for instance in case.known}
        assert result.verdict is Verdict.PASS or (result.verdict is Verdict.DIFFERS and "archlbr" in known), result
        questions = sum(isinstance(step.question, GUEST_CODE) for step in case.steps)
        assert len(machine.executed) == questions, case.name
        assert min(machine.executed) >= 1, case.name


@needs_compiler
def test_the_other_rows_run_no_guest_code(machine: Counted) -> None:
    before = machine.ran()
    machine.executed.clear()
    assert {result.verdict for result in run(machine, OTHER_ROWS)} <= {Verdict.PASS, Verdict.DIFFERS, Verdict.SKIP}
    assert (machine.executed, machine.ran()) == ([], before)


@needs_compiler
def test_what_series_v2_does_wrong_shows_in_the_guest(guest: Callable[[Board], Layout]) -> None:
    target = MachineTarget(SERIES_V2, guest)
    try:
        on_machine = [(result.case.name, result.verdict, result.why) for result in run(target, GUEST_ROWS)]
    finally:
        target.close()
    model = [(result.case.name, result.verdict, result.why) for result in run(ModelTarget(SERIES_V2), GUEST_ROWS)]
    assert on_machine == model
    assert sum(verdict is Verdict.DIFFERS for _, verdict, _ in on_machine) == 98


def failing(target: Target) -> dict[str, str]:
    """The cases that a guest's own answer fails, each with the step and the answer."""
    found = {}
    for result in run(target, GUEST_ROWS):
        step = re.match(r"step (\d+), ", result.why)
        failed = step and result.case.steps[int(step[1]) - 1].question
        if result.verdict is Verdict.FAIL and isinstance(failed, GUEST_CODE):
            found[result.case.name] = result.why
    return found


def seen_by(target: Target, names: Collection[str]) -> dict[str, str]:
    results = run(target, [case for case in GUEST_ROWS if case.name in names])
    return {result.case.name: result.why for result in results if result.verdict is Verdict.FAIL}


# A size that CPUID offers to userspace; the host's control and FREEZE_WHILE_SMM in the processor.
UNSEEN_BUGS = {1, 8, 9}


@needs_compiler
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.number}-{bug.wrap.__name__}")
def test_a_real_bug_that_a_guest_can_see_is_caught_by_the_guest(machine: Counted, bug: Bug) -> None:
    expected = failing(bug.wrap(ModelTarget()))
    assert bool(expected) == (bug.number not in UNSEEN_BUGS)
    assert seen_by(bug.wrap(machine), expected) == expected


UNSEEN_CHOICES = {
    "keeps_freeze_in_smm": "the host's DEBUGCTL[14], which no guest reads",
    "raw_depth": "the host's records are lost, not the guest's",
    "refuses_cpuid": "userspace meets the refusal",
    "restores_host_ctl": "the host's CTL after an exit",
    "smram_needs_lm": "a guest without long mode has no LBRs in our design",
    "strips_late": "the copy is in vmcs12, in the memory of L1's hypervisor",
}


@needs_compiler
def test_wrong_choices_of_the_vpmu_are_caught_by_the_guest(machine: Counted) -> None:
    # The guest's instructions meet the wrong choice in the step that the board runs, nothing is wrapped.
    unseen = set()
    try:
        for choice in {defect.field for defect in DEFECTS}:
            wrong = ARCHLBR._replace(**{choice: getattr(SERIES_V2, choice)})
            expected = failing(ModelTarget(wrong))
            machine.design = wrong
            assert seen_by(machine, expected) == expected, choice
            unseen |= set() if expected else {choice}
    finally:
        machine.design = ARCHLBR
    assert unseen == set(UNSEEN_CHOICES)
