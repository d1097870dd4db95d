"""-k: which cases an expression chooses, and what is no expression."""

from __future__ import annotations

import pytest

from archlbr.conformance.case import Case
from archlbr.conformance.cases.table import CASES
from archlbr.conformance.cases.words import G
from archlbr.conformance.select import selection
from archlbr.errors import InputError


def case(name: str, row: int = 0) -> Case:
    return Case(name, "", "", G, (), row)


NAMES = ("ctl-write-0x1", "ctl-vmm-reserved-4", "xss-bit-15", "smi-saves")


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ("", NAMES),
        ("   ", NAMES),
        ("ctl", NAMES[:2]),
        ("CTL", NAMES[:2]),
        ("ctl and vmm", NAMES[1:2]),
        ("ctl and not vmm", NAMES[:1]),
        ("xss or smi", NAMES[2:]),
        ("not (ctl or xss)", NAMES[3:]),
        ("not ctl and xss or smi", NAMES[2:]),  # not before and before or
        ("ctl or xss and nothing", NAMES[:2]),
        ("not not smi", NAMES[3:]),
        ("reserved-4", NAMES[1:2]),
        ("nothing", ()),
    ],
)
def test_an_expression_chooses(expression: str, chosen: tuple[str, ...]) -> None:
    holds = selection(expression)
    assert tuple(name for name in NAMES if holds(case(name))) == chosen


def test_a_row_is_chosen_by_its_number() -> None:
    holds = selection("row:8")
    assert [holds(case("a", 8)), holds(case("b", 80)), holds(case("row:8", 1))] == [True, False, False]
    assert {chosen.row for chosen in CASES if holds(chosen)} == {8}


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("ctl and", "a name is missing"),
        ("and ctl", "a name is missing"),
        ("not", "a name is missing"),
        ("()", "a name is missing"),
        ("(ctl", "a parenthesis is not closed"),
        ("ctl)", "')' is one word too many"),
        ("ctl xss", "'xss' is one word too many"),
        ("ctl & xss", "'&' is no word"),
        ("==", "'=' is no word"),
    ],
)
def test_what_is_no_expression_is_refused_in_one_line(expression: str, why: str) -> None:
    with pytest.raises(InputError) as refusal:
        selection(expression)
    assert why in str(refusal.value)
    assert "\n" not in str(refusal.value)
