"""Shards in this process and in worker processes: the same results in the same order, and an end when told to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from archlbr.check.campaign import Shard, Watch, by_weight, in_processes, in_turn
from archlbr.check.explore import explore
from archlbr.errors import InputError
from tests.check import work
from tests.check.classics import CounterRace

if TYPE_CHECKING:
    from pathlib import Path

RACES = [Shard(f"race {threads}", (threads,), weight=threads) for threads in (2, 4, 1, 3, 2)]


def test_the_heaviest_shards_begin_first_and_equal_ones_in_their_order() -> None:
    assert by_weight(RACES) == [1, 3, 0, 4, 2]


def test_processes_return_what_this_one_does_in_the_shards_order() -> None:
    told: list[tuple[int, int]] = []
    watch = Watch(ended=lambda _name, done, of: told.append((done, of)))
    results = in_processes(2)(work.race, RACES, watch)
    expected = [explore(CounterRace(*shard.arguments), []) for shard in RACES]
    assert [found for found, _ in results] == expected
    assert [found for found, _ in in_turn(work.race, RACES, Watch())] == expected
    assert os.getpid() not in {process for _, process in results}
    assert told == [(done, 5) for done in range(1, 6)]


def test_one_job_or_one_shard_starts_no_process() -> None:
    assert {process for _, process in in_processes(1)(work.race, RACES, Watch())} == {os.getpid()}
    assert in_processes(2)(work.race, RACES[:1], Watch())[0][1] == os.getpid()


@pytest.mark.parametrize("jobs", [1, 2])
def test_who_is_stopped_hands_in_what_is_done(jobs: int, tmp_path: Path) -> None:
    shards = [Shard(f"endless {number}", (str(tmp_path),)) for number in range(8)]
    results = in_processes(jobs)(work.endless, shards, Watch(stopped=lambda: len(os.listdir(tmp_path)) == jobs))
    done = [result for result in results if result is not None]
    assert 1 <= len(done) <= 2 * jobs
    assert min(done) > 0


def test_a_search_that_was_stopped_says_incomplete() -> None:
    found = in_turn(work.dinner, [Shard("dinner", (10,))], Watch(stopped=iter([False, True]).__next__))[0]
    assert not found.complete


def test_a_worker_that_dies_is_one_line() -> None:
    with pytest.raises(InputError, match=r"a worker process died at .*--jobs 1"):
        in_processes(2)(work.dies, [Shard("one", ()), Shard("two", ())], Watch())


def test_our_own_error_in_a_worker_is_raised() -> None:
    with pytest.raises(ZeroDivisionError, match="ours"):
        in_processes(2)(work.wrong, [Shard("one", ()), Shard("two", ())], Watch())
