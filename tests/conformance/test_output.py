"""The three forms of the results."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from archlbr.conformance.case import Case
from archlbr.conformance.cases.words import G
from archlbr.conformance.output.junit import junit
from archlbr.conformance.output.tap import tap
from archlbr.conformance.output.text import text
from archlbr.conformance.run import Result, Verdict, holds, strict


def case(name: str, row: int = 0) -> Case:
    return Case(name, f"{name} must hold", "P6", G, (), row)


RESULTS = [
    Result(case("one", 28), "model", Verdict.PASS),
    Result(case("two"), "model", Verdict.DIFFERS, 'by design: "so"'),
    Result(case("three"), "model", Verdict.FAIL, "step 1, Rdmsr 0x14ce: #GP, not 0x0"),
    Result(case("one", 28), "kvm", Verdict.SKIP, "an <LBR> # of its own"),
    Result(case("two"), "kvm", Verdict.PASS),
]


def test_text_is_a_table_with_the_reasons_below() -> None:
    assert text(RESULTS) == (
        "case   model    kvm\n"
        "one    pass     skip\n"
        "two    differs  pass\n"
        "three  fail\n"
        "\n"
        "FAIL model: three: step 1, Rdmsr 0x14ce: #GP, not 0x0\n"
        "     must hold: three must hold (P6)\n"
        "\n"
        "differs, as known:\n"
        '  model     1  by design: "so"\n'
        "\n"
        "skipped, for lack of:\n"
        "  kvm     1  an <LBR> # of its own\n"
        "\n"
        "model: 1 pass, 1 differs, 1 fail, 0 skip\n"
        "kvm: 1 pass, 0 differs, 0 fail, 1 skip\n"
    )


def test_tap_has_a_plan_a_line_each_and_yaml_for_reasons() -> None:
    assert tap(RESULTS) == (
        "TAP version 14\n"
        "1..5\n"
        "ok 1 - model one\n"
        "ok 2 - model two\n"
        "  ---\n"
        '  known: "by design: \\"so\\""\n'
        "  ...\n"
        "not ok 3 - model three\n"
        "  ---\n"
        '  message: "step 1, Rdmsr 0x14ce: #GP, not 0x0"\n'
        '  requirement: "three must hold"\n'
        '  cite: "P6"\n'
        "  ...\n"
        "ok 4 - kvm one # SKIP an <LBR> \\# of its own\n"
        "ok 5 - kvm two\n"
    )


def test_junit_is_a_suite_a_target_and_a_testcase_a_case() -> None:
    root = ElementTree.fromstring(junit(RESULTS))
    assert [(suite.get("name"), suite.get("tests"), suite.get("failures"), suite.get("skipped")) for suite in root] == [
        ("model", "3", "1", "0"),
        ("kvm", "2", "0", "1"),
    ]
    assert [(one.get("classname"), one.get("name")) for one in root.iter("testcase")] == [
        ("model", "one"),
        ("model", "two"),
        ("model", "three"),
        ("kvm", "one"),
        ("kvm", "two"),
    ]
    first, second, third, fourth, _ = root.iter("testcase")
    assert properties(first) == {"requirement": "one must hold", "cite": "P6", "row": "28"}
    assert properties(second)["known"] == 'by design: "so"'
    assert (second.find("failure"), second.find("skipped")) == (None, None)
    failure, skipped = third.find("failure"), fourth.find("skipped")
    assert failure is not None
    assert skipped is not None
    assert failure.get("message") == "step 1, Rdmsr 0x14ce: #GP, not 0x0"
    assert skipped.get("message") == "an <LBR> # of its own"


def properties(testcase: ElementTree.Element) -> dict[str | None, str | None]:
    return {one.get("name"): one.get("value") for one in testcase.iter("property")}


@pytest.mark.parametrize(
    ("verdicts", "held"),
    [
        ([], False),
        ([Verdict.SKIP, Verdict.SKIP], False),
        ([Verdict.SKIP, Verdict.PASS], True),
        ([Verdict.DIFFERS], True),
        ([Verdict.PASS, Verdict.FAIL], False),
    ],
)
def test_a_run_holds_when_something_was_asked_and_nothing_failed(verdicts: list[Verdict], held: bool) -> None:
    assert holds([Result(case("one"), "model", verdict) for verdict in verdicts]) is held


def test_a_required_target_s_skips_are_failures() -> None:
    required = list(strict(RESULTS[3:]))
    assert [(result.verdict, result.why) for result in required] == [
        (Verdict.FAIL, "required, but: an <LBR> # of its own"),
        (Verdict.PASS, ""),
    ]
