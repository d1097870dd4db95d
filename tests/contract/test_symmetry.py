"""Exchanging the names of two VMs: it commutes with each action, keeps the verdicts, and nearly halves the states."""

from __future__ import annotations

import pytest

from archlbr.check.explore import Graph, explore, possible
from archlbr.check.reduce import least_of
from archlbr.contract import designs, scenarios
from archlbr.contract.symmetry import exchanged, images, symmetric
from archlbr.contract.verdicts import claims

PAIRS = [("vlbr-6.12", "neighbours"), ("request", "neighbours-traced"), ("archlbr", "neighbours-toggled")]


@pytest.mark.parametrize(("design", "name"), PAIRS)
def test_exchanging_commutes_with_each_action(design: str, name: str) -> None:
    scenario = scenarios.named(name)
    assert symmetric(scenario)
    host = designs.model(designs.named(design), scenario)
    graph = Graph()
    explore(host, [], graph=graph, limit=4000)
    for world in graph.states:
        assert exchanged(exchanged(world)) == world
        there = {exchanged(after) for _, after in possible(host, world)}
        assert {after for _, after in possible(host, exchanged(world))} == there


@pytest.mark.parametrize(("design", "name"), PAIRS)
def test_the_reduced_search_says_the_same_in_as_many_steps(design: str, name: str) -> None:
    scenario = scenarios.named(name)
    host = designs.model(designs.named(design), scenario)
    asked = claims(designs.named(design), scenario)
    graph = Graph()
    whole = explore(host, asked, graph=graph)
    reduced = explore(host, asked, canonical=least_of(images))
    assert {key: len(path) for key, path in reduced.found.items()} == {key: len(p) for key, p in whole.found.items()}
    assert reduced.states == len({min(images(world)) for world in graph.states})
    assert reduced.states < 0.6 * whole.states
