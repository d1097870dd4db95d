"""A scenario of the contract, written a second time in Promela: the same verdicts, the same number of states."""

from __future__ import annotations

from pathlib import Path

import pytest

from archlbr.contract import designs, scenarios
from archlbr.contract.verdicts import judge
from tests.check.spin import needs_spin, search

NEIGHBOURS = (Path(__file__).parent / "neighbours.pml").read_text(encoding="utf-8")
BITS = {"S2": 1, "S4": 2, "S5": 4, "G1": 8, "C1": 16, "H4": 32}


@needs_spin
@pytest.mark.foreign
def test_spin_finds_the_states_and_the_verdicts_of_two_neighbours(tmp_path) -> None:
    ours = judge(designs.named("vlbr-6.12"), scenarios.named("neighbours"))
    assert ours.exploration.complete
    assert ours.exploration.states >= 10_000
    assert search(tmp_path, NEIGHBOURS, "-E").states == ours.exploration.states
    for name, bit in BITS.items():
        watched = NEIGHBOURS + f"\nactive proctype watch() {{ end: (seen & {bit}) -> assert(false) }}\n"
        assert search(tmp_path, watched, "-E").errors == int(name in ours.found), name
