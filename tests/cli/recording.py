"""Run a program natively and under `archlbr`, and read what the recording says."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ARCHLBR = (sys.executable, "-m", "archlbr")
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "LD_BIND_NOW": "1", "NO_COLOR": "1"}


class Ended(NamedTuple):
    """How a program ended: its status as a shell gives it, and what it wrote."""

    status: int
    out: bytes
    err: bytes


def start(command: Sequence[str | os.PathLike[str]], cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a program with nothing on standard input, in a session of its own."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for_work(session: int, seconds: float = 2.5, patience: float = 120) -> None:
    """Wait until the processes of a session have computed for some seconds, however busy the machine is."""
    end = time.monotonic() + patience
    while worked(session) < seconds:
        assert time.monotonic() < end, f"session {session} does not compute"
        time.sleep(0.05)


def worked(session: int) -> float:
    """Return the seconds that the processes of a session which still run have computed."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = process.read_text().rpartition(") ")[2].split()
            if int(fields[3]) == session:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment every program here runs in: what the tests were started with decides where caches lie."""
    kept = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR") if name in os.environ}
    return {**kept, **ENVIRONMENT, **(extra or {})}


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    stdin: bytes = b"",
    cwd: Path | None = None,
    extra: Mapping[str, str] | None = None,
    seconds: float = 120,
) -> Ended:
    """Run a program to its end."""
    done = subprocess.run(
        command, input=stdin, cwd=cwd, env=environment(extra), capture_output=True, timeout=seconds, check=False
    )
    status = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return Ended(status, done.stdout, done.stderr)


def archlbr(*words: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
    """Return the command line of a verb; a program runs on Unicorn where the words name no engine."""
    if words[0] in ("record", "trace") and "--engine" not in words:
        words = (words[0], "--engine", "unicorn", *words[1:])
    return [*ARCHLBR, *words]


WROTE = re.compile(rb"\[ archlbr record: wrote \d+\.\d{3} MB (\S+) \((\d+) samples?\) \]\n\Z")


NOT_STRAIGHT = re.compile(rb"archlbr: \d+ of \d+ stretches between branches are no straight line; .*\n\Z")


def record(
    *words: str | os.PathLike[str],
    stdin: bytes = b"",
    cwd: Path | None = None,
    extra: Mapping[str, str] | None = None,
    interrupted: bool = False,
    seconds: float = 120,
) -> Ended:
    """Run `archlbr record` with these words; return how the program ended, without the line that says what was written.

    That line must be the last on stderr. With interrupted, it may be followed by word of stacks that are not straight.
    """
    ended = run(archlbr("record", *words), stdin=stdin, cwd=cwd, extra=extra, seconds=seconds)
    err = NOT_STRAIGHT.sub(b"", ended.err) if interrupted else ended.err
    ended = ended._replace(err=err)
    wrote = WROTE.search(err)
    assert wrote is not None, ended
    return ended._replace(err=err[: wrote.start()])


def stats(err: bytes) -> dict[str, str]:
    """Return the pairs of the line that `--stats` ends stderr with."""
    last = err.decode().rstrip("\n").rpartition("\n")[2]
    assert last.startswith("stats: "), err
    return dict(pair.split("=", 1) for pair in last.removeprefix("stats: ").split())


ENTRY = re.compile(r"(0x[0-9a-f]+)/(0x[0-9a-f]+)/[MP-]/")


def script_edges(text: str) -> dict[tuple[int, int], int]:
    """Count the branches of a profile in perf-script text: how often each (from, to) stands in it."""
    edges: dict[tuple[int, int], int] = {}
    for line in text.splitlines():
        if "PERF_RECORD" in line:
            continue
        for source, target in ENTRY.findall(line):
            edge = (int(source, 16), int(target, 16))
            edges[edge] = edges.get(edge, 0) + 1
    return edges


def overlap(one: Mapping[tuple[int, int], int], other: Mapping[tuple[int, int], int]) -> float:
    """Return the degree of overlap of two edge counts: the sum of the smaller share of each edge."""
    whole, all_others = sum(one.values()), sum(other.values())
    return sum(min(count / whole, other.get(edge, 0) / all_others) for edge, count in one.items())
