"""The truth of a run, out of its exact trace, and how far a profile is from it.

`bench.accuracy` prints what this finds. An edge is counted as (file, offset) on both sides, since libraries lie
elsewhere in each run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from archlbr.arch.branches import BranchKind
from archlbr.machine.supervise import run_guest
from archlbr.profile.edges import EdgeCounter, EdgeTable, count_edges
from archlbr.profile.maps import AddressSpaces
from archlbr.profile.overlap import overlap
from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.stack import Mapping, Mmap, Words
from archlbr.profile.trace import Branches, Note, read
from bench.accuracy_programs import ENVIRONMENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE_SHIFT = 48
# Addresses are hashed by what runs: the same ones in each run, where setarch is there to ask for them.
UNRANDOMISED = ("setarch", "-R") if shutil.which("setarch") else ()
DEEPEST = 32
# Where this room is found without telling the guest, which would look for its own modules there, too.
_ROOT = Path(__file__).parent.parent
_CALLS = (int(BranchKind.REL_CALL), int(BranchKind.IND_CALL))
_RET = int(BranchKind.RET)


class Files:
    """Numbers for files, the same in each run."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, path: str) -> int:
        """Return a file's number; 0 is no file."""
        return self.numbers.setdefault(path, len(self.numbers) + 1)

    def keys(self, spaces: AddressSpaces, pids: NDArray[np.int32], times: Words, addresses: Words) -> Words:
        """Return file and offset of each address in one word."""
        found = spaces.lookup(pids, times, addresses)
        rows = [(self.number(row.path), (row.start - row.pgoff) % (1 << 64)) for row in spaces.mappings] + [(0, 0)]
        table = np.array(rows, dtype=np.uint64)[found]
        return (table[:, 0] << np.uint64(FILE_SHIFT)) | (addresses - table[:, 1])


class Truth(NamedTuple):
    """An exact run. branches: how many. edges: each counted. targets: TO of each `stacks_every`th branch, with its call
    stack (FROM of each call, newest first, uint64[n, 32]) and depth.
    """

    files: Files
    branches: int
    edges: EdgeTable
    targets: Words
    stacks: Words
    depths: NDArray[np.int64]


def trace(words: tuple[str, ...], folder: Path, stacks_every: int = 0) -> Truth:
    """Run a program under the exact tracer and count its edges; its call stack at every `stacks_every`th branch."""
    spools = folder / "spools"
    spools.mkdir()
    # A process of its own, since the tracer's process becomes the guest's parent.
    subprocess.run(
        [*UNRANDOMISED, sys.executable, "-c", _TRACE, str(spools), *words],
        check=True,
        env={**ENVIRONMENT, "HOME": str(Path.home())},
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # as for the recording: a program asks what its descriptors are
        timeout=600,
    )
    (spool,) = spools.glob("*.trace")
    try:
        return _count(spool, stacks_every)
    finally:
        spool.unlink()
        spools.rmdir()


_TRACE = """
import sys
from pathlib import Path
from bench.accuracy_truth import run_traced
sys.exit(run_traced(Path(sys.argv[1]), sys.argv[2:]))
"""


def run_traced(folder: Path, words: list[str]) -> int:
    """Run a program under the tracer, its spool in `folder`."""
    from archlbr.machine.supervise import find_guest
    from archlbr.recording.tracing import Tracer

    return run_guest(find_guest(words), words, folder, lambda: Tracer(str(folder)))


def _count(spool: Path, stacks_every: int) -> Truth:
    files, counter = Files(), EdgeCounter()
    events: list[Mmap] = []
    spaces = AddressSpaces(events)
    shadow = np.zeros((1 << 16, 2), dtype=np.uint64)
    state = np.zeros(2, dtype=np.int64)  # shadow stack's height, branches so far
    targets, stacks, depths = [], [], []
    done = 0
    for item in read(spool):
        if isinstance(item, Note):
            word, _, rest = item.text.partition(" ")
            if word == "mmap":
                pid, start, end, offset, path = rest.split(" ", 4)
                low, high = int(start, 16), int(end, 16)
                events.append(Mmap(int(pid), int(pid), done, Mapping(low, high - low, int(offset, 16), path)))
                spaces = AddressSpaces(events)
            continue
        if not isinstance(item, Branches):
            continue
        rows = item.rows
        pids = np.full(len(rows), item.tid, dtype=np.int32)
        times = np.full(len(rows), done, dtype=np.uint64)
        sources = files.keys(spaces, pids, times, rows[:, 0])
        goals = files.keys(spaces, pids, times, rows[:, 1])
        counter.add(count_edges(sources, goals))
        if stacks_every:
            room = len(rows) // stacks_every + 1
            out = np.zeros((room, DEEPEST + 2), dtype=np.uint64)
            used = follow(rows, sources, goals, shadow, state, stacks_every, out)
            targets.append(out[:used, 0])
            depths.append(out[:used, 1].astype(np.int64))
            stacks.append(out[:used, 2:])
        done += len(rows)
    empty = np.zeros(0, dtype=np.uint64)
    return Truth(
        files,
        done,
        counter.table(),
        np.concatenate([empty, *targets]),
        np.concatenate([np.zeros((0, DEEPEST), dtype=np.uint64), *stacks]),
        np.concatenate([np.zeros(0, dtype=np.int64), *depths]),
    )


