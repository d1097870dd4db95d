"""Fourteen real bugs, seeded one by one: the table catches each, and reports none where it is absent."""

from __future__ import annotations

from functools import cache

import pytest

from archlbr.conformance.bugs import BUGS, Bug
from archlbr.conformance.cases.table import CASES
from archlbr.conformance.run import Verdict, run
from archlbr.conformance.targets.model import ModelTarget
from archlbr.conformance.wrapped import Wrapped


@cache
def failures(bug: Bug | None) -> set[str]:
    target = ModelTarget() if bug is None else bug.wrap(ModelTarget())
    return {result.case.name for result in run(target, CASES) if result.verdict is Verdict.FAIL}


def test_the_fourteen_of_the_list_are_there() -> None:
    assert [bug.number for bug in BUGS] == list(range(1, 15))
    assert len({bug.wrap for bug in BUGS}) == 14


def test_none_is_reported_where_none_is() -> None:
    assert failures(None) == set()
    assert {r.case.name for r in run(Wrapped(ModelTarget()), CASES) if r.verdict is Verdict.FAIL} == set()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.number}-{bug.wrap.__name__}")
def test_the_bug_is_caught(bug: Bug) -> None:
    assert bug.caught_by in failures(bug)


# A wrong answer must not drag unrelated cases along: how many each bug fails, counted when the table was written.
COUNTS = {1: 2, 2: 24, 3: 7, 4: 4, 5: 3, 6: 1, 7: 16, 8: 1, 9: 1, 10: 15, 11: 3, 12: 8, 13: 3, 14: 7}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.number)
def test_the_bug_fails_its_own_cases_alone(bug: Bug) -> None:
    assert len(failures(bug)) == COUNTS[bug.number]
