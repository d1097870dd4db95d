"""Branch stacks made without any of our engine: a native single-step trace, cut into LBR snapshots.

The trace comes from the stepper of tests/oracle; the snapshot is what `depth` LBRs would hold after every `period`-th
branch, newest first, with the BR_TYPE codes of the manual (SDM vol. 4, IA32_LBR_x_INFO) written out here once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from elftools.elf.elffile import ELFFile

from archlbr.profile.perfdata.attr import branch_attr
from archlbr.profile.perfdata.features import About
from archlbr.profile.perfdata.writer import Writer
from archlbr.profile.stack import Mapping

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BR_TYPE = {"COND": 0, "IND_JMP": 1, "REL_JMP": 2, "IND_CALL": 3, "REL_CALL": 4, "RET": 5, "OTHER": 8}
PID = 4242


class Trace(NamedTuple):
    """Every taken branch of a run, uint64[n, 2] of (from, to) with its kind's name, and the mappings it ran in."""

    branches: NDArray[np.uint64]
    kinds: list[str]
    mappings: list[Mapping]
    output: str


def build_id(path: str) -> bytes:
    """Return an ELF file's build-id, empty when it has none."""
    if not path.startswith("/"):
        return b""
    with open(path, "rb") as file:
        section = ELFFile(file).get_section_by_name(".note.gnu.build-id")
        return bytes.fromhex(next(section.iter_notes())["n_desc"]) if section else b""


def read_trace(path: Path, output: str) -> Trace:
    """Return a stepper's trace."""
    branches, kinds, mappings = [], [], []
    for line in path.read_text().splitlines():
        words = line.split()
        if words[:2] == ["#", "mmap"]:
            start, end, pgoff = (int(word, 16) for word in words[3:6])
            name = words[6] if len(words) > 6 else ""
            mappings.append(Mapping(start, end - start, pgoff, name, build_id(name)))
        elif words[0] != "#":
            branches.append((int(words[1], 16), int(words[2], 16)))
            kinds.append(words[3])
    return Trace(np.array(branches, dtype=np.uint64), kinds, mappings, output)


class Snapshots(NamedTuple):
    """LBR snapshots: stacks uint64[n, depth, 3], counts [n], and the index of the newest branch of each."""

    stacks: NDArray[np.uint64]
    counts: NDArray[np.int64]
    at: NDArray[np.int64]


def snapshots(trace: Trace, depth: int, period: int) -> Snapshots:
    """Return what `depth` LBRs hold after every `period`-th branch."""
    at = np.arange(period - 1, len(trace.branches), period)
    index = at[:, np.newaxis] - np.arange(depth)
    valid = index >= 0
    index = np.maximum(index, 0)
    codes = np.array([BR_TYPE[kind] for kind in trace.kinds], dtype=np.uint64)
    # Every seventh branch was mispredicted, and each took as many cycles as its number's low bits.
    number = np.arange(len(codes), dtype=np.uint64)
    info = codes << np.uint64(56) | np.uint64(1 << 60) | (number & np.uint64(63))
    info |= (number % np.uint64(7) == 0).astype(np.uint64) << np.uint64(63)
    stacks = np.empty((len(at), depth, 3), dtype=np.uint64)
    stacks[:, :, :2] = trace.branches[index]
    stacks[:, :, 2] = info[index]
    stacks[~valid] = 0
    return Snapshots(stacks, valid.sum(axis=1), at)


def write(path: Path, trace: Trace, shots: Snapshots, period: int, event: str = "branches:u") -> None:
    """Write the snapshots as a perf.data file."""
    with Writer(path, branch_attr(event, period), About(("hot",), shots.stacks.shape[1])) as profile:
        profile.comm(PID, PID, 0, "hot", exec=True)
        for mapping in trace.mappings:
            profile.mmap2(PID, PID, 0, mapping)
        times = (shots.at.astype(np.uint64) + np.uint64(1)) * np.uint64(5000)
        profile.samples(PID, PID, times, shots.stacks[:, 0, 1], period, shots.stacks, shots.counts)
