"""The table on the model: both designs, each known difference seen, and each wrong choice of a design caught."""

from __future__ import annotations

from functools import cache

import pytest

from archlbr.conformance.cases.table import CASES
from archlbr.conformance.run import Result, Verdict, run
from archlbr.conformance.targets.model import ModelTarget
from archlbr.vpmu.designs import ARCHLBR, SERIES_V2, Design


def results(design: Design) -> dict[str, Result]:
    target = ModelTarget(design)
    target.known_as = ("model", "archlbr" if design is not SERIES_V2 else "series-v2")
    return {result.case.name: result for result in run(target, CASES)}


@cache
def of_archlbr() -> dict[str, Result]:
    return results(ARCHLBR)


def named(found: dict[str, Result], verdict: Verdict) -> dict[str, str]:
    return {name: result.why for name, result in found.items() if result.verdict is verdict}


def test_our_design_fails_nothing() -> None:
    assert named(of_archlbr(), Verdict.FAIL) == {}


def test_our_design_differs_from_the_review_in_three_ways() -> None:
    assert set(named(of_archlbr(), Verdict.DIFFERS)) == {
        "offer-1c-depth",
        "cpuid-depth-8-off",
        "cpuid-depth-16-off",
        "controls-pair-idle",
        "controls-plain-guest",
    }


def test_the_model_lacks_the_user_s_xsave_area_alone() -> None:
    assert named(of_archlbr(), Verdict.SKIP) == {"user-xsave-without-lbrs": "KVM_GET_XSAVE2 in the model"}


def test_series_v2_differs_only_as_known() -> None:
    found = results(SERIES_V2)
    assert named(found, Verdict.FAIL) == {}


@pytest.mark.parametrize("design", [ARCHLBR, SERIES_V2], ids=lambda design: design.name)
def test_each_case_with_a_known_difference_differs(design: Design) -> None:
    differs = set(named(results(design), Verdict.DIFFERS))
    assert {case.name for case in CASES if any(known.where == design.name for known in case.known)} == differs


# A choice that makes no difference beside the others of this design: a guest without long mode has no LBRs.
SHADOWED = {"smram_needs_lm"}
CHOICES = [name for name in Design._fields if name != "name" and getattr(ARCHLBR, name) != getattr(SERIES_V2, name)]


@pytest.mark.parametrize("choice", sorted(set(CHOICES) - SHADOWED))
def test_each_wrong_choice_of_the_series_is_caught_alone(choice: str) -> None:
    found = results(ARCHLBR._replace(**{choice: getattr(SERIES_V2, choice)}))
    assert set(named(found, Verdict.FAIL)) - set(named(of_archlbr(), Verdict.FAIL)) != set()


def test_a_run_is_the_same_each_time() -> None:
    assert results(ARCHLBR) == of_archlbr()
