"""Results as JUnit XML: a suite a target, a testcase a case; classname is the target, name the case.

A known difference passes, with a property `known`; so do `requirement`, `cite` and `row` describe each case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from archlbr.conformance.run import Result, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence


def junit(results: Sequence[Result]) -> str:
    """Return the whole document."""
    root = ElementTree.Element("testsuites", name="archlbr conform")
    for target in dict.fromkeys(result.target for result in results):
        mine = [result for result in results if result.target == target]
        count = {verdict: sum(result.verdict is verdict for result in mine) for verdict in Verdict}
        suite = ElementTree.SubElement(
            root, "testsuite", name=target, tests=str(len(mine)), failures=str(count[Verdict.FAIL]), errors="0",
            skipped=str(count[Verdict.SKIP]),
        )  # fmt: skip
        for result in mine:
            suite.append(_testcase(result))
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _testcase(result: Result) -> ElementTree.Element:
    case = result.case
    element = ElementTree.Element("testcase", classname=result.target, name=case.name)
    described = {"requirement": case.requirement, "cite": case.cite}
    if case.row:
        described["row"] = str(case.row)
    if result.verdict is Verdict.DIFFERS:
        described["known"] = result.why
    properties = ElementTree.SubElement(element, "properties")
    for name, value in described.items():
        ElementTree.SubElement(properties, "property", name=name, value=value)
    if result.verdict is Verdict.FAIL:
        ElementTree.SubElement(
            element, "failure", message=result.why
        ).text = f"must hold: {case.requirement} ({case.cite})"
    if result.verdict is Verdict.SKIP:
        ElementTree.SubElement(element, "skipped", message=result.why)
    return element
