"""The call stacks of a recording in call-stack mode: who called whom, as a tree and as samples.

Fed by `profile.perfdata.reader`; `terminal` and `html` show the tree, `speedscope` writes the samples. In that mode the
LBRs hold the calls that have not returned, newest first (IA32_LBR_CTL.CALL_STACK, reference architecture.md 3.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from archlbr.errors import InputError
from archlbr.profile.maps import AddressSpaces
from archlbr.profile.perfdata.attr import BRANCH_CALL_STACK
from archlbr.profile.perfdata.reader import Reader
from archlbr.report.binaries import recorded
from archlbr.report.counts import Locator
from archlbr.report.names import Names

if TYPE_CHECKING:
    import os

    from archlbr.report.symbols import Place

# Intel's LBRs hold 32; a file that says more is damaged, and its tree would be too deep to walk.
DEEPEST = 64


class Stacks(NamedTuple):
    """Distinct stacks, outermost frame first, and how many samples each has.

    frames: the functions; stacks: (thread, indices into frames); the first frames of a deep stack are lost, as they
    are in the LBRs. left_out: files of which only another build is here.
    """

    frames: tuple[Place, ...]
    stacks: dict[tuple[int, tuple[int, ...]], int]
    threads: dict[int, str]
    left_out: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(self.stacks.values())


class Node(NamedTuple):
    """A frame of the tree. total: samples in it or below; own: in it itself. Callees hottest first."""

    frame: Place
    total: int
    own: int
    callees: tuple[Node, ...]


def is_call_stack(path: str | os.PathLike[str]) -> bool:
    """Say whether a perf.data was recorded in call-stack mode."""
    with Reader(path) as profile:
        return bool(profile.attr.branch_sample_type & BRANCH_CALL_STACK)


def read_stacks(path: str | os.PathLike[str]) -> Stacks:
    """Return the call stacks of a perf.data; InputError when it was not recorded in call-stack mode."""
    from archlbr.profile.stack import Comm

    with Reader(path) as profile:
        if not profile.attr.branch_sample_type & BRANCH_CALL_STACK:
            raise InputError(f"{profile.name} holds no call stacks: record with -j stack, or show its branches")
        sideband = profile.sideband()
        threads = {event.tid: event.name for event in sideband if isinstance(event, Comm)}
        spaces = AddressSpaces(sideband)
        locator = Locator(spaces)
        names = Names(locator.paths, recorded(profile, spaces.mappings))
        numbers: dict[tuple[int, int], int] = {}
        stacks: dict[tuple[int, tuple[int, ...]], int] = {}
        for batch in profile.samples():
            if len(batch) and (deepest := int(batch.counts.max())) > DEEPEST:
                raise InputError(
                    f"{profile.name} has a call stack of {deepest:,} entries, more than any LBRs hold: "
                    "archlbr report --by branch"
                )
            inner = _functions(names, *locator.locate(batch.pid, batch.time, batch.ip), numbers)
            owner, time = np.repeat(batch.pid, batch.counts), np.repeat(batch.time, batch.counts)
            calls = _functions(names, *locator.locate(owner, time, batch.entries["from"]), numbers)
            for index in range(len(batch)):
                low, high = int(batch.offsets[index]), int(batch.offsets[index + 1])
                key = int(batch.tid[index]), (*reversed(calls[low:high]), inner[index])
                stacks[key] = stacks.get(key, 0) + 1
        frames = tuple(names.function(*key) for key in numbers)
        return Stacks(frames, stacks, threads, tuple(sorted(names.left_out)))


def _functions(names: Names, files: np.ndarray, offsets: np.ndarray, numbers: dict[tuple[int, int], int]) -> list[int]:
    found = names.functions(files, offsets)
    return [numbers.setdefault(key, len(numbers)) for key in zip(files.tolist(), found.tolist(), strict=True)]


def call_tree(stacks: Stacks) -> tuple[Node, ...]:
    """Return the stacks of all threads merged into trees, one an outermost frame."""
    return _grow(stacks, [(frames, many) for (_, frames), many in stacks.stacks.items()], 0)


def _grow(stacks: Stacks, rows: list[tuple[tuple[int, ...], int]], depth: int) -> tuple[Node, ...]:
    groups: dict[int, list[tuple[tuple[int, ...], int]]] = {}
    for frames, many in rows:
        if depth < len(frames):
            groups.setdefault(frames[depth], []).append((frames, many))
    nodes = [
        Node(
            stacks.frames[frame],
            sum(many for _, many in group),
            sum(many for frames, many in group if len(frames) == depth + 1),
            _grow(stacks, group, depth + 1),
        )
        for frame, group in groups.items()
    ]
    return tuple(sorted(nodes, key=lambda node: (-node.total, node.frame)))
