"""What a step says that it touches is enough: every transition is made both ways, and the two searches agree."""

from __future__ import annotations

import pytest

from archlbr.check.explore import explore
from archlbr.check.parts import check_parts
from archlbr.contract import designs, scenarios
from archlbr.contract.parts import WorldInParts
from archlbr.contract.verdicts import claims, judge
from archlbr.errors import InternalError

# States met at most: the largest scenarios in part, the others completely.
MOST = 3000
PAIRS = [
    (design, scenario)
    for design in designs.DESIGNS.values()
    for scenario in scenarios.SCENARIOS
    if scenario.cpus * scenario.vcpus > 1 and scenarios.belongs(design.family, scenario)
]


@pytest.mark.parametrize(("design", "scenario"), PAIRS, ids=lambda one: one.name)
def test_each_transition_is_the_same_both_ways(design, scenario) -> None:
    assert check_parts(WorldInParts(designs.model(design, scenario)), limit=MOST) > 0


def test_a_world_comes_together_as_it_was() -> None:
    for scenario in scenarios.SCENARIOS:
        host = designs.model(designs.named("archlbr"), scenario)
        parted = WorldInParts(host)
        world = host.initial()[0]
        assert parted.join(parted.split(world)) == world


@pytest.mark.parametrize("name", ["vlbr-6.12", "request", "archlbr"])
def test_the_packed_search_is_the_plain_search(name: str) -> None:
    design, scenario = designs.named(name), scenarios.named("neighbours-traced")
    found = judge(design, scenario).exploration
    plain = explore(designs.model(design, scenario), claims(design, scenario))
    assert (found.states, found.edges, found.depth) == (plain.states, plain.edges, plain.depth)
    assert found.coverage == plain.coverage
    assert {name: found.found[name] for name in plain.found} == plain.found


def test_a_step_that_reads_beside_its_state_is_found_before_the_search(monkeypatch) -> None:
    host, calls = designs.model(designs.named("archlbr"), scenarios.named("lend")), []
    real = host.next

    def forgetful(world, action):
        calls.append(action)
        return None if len(calls) % 7 == 0 else real(world, action)

    monkeypatch.setattr(host, "next", forgetful)
    monkeypatch.setattr(designs, "model", lambda _design, _scenario: host)
    with pytest.raises(InternalError, match="not in its state"):
        judge(designs.named("archlbr"), scenarios.named("lend"))
