"""The same model in Promela: spin and the explorer agree on the verdict and on the number of distinct states."""

from __future__ import annotations

import pytest

from archlbr.check.explore import explore
from tests.check.classics import Philosophers
from tests.check.spin import needs_spin, search

PHILOSOPHERS = """
byte at[{count}];
active proctype table() {{
    do
{options}
    od
}}
"""


def promela(count: int) -> str:
    options = []
    for i in range(count):
        left, right = (i - 1) % count, (i + 1) % count
        options += [
            f"    :: d_step {{ at[{i}] == 0 && at[{left}] != 2 -> at[{i}] = 1 }}",
            f"    :: d_step {{ at[{i}] == 1 && at[{right}] == 0 -> at[{i}] = 2 }}",
            f"    :: d_step {{ at[{i}] == 2 -> at[{i}] = 0 }}",
        ]
    return PHILOSOPHERS.format(count=count, options="\n".join(options))


@needs_spin
@pytest.mark.foreign
def test_spin_finds_the_same_states_and_the_same_deadlock(tmp_path) -> None:
    ours = explore(Philosophers(12), [])
    assert ours.states >= 10_000
    assert search(tmp_path, promela(12), "-E").states == ours.states
    assert ours.deadlock is not None
    assert search(tmp_path, promela(12)).errors == 1
