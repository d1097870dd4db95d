"""What the reference's repairs of the merged kernel close, one at a time and together; docs/decisions/031 quotes it."""

from __future__ import annotations

import pytest

from archlbr.contract import designs, scenarios
from archlbr.contract.verdicts import judge

LARGEST = "neighbours-toggled"
BASE = designs.named("vlbr-6.12")
MASK, NO_SHORTCUT = {"masks": 1}, {"shortcut": 0}


def broken(claim: str, **repair: int) -> set[str]:
    """Return the scenarios in which a property still falls."""
    design = BASE._replace(**repair)
    places = [s for s in scenarios.ALONE if scenarios.belongs(design.family, s) and s.name != LARGEST]
    return {scenario.name for scenario in places if claim in judge(design, scenario, (claim,)).found}


@pytest.mark.parametrize(
    ("claim", "repair", "left"),
    [
        ("S2", {}, {"neighbours", "failing", "recycled"}),
        ("S2", MASK, {"neighbours", "recycled"}),
        ("S2", NO_SHORTCUT, set()),
        ("S2", {"own_filter": 1}, {"neighbours", "failing", "neighbours-traced", "recycled"}),
        ("S5", {}, {"failing", "failing-traced", "denied", "nested"}),
        ("S5", MASK, set()),
        ("S4", MASK, {"lend", "lend-pinned", "toggled", "neighbours", "guest-sampled", "callstack"}),
        ("S4", NO_SHORTCUT, {"failing", "failing-traced"}),
        ("S4", MASK | NO_SHORTCUT, set()),
        ("S1", MASK | NO_SHORTCUT, {"lend-pinned", "steady-pinned", "opened-pinned", "ioctl"}),
        ("H2", MASK | NO_SHORTCUT, {"lend", "lend-pinned", "toggled"}),
    ],
)
def test_a_repair_closes_what_it_is_said_to_close(claim: str, repair: dict[str, int], left: set[str]) -> None:
    assert broken(claim, **repair) == left