@njit(cache=True)
def follow(rows, sources, goals, shadow, state, every, out):  # type: ignore[no-untyped-def] # compiled
    """Follow calls and returns; write TO, depth and the call stack at every `every`th branch; return how many.

    A return takes away the calls down to the one it returns to: behind it by 2 to 8 bytes.
    """
    used = 0
    height, taken = state[0], state[1]
    for index in range(len(rows)):
        kind = rows[index, 2]
        if kind == 4 or kind == 5:
            if height == len(shadow):
                raise ValueError("calls nest deeper than the shadow stack")
            shadow[height, 0], shadow[height, 1] = rows[index, 0], sources[index]
            height += 1
        elif kind == 6:
            for back in range(height - 1, -1, -1):
                behind = np.int64(rows[index, 1] - shadow[back, 0])
                if 2 <= behind <= 8:
                    height = back
                    break
        taken += 1
        if taken % every == 0:
            out[used, 0] = goals[index]
            out[used, 1] = height
            for frame in range(min(height, 32)):
                out[used, 2 + frame] = shadow[height - 1 - frame, 1]
            used += 1
    state[0], state[1] = height, taken
    return used


assert (4, 5) == _CALLS and _RET == 6  # noqa: PT018, SIM300 - what `follow` was compiled with


def record(words: tuple[str, ...], out: Path, period: int, jitter: int = 0, branches: str = "any") -> Path:
    """Record a program as a user does, and return the profile."""
    subprocess.run(
        [
            *(
                *UNRANDOMISED,
                sys.executable,
                "-m",
                "archlbr",
                "record",
                "--engine",
                "unicorn",
                "-j",
                branches,
                "-c",
                str(period),
            ),
            *("--period-jitter", str(jitter), "-o", str(out), "--", *words),
        ],
        check=True,
        env={**ENVIRONMENT, "HOME": str(Path.home())},
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=600,
    )
    return out


class Comparison(NamedTuple):
    """overlap: of edges. coverage: share of all taken branches whose edge the profile has. seen: those edges."""

    samples: int
    overlap: float
    coverage: float
    seen: int


def compare(truth: Truth, data: Path, depth: int) -> Comparison:
    """Return how a profile's edges, of the newest `depth` entries of each stack, compare with the truth."""
    counter = EdgeCounter()
    samples = 0
    with Reader(data) as profile:
        spaces = AddressSpaces(profile.sideband())
        for batch in profile.samples():
            samples += len(batch)
            entries = batch.entries
            place = np.arange(len(entries)) - np.repeat(batch.offsets[:-1], batch.counts)
            keep = place < depth
            pids, times = np.repeat(batch.pid, batch.counts)[keep], np.repeat(batch.time, batch.counts)[keep]
            sides = [truth.files.keys(spaces, pids, times, entries[side][keep]) for side in ("from", "to")]
            counter.add(count_edges(*sides))
    table = counter.table()
    known = set(zip(table["from"].tolist(), table["to"].tolist(), strict=True))
    hits = np.array(
        [edge in known for edge in zip(*(truth.edges[side].tolist() for side in ("from", "to")), strict=True)]
    )
    covered = int(truth.edges["count"][hits].sum())
    return Comparison(samples, overlap(truth.edges, table), covered / truth.branches, int(np.count_nonzero(hits)))


class StackComparison(NamedTuple):
    """aligned: share of samples at the trace's own branch. Of those: precision, the share of the profile's frames that
    are right; recall, the share of the true frames (the innermost 32) that it has; whole, the share of whole stacks.
    """

    samples: int
    aligned: float
    precision: float
    recall: float
    whole: float


def compare_stacks(truth: Truth, data: Path) -> StackComparison:
    """Return how the call stacks of a profile in call-stack mode compare with the truth at the same branches.

    Of 32 or fewer true frames each counts as right when the profile has the same call at the same depth.
    """
    samples = aligned = said = true = right = whole = 0
    with Reader(data) as profile:
        spaces = AddressSpaces(profile.sideband())
        for batch in profile.samples():
            ips = truth.files.keys(spaces, batch.pid, batch.time, batch.ip)
            pids, times = np.repeat(batch.pid, batch.counts), np.repeat(batch.time, batch.counts)
            sources = truth.files.keys(spaces, pids, times, batch.entries["from"])
            for index in range(len(batch)):
                number, samples = samples, samples + 1
                if number >= len(truth.targets) or truth.targets[number] != ips[index]:
                    continue
                aligned += 1
                depth = min(int(truth.depths[number]), DEEPEST)
                mine = sources[batch.offsets[index] : batch.offsets[index + 1]]
                theirs = truth.stacks[number, :depth]
                common = min(depth, len(mine))
                same = int(np.count_nonzero(mine[:common] == theirs[:common]))
                said, true, right = said + len(mine), true + depth, right + same
                whole += same == depth == len(mine)
    return StackComparison(
        samples, aligned / samples, right / max(said, 1), right / max(true, 1), whole / max(aligned, 1)
    )
