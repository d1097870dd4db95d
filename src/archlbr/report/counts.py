"""A profile added up: each distinct branch and straight line once, by file and offset, with its counts.

Fed by `profile.perfdata.reader`; `summary`, `code` and `difference` show what is in it. Addresses are counted as file
and offset, so that processes that load a file at different places add up. Ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from archlbr.errors import InputError
from archlbr.profile.edges import pairs
from archlbr.profile.maps import AddressSpaces
from archlbr.profile.perfdata.attr import BRANCH_ANY, BRANCH_CALL_STACK, BRANCH_STACK
from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.stack import MISPRED, entry_cycles, entry_types
from archlbr.report.binaries import recorded

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from archlbr.profile.stack import Samples, Words

# A branch: its key, then its counts. A file is an index into the list of paths, -1: nothing was mapped. cycles: what
# passed since the branch before, added up over the `timed` entries that say so.
BRANCH = np.dtype(
    [
        ("from_file", "<i8"),
        ("from_offset", "<u8"),
        ("to_file", "<i8"),
        ("to_offset", "<u8"),
        ("type", "u1"),
        ("count", "<u8"),
        ("mispred", "<u8"),
        ("cycles", "<u8"),
        ("timed", "<u8"),
    ]
)
BRANCH_KEY = ("from_file", "from_offset", "to_file", "to_offset", "type")
# A straight line inside a file, from an older branch's TO to the next newer one's FROM.
LINE = np.dtype([("file", "<i8"), ("start", "<u8"), ("end", "<u8"), ("count", "<u8")])
LINE_KEY = ("file", "start", "end")


class Counts(NamedTuple):
    """A profile in numbers. branches: BRANCH[n]; lines: LINE[m], none when the filter leaves branches out."""

    samples: int
    paths: tuple[str, ...]
    command_line: tuple[str, ...]
    build_ids: dict[str, bytes]
    branches: NDArray[np.void]
    lines: NDArray[np.void]

    @property
    def taken(self) -> int:
        """The number of entries in all stacks."""
        return int(self.branches["count"].sum())

    @property
    def timed(self) -> bool:
        """Whether any entry carries a number of cycles."""
        return bool(self.branches["timed"].any())


class Locator:
    """File and offset of addresses: what a profile's mappings say."""

    def __init__(self, spaces: AddressSpaces) -> None:
        self._spaces = spaces
        files = [mapping.path for mapping in spaces.mappings]
        self.paths = tuple(sorted(set(files)))
        numbers = {path: number for number, path in enumerate(self.paths)}
        # One more at the end: lookup's -1 picks it.
        self._file_of = np.array([numbers[name] for name in files] + [-1], dtype=np.int64)
        bases = [(mapping.start - mapping.pgoff) % (1 << 64) for mapping in spaces.mappings]
        self._base_of = np.array([*bases, 0], dtype=np.uint64)

    def locate(self, pids: NDArray[np.int32], times: Words, addresses: Words) -> tuple[NDArray[np.int64], Words]:
        """Return each address's file, -1 where nothing was mapped, and its offset in it (or the address)."""
        number = self._spaces.lookup(pids, times, addresses)
        return self._file_of[number], addresses - self._base_of[number]


def count(path: str | os.PathLike[str]) -> Counts:
    """Return a perf.data added up; InputError when it cannot be read or is damaged."""
    with Reader(path) as profile:
        if not any(row.sample_type & BRANCH_STACK for row in profile.attrs):
            raise InputError(f"{profile.name} has no branch stacks: record with archlbr record, or perf record -b")
        sideband = profile.sideband()
        spaces = AddressSpaces(sideband)
        locator = Locator(spaces)
        kind = profile.attr.branch_sample_type
        complete = bool(kind & BRANCH_ANY) and not kind & BRANCH_CALL_STACK
        branches, lines = np.zeros(0, dtype=BRANCH), np.zeros(0, dtype=LINE)
        samples = 0
        for batch in profile.samples():
            samples += len(batch)
            more, straight = _count(batch, locator, complete)
            branches = fold(np.concatenate([branches, more]), BRANCH_KEY)
            lines = fold(np.concatenate([lines, straight]), LINE_KEY)
        return Counts(samples, locator.paths, profile.command_line, recorded(profile, spaces.mappings), branches, lines)


def _count(batch: Samples, locator: Locator, complete: bool) -> tuple[NDArray[np.void], NDArray[np.void]]:
    entries = batch.entries
    owner, time = np.repeat(batch.pid, batch.counts), np.repeat(batch.time, batch.counts)
    rows = np.zeros(len(entries), dtype=BRANCH)
    for side in ("from", "to"):
        rows[f"{side}_file"], rows[f"{side}_offset"] = locator.locate(owner, time, entries[side])
    rows["type"] = entry_types(entries)
    rows["count"] = 1
    rows["mispred"] = entries["flags"] & np.uint64(MISPRED)
    rows["cycles"] = entry_cycles(entries)
    rows["timed"] = rows["cycles"] > 0
    straight = np.zeros(0, dtype=LINE)
    if complete:
        newer = pairs(batch)
        start, end = rows[newer + 1], rows[newer]
        inside = (start["to_file"] == end["from_file"]) & (start["to_file"] >= 0)
        inside &= start["to_offset"] <= end["from_offset"]
        straight = np.zeros(int(np.count_nonzero(inside)), dtype=LINE)
        straight["file"], straight["start"] = start["to_file"][inside], start["to_offset"][inside]
        straight["end"], straight["count"] = end["from_offset"][inside], 1
    return fold(rows, BRANCH_KEY), fold(straight, LINE_KEY)


def fold(rows: NDArray[np.void], key: Sequence[str]) -> NDArray[np.void]:
    """Return the rows with a distinct key, sorted by it; the other columns are added up."""
    if not len(rows):
        return rows
    rows = rows[np.lexsort([rows[name] for name in reversed(key)])]
    fresh = np.ones(len(rows), dtype=np.bool_)
    fresh[1:] = np.logical_or.reduce([rows[name][1:] != rows[name][:-1] for name in key])
    first = np.flatnonzero(fresh)
    folded = rows[first]
    for name in rows.dtype.names or ():
        if name not in key:
            folded[name] = np.add.reduceat(rows[name], first)
    return folded
