"""A test's answer depends on the tree alone: Hypothesis draws the same each time and does not look at the clock."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st


def drawn() -> list[int]:
    found: list[int] = []

    @settings(max_examples=20)
    @given(st.integers())
    def draw(value: int) -> None:
        found.append(value)

    draw()
    return found


def test_the_same_is_drawn_each_time() -> None:
    assert drawn() == drawn()


@settings(max_examples=1)
@given(st.just(0.3))
def test_a_busy_machine_makes_no_example_too_slow(seconds: float) -> None:
    time.sleep(seconds)
