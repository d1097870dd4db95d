"""Every pair of features together in a scenario of each design, computed from the scenarios; and none is there in name
only: what a scenario has can happen in it, and what is said to be nothing to a design cannot.
"""

from __future__ import annotations

import random

import pytest

from archlbr.contract import designs, scenarios
from archlbr.contract.features import BY_ACTION, FEATURES, covered, features, pairs, pointless

NAMES = list(designs.DESIGNS)
# n (n - 1) / 2 of 22, 25, 24 and 20 features.
PAIRS = {
    "vlbr-6.1": 231, "vlbr-6.12": 231, "series-v2": 300, "request": 276, "mediated": 190, "mediated-lbr": 276,
    "archlbr": 276,
}  # fmt: skip


def happens(design, scenario, wanted: set[str], steps: int) -> set[str]:
    """Return which of these kinds of action can happen on a random walk; one that changes nothing counts too."""
    model, choose = designs.model(design, scenario), random.Random(1)
    met: set[str] = set()
    world = model.initial()[0]
    for _ in range(steps):
        ways = []
        for kind, c, argument in model.actions(world):
            if kind in wanted and model.moves[kind](world.host, c, argument) is not None:
                met.add(kind)
            after = model.next(world, (kind, c, argument))
            if after is not None:
                ways.append(after)
        if met == wanted:
            break
        world = choose.choice(ways)
    return met


@pytest.mark.parametrize("name", NAMES)
def test_each_pair_of_features_is_together_in_a_scenario_of_each_design(name: str) -> None:
    design = designs.named(name)
    mine = [scenario for scenario in scenarios.SCENARIOS if scenarios.belongs(design.family, scenario)]
    assert pairs(design) - covered(mine) == set()
    assert len(pairs(design)) == PAIRS[name]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_scenario_has_can_happen_in_it(name: str) -> None:
    design = designs.named(name)
    for scenario in scenarios.PAIRED:
        kinds = set()
        for feature in features(scenario) & BY_ACTION.keys() - pointless(design).keys():
            kinds |= BY_ACTION[feature]
        # A refused event never runs, so that it is neither enabled, rotated nor sampled.
        if design.refuses_guest_events:
            kinds -= {"enable", "disable", "rotate", "nmi", "overflow"}
        assert happens(design, scenario, kinds, 4000) == kinds, scenario.name


@pytest.mark.parametrize("name", NAMES)
def test_what_is_nothing_to_a_design_never_happens(name: str) -> None:
    design = designs.named(name)
    for feature in pointless(design):
        kinds = set(BY_ACTION[feature])
        scenario = next(s for s in scenarios.PAIRED if kinds <= s.may)
        model = designs.model(design, scenario)
        assert happens(design, scenario, kinds & model.moves.keys(), 400) == set(), (feature, scenario.name)


def test_features_are_read_from_the_scenario() -> None:
    found = features(scenarios.named("lend"))
    assert found == {"event opened and closed", "event enabled and disabled", "NMI", "flexible event"}
    assert features(scenarios.named("alone")) == set()
    assert features(scenarios.named("roam")) == {"second pCPU", "vCPU migration"}
    assert "multiplexing" not in features(
        scenarios.named("mixed-pinned")._replace(may=frozenset({"rotate", "install"}))
    )
    without = [scenario for scenario in scenarios.SCENARIOS if scenario.name != "two-by-two"]
    missing = pairs(designs.named("vlbr-6.12")) - covered(without)
    assert frozenset({"second VM", "vCPU migration"}) in missing
    assert len(FEATURES) == len(set(FEATURES)) == 26
