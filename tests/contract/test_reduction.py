"""What `--reduce` leaves out changes no verdict and no shortest length, nor does a reduced lasso stop being one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archlbr.check.explore import Graph, explore
from archlbr.contract import designs, reduction, scenarios
from archlbr.contract.bugs import seeded
from archlbr.contract.symmetry import symmetric
from archlbr.contract.verdicts import claims, class_of, judge

MANIFEST = json.loads((Path(__file__).parent / "manifest.json").read_text(encoding="utf-8"))
MOST = 30_000
SYMMETRY, INDEPENDENCE = frozenset({reduction.SYMMETRY}), frozenset({reduction.INDEPENDENCE})
PAIRS = [
    (designs.named(name.split("/")[0]), scenarios.named(name.split("/")[1]))
    for name, line in MANIFEST.items()
    if line["states"] <= (MOST if scenarios.named(name.split("/")[1]) in scenarios.ALONE else MOST // 10)
]
ALIKE = [(design, scenario) for design, scenario in PAIRS if symmetric(scenario)]
APART = [(design, scenario) for design, scenario in PAIRS if reduction.independent(design, scenario)]


def lengths(paths) -> dict[str, int]:
    return {name: len(path) for name, path in paths.items()}


@pytest.mark.parametrize(("design", "scenario"), ALIKE, ids=lambda one: one.name)
def test_symmetry_keeps_every_verdict_and_halves_the_states(design, scenario) -> None:
    whole, reduced = judge(design, scenario), judge(design, scenario, reduce=SYMMETRY)
    assert lengths(reduced.found) == lengths(whole.found)
    assert lengths(reduced.witnessed) == lengths(whole.witnessed)
    assert set(reduced.loops) == set(whole.loops)
    assert reduced.exploration.deadlock == whole.exploration.deadlock
    # The farthest state and its image need not be equally far, less so where each VM starts on a pCPU of its own. Small
    # scenarios have many states that are their own image.
    slack = 1 if scenario.cpus == 1 else 3
    assert whole.exploration.depth - slack <= reduced.exploration.depth <= whole.exploration.depth
    assert whole.exploration.states / 2 <= reduced.exploration.states < 0.75 * whole.exploration.states


@pytest.mark.parametrize(("design", "scenario"), APART, ids=lambda one: one.name)
def test_independence_keeps_every_verdict(design, scenario) -> None:
    whole, reduced = judge(design, scenario), judge(design, scenario, reduce=INDEPENDENCE)
    assert lengths(reduced.found) == lengths(whole.found)
    assert lengths(reduced.witnessed) == lengths(whole.witnessed)
    assert set(reduced.loops) == set(whole.loops)


def test_independence_leaves_transitions_out_where_no_response_is_asked() -> None:
    design, scenario = designs.named("archlbr"), scenarios.named("lend,cpus=2,vcpus=2")
    asked = [claim.name for claim in claims(design, scenario) if claim.kind == "always"]
    whole, reduced = judge(design, scenario, asked), judge(design, scenario, asked, reduce=INDEPENDENCE)
    assert lengths(reduced.found) == lengths(whole.found) == {}
    assert reduced.exploration.edges < 0.6 * whole.exploration.edges


@pytest.mark.parametrize(
    ("bug", "scenario"),
    [("put-owner", "roam"), ("get-here", "ioctl"), ("put-user", "ioctl"), ("start-enable", "roam-traced")],
)
def test_independence_finds_a_seeded_bug_in_as_many_steps(bug: str, scenario: str) -> None:
    design, place = seeded(bug), scenarios.named(scenario)
    asked = [claim.name for claim in claims(design, place) if claim.kind == "always"]
    whole, reduced = judge(design, place, asked), judge(design, place, asked, reduce=INDEPENDENCE)
    assert whole.found
    assert lengths(reduced.found) == lengths(whole.found)


@pytest.mark.parametrize(("design", "scenario"), APART, ids=lambda one: one.name)
def test_what_is_local_commutes_with_all_that_another_pcpu_does(design, scenario) -> None:
    host, graph = designs.model(design, scenario), Graph()
    explore(host, [], graph=graph, limit=2000)
    local, met = reduction.local(scenario), 0
    for world in graph.states:
        ways = {action: host.next(world, action) for action in host.actions(world)}
        for mine, after in ways.items():
            if not local(world, mine) or after is None:
                continue
            for theirs, other in ways.items():
                if theirs[1] == mine[1]:
                    continue
                assert theirs in host.actions(after)
                there = host.next(after, theirs)
                if other is None:
                    assert there is None
                    continue
                back = host.next(other, mine)
                assert there is not None
                assert back is not None
                assert there._replace(seen=0) == back._replace(seen=0)
                assert (there.seen, after.seen) == (other.seen, back.seen)
                met += 1
    assert met > 0 or scenario.name.startswith("roam")  # its other pCPU has nothing to do but to switch


def test_a_reduced_lasso_is_one() -> None:
    design, scenario = designs.named("request"), scenarios.named("neighbours-traced")
    found = judge(design, scenario, reduce=SYMMETRY)
    host = designs.model(design, scenario)
    assert "L1" in found.loops
    state = host.initial()[0]
    for action in found.found["L1"]:
        state = host.next(state, action)
    start, passed = state, []
    for action in found.loops["L1"]:
        passed.append(state)
        assert any(vcpu.starved for vcpu in state.vcpus)
        state = host.next(state, action)
    assert state == start
    taken = {class_of(action) for action in found.loops["L1"]}
    fair = next(claim.fair for claim in claims(design, scenario) if claim.name == "L1")
    for name in set(fair) - taken:
        assert any(
            name not in {class_of(action) for action in host.actions(world) if host.next(world, action) is not None}
            for world in passed
        ), name
