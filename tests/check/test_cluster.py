"""Shards on a cluster of two worker processes: the same results, though one of the two is killed half-way."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

import archlbr
from archlbr.check.campaign import Shard, Watch
from archlbr.check.cluster import identity, on_cluster
from archlbr.check.explore import explore
from archlbr.errors import InputError
from tests.check import work
from tests.check.classics import CounterRace
from tests.check.dask_cluster import arrived, cluster, scheduler, worker

pytest.importorskip("distributed", reason="distributed is missing (pip install 'archlbr[cluster]')")
SHARDS = [Shard(f"race {n}", (2 + n % 3, 0.05), weight=n % 3) for n in range(24)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory):
    with cluster(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield running


def test_our_own_error_on_a_worker_is_raised(two) -> None:
    with pytest.raises(ZeroDivisionError, match="ours"):
        on_cluster(two.address)(work.wrong, [Shard("wrong", ())], Watch())


def test_who_is_stopped_gets_what_is_done(two, tmp_path) -> None:
    shards = [Shard(f"endless {number}", (str(tmp_path),)) for number in range(6)]
    results = on_cluster(two.address)(work.endless, shards, Watch(stopped=lambda: len(os.listdir(tmp_path)) == 2))
    done = [result for result in results if result is not None]
    assert len(done) == 2  # one a worker; the others were not begun
    assert min(done) > 0


def test_a_worker_of_another_version_is_refused_by_name(two, tmp_path) -> None:
    other = tmp_path / "other"
    shutil.copytree(Path(archlbr.__file__).parent, other / "archlbr", ignore=shutil.ignore_patterns("__pycache__"))
    (other / "archlbr" / "__init__.py").write_text('"""Another."""\n\n__version__ = "0.0.9"\n')
    stranger = worker(tmp_path, "stranger", two.address, sources=other)
    try:
        arrived(two.address, 3)
        with pytest.raises(InputError, match=rf"^worker tcp://\S+ runs archlbr 0\.0\.9 .*{identity().sources}") as told:
            on_cluster(two.address)(work.race, SHARDS, Watch())
        assert "\n" not in str(told.value)
    finally:
        stranger.kill()
        stranger.wait()


def test_the_result_is_the_same_though_a_worker_is_killed_half_way(two) -> None:
    # Last of those that need two: the victim does not come back.
    def half(_name: str, done: int, of: int) -> None:
        if done == of // 2:
            two.workers[0].send_signal(signal.SIGKILL)

    results = on_cluster(two.address)(work.race, SHARDS, Watch(ended=half))
    assert [found for found, _ in results] == [explore(CounterRace(shard.arguments[0]), []) for shard in SHARDS]
    assert two.workers[0].wait(60) == -signal.SIGKILL
    # The one that was killed had handed in results; the other did the rest.
    by = [process for _, process in results]
    assert set(by) == {hand.pid for hand in two.workers}
    assert by.count(two.workers[1].pid) > len(SHARDS) // 3


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "no scheduler's address"),
        ("udp://127.0.0.1:1", "no scheduler's address"),
        ("tcp://127.0.0.1:9", "cannot reach a dask scheduler at tcp://127.0.0.1:9"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(address: str, message: str, monkeypatch) -> None:
    monkeypatch.setattr("archlbr.check.cluster.REACH", 1.0)
    with pytest.raises(InputError, match=message) as told:
        on_cluster(address)(work.race, SHARDS, Watch())
    assert "\n" not in str(told.value)


def test_a_cluster_without_workers_is_one_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("archlbr.check.cluster.REACH", 5.0)
    head, address = scheduler(tmp_path)
    try:
        with pytest.raises(InputError, match=f"has no worker: start `dask worker {address}`"):
            on_cluster(address)(work.race, SHARDS, Watch())
    finally:
        head.kill()
        head.wait()


@pytest.mark.parametrize(
    ("victim", "message"), [("scheduler", "the cluster went away"), ("worker", "no worker is left, ")]
)
def test_what_was_done_before_the_cluster_was_lost_is_kept(victim: str, message: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("archlbr.check.cluster.PATIENCE", 1.0)
    head, address = scheduler(tmp_path)
    hand = worker(tmp_path, "hand", address)
    said: list[str] = []

    def cut(_name: str, done: int, _of: int) -> None:
        if done == 3:
            (head if victim == "scheduler" else hand).send_signal(signal.SIGKILL)

    try:
        arrived(address, 1)
        results = on_cluster(address)(work.race, SHARDS, Watch(ended=cut, says=said.append))
    finally:
        for process in (head, hand):
            process.kill()
            process.wait()
    assert 3 <= len([result for result in results if result is not None]) < len(SHARDS)
    assert len(said) == 1
    assert said[0].startswith(message)


def test_without_the_extra_the_way_out_is_named(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'archlbr\[cluster\]'"):
        on_cluster("tcp://127.0.0.1:9")(work.race, SHARDS, Watch())
