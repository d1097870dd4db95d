"""`check --cluster`: the same table as here, though one of two workers is killed half-way."""

from __future__ import annotations

import signal

import pytest

from archlbr.check.campaign import Watch
from archlbr.check.cluster import on_cluster
from archlbr.contract import designs
from archlbr.contract.table import explored
from tests.check.dask_cluster import cluster
from tests.cli.recording import ARCHLBR, run

pytest.importorskip("distributed", reason="distributed is missing (pip install 'archlbr[cluster]')")
CHOSEN = ["vlbr-6.12", "archlbr"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory):
    with cluster(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield running


def test_scenarios_and_bounds_on_a_cluster_are_what_they_are_here(two) -> None:
    words = [
        "check",
        *CHOSEN,
        "--scenario",
        "lend",
        "--scenario",
        "alone",
        "--bound",
        "records=1,2",
        "--format",
        "json",
    ]
    here = run([*ARCHLBR, *words, "--jobs", "1"])
    there = run([*ARCHLBR, *words, "--cluster", two.address])
    assert (there.status, there.out) == (here.status, here.out)
    assert here.status == 1
    assert there.err.splitlines()[0].startswith(b"8 explorations, complete")


def test_seeds_on_a_cluster_are_what_they_are_here(two) -> None:
    words = ["check", "vlbr-6.12", "--walks", "20", "--seed", "5"]
    here, there = run([*ARCHLBR, *words, "--jobs", "2"]), run([*ARCHLBR, *words, "--cluster", two.address])
    assert there == here
    assert b"from 20 seeds" in here.out


def test_a_table_is_the_same_though_a_worker_is_killed_half_way(two) -> None:
    chosen = [designs.named(name) for name in CHOSEN]
    ended: list[str] = []

    def half(name: str, done: int, of: int) -> None:
        ended.append(name)
        if done == of // 2:
            two.workers[0].send_signal(signal.SIGKILL)

    found = explored(chosen, small=True, run=on_cluster(two.address), watch=Watch(ended=half))
    assert found == explored(chosen, small=True)
    assert found.complete
    assert two.workers[0].wait(10) == -signal.SIGKILL
    assert len(ended) == len(found.outcomes) == 68


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cluster", "nowhere"], "'nowhere' is no scheduler's address"),
        (["--cluster", "tcp://127.0.0.1:9", "--jobs", "2"], "give one of them"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(arguments, message) -> None:
    told = run([*ARCHLBR, "check", "archlbr", "--scenario", "lend", *arguments])
    assert (told.status, told.out) == (2, b"")
    assert message in told.err.decode()
    assert len(told.err.splitlines()) == 1
