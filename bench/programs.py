"""User programs, whole processes: natively, recorded, and under the tools people use instead.

    python -m bench programs

Every run's output must be the native one. What is slow runs at a tenth of the size, against a native run of that size.
A tool that is not installed, or that fails, has a dash.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.figures import median, ratio, table

PATH = "/usr/local/bin:/usr/bin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C"}
KEPT = ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "PYTHONPATH")
SECONDS = 300
UNICORN, LACKEY = "record, unicorn, a tenth", "lackey, a tenth"
AT_A_TENTH = (UNICORN, LACKEY)


class Job(NamedTuple):
    """A program: its name, its command line at full size, the same at a tenth."""

    name: str
    full: list[str]
    small: list[str]


def jobs(folder: Path) -> list[Job]:
    """Return the programs that are installed, with inputs made in a folder."""
    draw = random.Random(1)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(2000)]
    for name, lines in (("full", 300000), ("small", 30000)):
        text = "\n".join(" ".join(draw.choices(words, k=8)) for _ in range(lines))
        (folder / name).write_text(text + "\n")
    full, small = str(folder / "full"), str(folder / "small")
    count = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<{}) SELECT sum(x*x%7) FROM c"
    loop = "print(sum(i * i % 7 for i in range({})))"
    perl = "$s=0; $h{{$_ % 97}} += $_ for 1..{}; $s += $h{{$_}} for sort keys %h; print qq($s\\n)"
    shell = "for n in $(seq {}); do /bin/true; done"
    listed = [
        Job("gzip", ["gzip", "-c", full], ["gzip", "-c", small]),
        Job("sort", ["sort", full], ["sort", small]),
        Job("sqlite3", ["sqlite3", ":memory:", count.format(3000000)], ["sqlite3", ":memory:", count.format(300000)]),
        Job("python3", ["python3", "-S", "-c", loop.format(10000000)], ["python3", "-S", "-c", loop.format(1000000)]),
        Job("perl", ["perl", "-e", perl.format(10000000)], ["perl", "-e", perl.format(1000000)]),
        Job("xz", ["xz", "-1", "-T1", "-c", full], ["xz", "-1", "-T1", "-c", small]),
        Job("sh, 500 children", ["sh", "-c", shell.format(500)], ["sh", "-c", shell.format(50)]),
    ]
    found = []
    for job in listed:
        # A position-independent program where there are two: the emulator lies where the other kind is linked.
        program = shutil.which(job.full[0], path="/usr/bin:/bin") or shutil.which(job.full[0], path=PATH)
        if program:
            found.append(Job(job.name, [program, *job.full[1:]], [program, *job.small[1:]]))
    return found


def tools(folder: Path) -> dict[str, list[str]]:
    """Return what stands before a command line for each tool."""
    record = [str(Path(sys.executable).parent / "archlbr"), "record", "-o", str(folder / "perf.data")]
    out = f"--callgrind-out-file={folder / 'callgrind'}"
    valgrind = ["valgrind", "-q", "--trace-children=yes", f"--log-file={folder / 'log'}"]
    return {
        "native": [],
        "record": [*record, "--"],
        UNICORN: [*record, "--engine", "unicorn", "--"],
        "callgrind": [*valgrind, "--tool=callgrind", "--collect-jumps=yes", out],
        LACKEY: [*valgrind, "--tool=lackey"],
        "qemu-x86_64": ["qemu-x86_64"],
    }


class Timed(NamedTuple):
    """A run: seconds, what it said on stderr, status, output."""

    seconds: float
    said: str
    status: int
    out: bytes


def run(command: list[str]) -> Timed | None:
    """Run a command to its end; None when it is not there, or takes too long."""
    environment = {**ENVIRONMENT, **{name: os.environ[name] for name in KEPT if name in os.environ}}
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=SECONDS,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return Timed(time.perf_counter() - begin, done.stderr.decode(errors="replace"), done.returncode, done.stdout)


def measure(rounds: int = 3) -> list[str]:
    """Return the section: medians of alternating rounds, and the slowdown round by round."""
    rows = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        before = tools(folder)
        for job in jobs(folder):
            seconds: dict[str, list[float]] = {tool: [] for tool in (*before, "small")}
            broken = set()
            engine = "-"
            for turn in range(rounds + 1):  # the first warms caches and does not count
                plain, small = run(job.full), run(job.small)
                assert plain is not None, job
                assert small is not None, job
                for tool, prefix in before.items():
                    size, expected = (job.small, small) if tool in AT_A_TENTH else (job.full, plain)
                    found = plain if tool == "native" else None if tool in broken else run([*prefix, *size])
                    if found is None or found[2:] != expected[2:]:
                        broken.add(tool)
                        continue
                    if tool == "record" and (told := re.search(r"runs on (\w+)", found.said)):
                        engine = told[1]
                    if turn:
                        seconds[tool].append(found.seconds)
                if turn:
                    seconds["small"].append(small.seconds)
            row = [job.name, median(seconds["native"], "s", 2), engine]
            for tool in list(before)[1:]:
                base = seconds["small"] if tool in AT_A_TENTH else seconds["native"]
                row.append("-" if tool in broken else ratio(seconds[tool], base).replace(" x", ""))
            rows.append(row)
    return [
        f"Whole processes, {rounds} alternating rounds: seconds natively, the engine that `archlbr record` chose, then "
        "times the native run's. `callgrind` with `--collect-jumps=yes`; both with `--trace-children=yes`. "
        "What is slow runs at a tenth of the size, against a native run of that size; there the start-up weighs most. "
        "Bare QEMU lets children run natively.",
        "",
        *table(["program", "native", "engine", *(tool for tool in before if tool != "native")], rows),
    ]
