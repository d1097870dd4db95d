"""The tables themselves: how many, each row of the reference, each with an authority, none that cannot fail."""

from __future__ import annotations

import re
from collections import Counter

from archlbr.conformance import questions as q
from archlbr.conformance.case import ANY_STEP
from archlbr.conformance.cases.table import CASES
from archlbr.conformance.expectations import Bits, Expectation, Holds, Stored
from tests.house.tree import ROOT

COUNT = 914
# kvm-series.md D numbers its rows 1 to 104.
ROWS = range(1, 105)


def test_there_are_as_many_cases_as_the_documents_say() -> None:
    assert len(CASES) == COUNT
    assert COUNT >= 250


def test_no_two_cases_have_one_name() -> None:
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []


def test_each_row_of_the_reference_has_a_case() -> None:
    assert set(ROWS) - {case.row for case in CASES} == set()


def test_no_case_names_a_row_that_is_not_there() -> None:
    assert {case.row for case in CASES} - {0, *ROWS} == set()


def test_a_case_says_what_must_hold_and_who_says_so() -> None:
    assert [case.name for case in CASES if not re.fullmatch(r"[A-Za-z0-9_.-]+", case.name)] == []
    assert [case.name for case in CASES if not (case.requirement and case.cite and case.steps)] == []


# What any answer of its kind meets.
EVERYTHING = (Bits(0, 0), Holds(), Stored(()))


def meets_everything(expectation: Expectation) -> bool:
    # Tuples of one content are equal whatever their names.
    return any(type(expectation) is type(one) and expectation == one for one in EVERYTHING)


def test_the_divergences_name_cases_that_are_there() -> None:
    # The last column of the vPMU's table, and the rows of this room's.
    document = (ROOT / "docs" / "divergences.md").read_text(encoding="utf-8")
    part = document[document.index("## The vPMU") :]
    named = {name for line in part.splitlines() for name in re.findall(r"`([a-z0-9A-Z]+(?:-[A-Za-z0-9]+)+)`", line)}
    assert len(named) >= 30
    assert named - {case.name for case in CASES} == {"series-v2"} & named


def test_each_case_can_fail() -> None:
    free = [
        case.name
        for case in CASES
        if all(meets_everything(step.expected) or isinstance(step.question, q.Happen) for step in case.steps)
    ]
    assert free == []


def test_a_known_difference_names_a_step_of_its_case_and_a_reason() -> None:
    for case in CASES:
        for known in case.known:
            assert known.where in ("archlbr", "series-v2")
            assert known.step == ANY_STEP or -1 <= known.step < len(case.steps)
            assert known.reason
