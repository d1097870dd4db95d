"""The turn goes round in the order of asking."""

from __future__ import annotations

import threading
import time

import pytest

from archlbr.machine.turns import Turns

SECONDS = 60


def wait_for(condition, seconds=SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.0005)


def test_who_asks_first_is_served_first() -> None:
    turns = Turns()
    turns.take()
    order: list[int] = []
    threads = []
    for number in range(12):

        def body(number: int = number) -> None:
            turns.take()
            order.append(number)
            turns.give()

        thread = threading.Thread(target=body)
        thread.start()
        threads.append(thread)
        wait_for(lambda count=number + 1: len(turns._waiting) == count)
    assert turns.wanted
    assert order == []
    turns.give()
    for thread in threads:
        thread.join(SECONDS)
    assert order == list(range(12))
    assert not turns.wanted


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_giver_that_asks_again_comes_after_all_who_wait(count: int) -> None:
    turns = Turns()
    turns.take()
    for _ in range(20):
        order: list[int] = []
        threads = []
        for number in range(count):

            def body(number: int = number, order: list[int] = order) -> None:
                turns.take()
                order.append(number)
                turns.give()

            threads.append(threading.Thread(target=body))
            threads[-1].start()
            wait_for(lambda waiting=number + 1: len(turns._waiting) == waiting)
        turns.give()
        turns.take()
        assert order == list(range(count))
        for thread in threads:
            thread.join(SECONDS)


def test_a_free_turn_is_taken_at_once() -> None:
    turns = Turns()
    for _ in range(3):
        turns.take()
        assert not turns.wanted
        turns.give()
