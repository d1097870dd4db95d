"""The manifest: verdict, states, transitions and depth of each design in each scenario, pinned.

A change of the model that changes a number must change the manifest with it: `python -m bench.check_manifest --write`.
The largest explorations are compared only where ARCHLBR_ALL_SCENARIOS is set.
"""

from __future__ import annotations

import os

import pytest
from bench.check_manifest import MANIFEST, entry, pairs, read

from archlbr.contract import designs, scenarios
from archlbr.contract.verdicts import judge

SMALL = 30_000


def test_the_manifest_names_each_exploration_once() -> None:
    assert list(read()) == [f"{design.name}/{scenario.name}" for design, scenario in pairs()]


@pytest.mark.parametrize("name", list(read()))
def test_an_exploration_is_as_the_manifest_says(name: str) -> None:
    told = read()[name]
    if told["states"] > SMALL and "ARCHLBR_ALL_SCENARIOS" not in os.environ:
        pytest.skip(f"{told['states']:,} states: set ARCHLBR_ALL_SCENARIOS to explore them")
    design, scenario = name.split("/")
    found = entry(judge(designs.named(design), scenarios.named(scenario)))
    assert found == {key: value for key, value in told.items() if key != "seconds"}, f"{MANIFEST} is out of date"
