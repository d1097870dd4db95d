"""How fast profiles are written, merged and read, and that memory stays flat.

    python -m bench.profile_writer [SAMPLES] [ROUNDS]

Each figure is measured in a process of its own: 32-deep samples, a batch of 4096 at a time, the file included. `full`
stacks have 32 entries each, `mixed` ones 0 to 32. Memory is the peak growth over the state after the imports and the
input, and is taken at a tenth of the samples too: flat means that both agree. Prints a table for docs/benchmarks.md.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from archlbr.profile.perfdata.attr import branch_attr
from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.perfdata.spool import Spool, merge
from archlbr.profile.perfdata.writer import Writer
from archlbr.profile.stack import Mapping
from archlbr.profile.validate import validate
from bench.figures import peak

if TYPE_CHECKING:
    from archlbr.profile.perfdata.stream import RecordStream

BATCH = 4096
DEPTH = 32
ATTR = branch_attr("branches:u", 101)
CODE = Mapping(0x400000, 0x200000, 0, "/opt/program", bytes(20))


def record(stream: RecordStream, pid: int, samples: int, mixed: bool) -> None:
    """Write a recording of straight lines: each branch ends where the next newer one's line begins."""
    draw = np.random.default_rng(1)
    stacks = np.empty((BATCH, DEPTH, 3), dtype=np.uint64)
    # A program of 2000 straight lines.
    lines = draw.integers(0x400000, 0x500000, 2000, dtype=np.uint64)
    stacks[:, :, 1] = lines[draw.integers(0, len(lines), (BATCH, DEPTH))]
    stacks[:, :-1, 0] = stacks[:, 1:, 1] + np.uint64(64)
    stacks[:, -1, 0] = 0x400040
    stacks[:, :, 2] = draw.integers(0, 6, (BATCH, DEPTH), dtype=np.uint64) << np.uint64(56)
    counts = draw.integers(0, DEPTH + 1, BATCH) if mixed else np.full(BATCH, DEPTH)
    stream.comm(pid, pid, 0, "program", exec=True)
    stream.mmap2(pid, pid, 0, CODE)
    for at in range(0, samples, BATCH):
        rows = min(BATCH, samples - at)
        times = np.arange(at, at + rows, dtype=np.uint64) * np.uint64(101)
        stream.samples(pid, pid, times, stacks[:rows, 0, 1], 101, stacks[:rows], counts[:rows])


def measure(job: str, samples: int) -> None:
    """Do one job in this process and print its seconds and the KiB by which the peak grew."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        kind, _, variant = job.partition(" ")
        mixed = variant == "mixed"
        processes = 4 if variant == "4 processes" else 1
        spools = [folder / f"spool{number}" for number in range(processes)]
        if kind == "merge":
            for number, path in enumerate(spools):
                spool = Spool(path, ATTR)
                record(spool, number + 1, samples // processes, mixed)
        if kind in ("read", "validate"):
            with Writer(folder / "perf.data", ATTR) as profile:
                record(profile, 1, samples, mixed)
        before, start = peak(), time.perf_counter()
        if kind == "write":
            with Writer(folder / "perf.data", ATTR) as profile:
                record(profile, 1, samples, mixed)
        elif kind == "merge":
            with Writer(folder / "perf.data", ATTR) as profile:
                merge(spools, profile)
        else:
            with Reader(folder / "perf.data") as found:
                total = sum(map(len, found.samples())) if kind == "read" else validate(found).samples
            assert total == samples
        print(time.perf_counter() - start, peak() - before)


JOBS = ("write full", "write mixed", "merge full", "merge 4 processes", "read full", "validate full")


def run(job: str, samples: int) -> tuple[float, int]:
    """Return seconds and KiB of one job in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.profile_writer", "--job", job, str(samples)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    seconds, kib = done.stdout.split()
    return float(seconds), int(kib)


def table(samples: int = 1_000_000, rounds: int = 3) -> list[str]:
    """Measure every job and return the lines of the table."""
    lines = [
        f"{samples:,} samples of {DEPTH} entries, median of {rounds} (slowest to fastest); memory is the growth of the "
        "peak, at a tenth of the samples and at all.",
        "",
        "| job | samples a second | MiB at a tenth | MiB at all |",
        "|---|---|---|---|",
    ]
    for job in JOBS:
        runs = [run(job, samples) for _ in range(rounds)]
        rates = sorted(samples / seconds for seconds, _ in runs)
        small = run(job, samples // 10)[1]
        lines.append(
            f"| {job} | {statistics.median(rates):,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f}) "
            f"| {small / 1024:.1f} | {max(kib for _, kib in runs) / 1024:.1f} |"
        )
    return lines


def main() -> None:
    """Measure one job in this process, or every job, and print what came out."""
    if sys.argv[1:2] == ["--job"]:
        measure(sys.argv[2], int(sys.argv[3]))
        return
    print("\n".join(table(*(int(word) for word in sys.argv[1:3]))))


if __name__ == "__main__":
    main()
