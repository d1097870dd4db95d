"""The conformance table as pytest items: `pytest -p archlbr.pytest_plugin --archlbr-target=kvm`.

For a VMM's own test suite: each case is an item, beside whatever else pytest collects; pytest's own -k, -x and reports
apply. A known difference passes with a property `known`, what a target lacks is a skip, or a failure with
`--archlbr-require`. Nothing of the table is loaded unless a target is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from archlbr.conformance.targets.names import KINDS, open_target
from archlbr.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from archlbr.conformance.case import Case
    from archlbr.conformance.target import Target

_TARGETS = pytest.StashKey[dict[str, "Target"]]()


class NotConformant(Exception):  # noqa: N818 it is no error of ours: it carries a failed case to the report
    """A case that failed, in words."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options."""
    group = parser.getgroup("archlbr", "conformance of a hypervisor's LBRs")
    group.addoption(
        "--archlbr-target", action="append", default=[], metavar="TARGET", help=f"ask the conformance table of {KINDS}"
    )
    group.addoption(
        "--archlbr-require", action="append", default=[], metavar="TARGET", help="what this target lacks is a failure"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Open the targets, so that one that cannot be used is a usage error before anything runs."""
    targets: dict[str, Target] = {}
    config.stash[_TARGETS] = targets
    try:
        for name in config.getoption("--archlbr-target"):
            targets[name] = open_target(name)
    except InputError as refusal:
        raise pytest.UsageError(str(refusal)) from None


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the targets."""
    for target in config.stash.get(_TARGETS, {}).values():
        target.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add an item for each case and target, before -k and the like choose among all."""
    targets = config.stash[_TARGETS]
    if not targets:
        return
    from archlbr.conformance.cases.table import CASES

    required = set(config.getoption("--archlbr-require"))
    for name, target in targets.items():
        strict = bool(required & {name, target.name})
        items.extend(
            CaseItem.from_parent(
                session, name=case.name, nodeid=f"{target.name}::{case.name}", case=case, asked=target, strict=strict
            )
            for case in CASES
        )


class CaseItem(pytest.Item):
    """One case, asked of one target."""

    def __init__(self, *, case: Case, asked: Target, strict: bool, **arguments: Any) -> None:
        super().__init__(**arguments)  # pytest's own, as from_parent gives them
        self.case = case
        self.asked = asked
        self.strict = strict
        self.user_properties += [("requirement", case.requirement), ("cite", case.cite)]

    def runtest(self) -> None:
        """Ask, and raise or skip by the verdict."""
        from archlbr.conformance.run import Verdict, run_case

        result = run_case(self.asked, self.case)
        if result.verdict is Verdict.SKIP and not self.strict:
            pytest.skip(result.why)
        if result.verdict in (Verdict.FAIL, Verdict.SKIP):
            raise NotConformant(f"{result.why}\nmust hold: {self.case.requirement} ({self.case.cite})")
        if result.verdict is Verdict.DIFFERS:
            self.user_properties.append(("known", result.why))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        """Show a failed case in words, anything else as pytest does."""
        if isinstance(excinfo.value, NotConformant):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Name the item by its target and case."""
        return self.path, None, self.nodeid
