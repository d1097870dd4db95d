"""A dask.distributed cluster of processes on this machine: a scheduler and workers that a test may kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SECONDS = 60


class Cluster(NamedTuple):
    """address: the scheduler's. workers: the processes."""

    address: str
    workers: list[subprocess.Popen[bytes]]


def start(folder: Path, name: str, *words: str, sources: Path | None = None) -> subprocess.Popen[bytes]:
    """Start `python -m dask` with words; sources: another tree than the tests' own to import archlbr from."""
    path = [str(sources)] if sources else []
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(ROOT), str(ROOT / "src")])},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def worker(folder: Path, name: str, address: str, sources: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a worker of one thread and without a nanny, so that killing it ends it."""
    words = ("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name)
    return start(folder, name, *words, "--local-directory", str(folder), sources=sources)


def scheduler(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a scheduler; return it with its address."""
    told = folder / "scheduler.json"
    words = ("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(told))
    process = start(folder, "scheduler", *words)
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        try:
            return process, json.loads(told.read_text())["address"]
        except (OSError, ValueError):
            time.sleep(0.1)
    process.kill()
    process.wait()
    raise AssertionError((folder / "scheduler.log").read_text())


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """Yield a cluster whose workers have all arrived; end its processes."""
    head, address = scheduler(folder)
    processes = [head]
    try:
        hands = [worker(folder, f"worker{number}", address) for number in range(workers)]
        processes += hands
        arrived(address, workers)
        yield Cluster(address, hands)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def arrived(address: str, workers: int) -> None:
    """Wait until so many workers are there."""
    from distributed import Client

    with Client(address, timeout=SECONDS, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=SECONDS)
