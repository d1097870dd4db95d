"""The hottest branches of a profile, as values: counted over all samples, named where the files have symbols.

Fed by `profile.perfdata.reader`, shown by `terminal`. Addresses are counted as file and offset, so that processes that
load a file at different places add up. Ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from archlbr.arch.branches import KINDS, PerfBranch
from archlbr.profile.maps import AddressSpaces
from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.stack import MISPRED, entry_types
from archlbr.report.symbols import Place, SymbolFile

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from archlbr.profile.stack import Samples

# The key of a counted branch, then its counts. A file is an index into the list of paths, -1 where nothing was mapped.
COUNTED = np.dtype(
    [
        ("from_file", "<i8"),
        ("from_offset", "<u8"),
        ("to_file", "<i8"),
        ("to_offset", "<u8"),
        ("type", "u1"),
        ("count", "<u8"),
        ("mispred", "<u8"),
    ]
)
NAMES = ("from_file", "from_offset", "to_file", "to_offset", "type", "count", "mispred")
KEY = ("from_file", "from_offset", "to_file", "to_offset", "type")
KIND_OF_PERF: dict[int, str] = {int(row.perf): row.kind.name for row in KINDS if row.perf is not PerfBranch.UNKNOWN}
UNMAPPED = "[unmapped]"


class HotBranch(NamedTuple):
    """One branch. kind: ours, or perf's name where we have none. taken, mispredicted: of all entries in all stacks."""

    source: Place
    target: Place
    kind: str
    taken: int
    mispredicted: int


class Summary(NamedTuple):
    """A profile in brief. branches: entries in all stacks. hottest: most often taken first."""

    samples: int
    branches: int
    command_line: tuple[str, ...]
    hottest: tuple[HotBranch, ...]


def summarize(path: str | os.PathLike[str], limit: int) -> Summary:
    """Return the `limit` hottest branches of a perf.data; InputError when it cannot be read or is damaged."""
    with Reader(path) as profile:
        spaces = AddressSpaces(profile.sideband())
        files = [mapping.path for mapping in spaces.mappings]
        paths = sorted(set(files))
        # One more at the end: lookup's -1 picks it.
        file_of = np.array([paths.index(name) for name in files] + [-1], dtype=np.int64)
        bases = [(mapping.start - mapping.pgoff) % (1 << 64) for mapping in spaces.mappings]
        base_of = np.array([*bases, 0], dtype=np.uint64)
        table = np.zeros(0, dtype=COUNTED)
        samples = 0
        for batch in profile.samples():
            samples += len(batch)
            table = _fold(np.concatenate([table, _count(batch, spaces, file_of, base_of)]))
        hottest = table[np.argsort(-table["count"].astype(np.int64), kind="stable")[:limit]]
        return Summary(samples, int(table["count"].sum()), profile.command_line, _name(hottest, paths))


def _count(
    batch: Samples, spaces: AddressSpaces, file_of: NDArray[np.int64], base_of: NDArray[np.uint64]
) -> NDArray[np.void]:
    entries = batch.entries
    owner, time = np.repeat(batch.pid, batch.counts), np.repeat(batch.time, batch.counts)
    rows = np.zeros(len(entries), dtype=COUNTED)
    for side in ("from", "to"):
        number = spaces.lookup(owner, time, entries[side])
        rows[f"{side}_file"] = file_of[number]
        rows[f"{side}_offset"] = entries[side] - base_of[number]
    rows["type"] = entry_types(entries)
    rows["count"] = 1
    rows["mispred"] = entries["flags"] & np.uint64(MISPRED)
    return _fold(rows)


def _fold(rows: NDArray[np.void]) -> NDArray[np.void]:
    if not len(rows):
        return rows
    rows = rows[np.lexsort([rows[name] for name in reversed(KEY)])]
    fresh = np.ones(len(rows), dtype=np.bool_)
    fresh[1:] = np.logical_or.reduce([rows[name][1:] != rows[name][:-1] for name in KEY])
    first = np.flatnonzero(fresh)
    folded = rows[first]
    for name in ("count", "mispred"):
        folded[name] = np.add.reduceat(rows[name], first)
    return folded


def _name(rows: NDArray[np.void], paths: list[str]) -> tuple[HotBranch, ...]:
    known: dict[int, SymbolFile] = {}

    def place(file: int, offset: int) -> Place:
        if file < 0:
            return Place(UNMAPPED, "", offset)
        if file not in known:
            known[file] = SymbolFile(paths[file])
        return known[file].place(offset)

    return tuple(
        HotBranch(
            place(row["from_file"], row["from_offset"]),
            place(row["to_file"], row["to_offset"]),
            kind_name(row["type"]),
            row["count"],
            row["mispred"],
        )
        for row in (dict(zip(NAMES, row.item(), strict=True)) for row in rows)
    )


def kind_name(perf_type: int) -> str:
    """Return our name of a PERF_BR_* type, perf's where we have none, and `?` for a number perf does not define."""
    try:
        kind = PerfBranch(perf_type)
    except ValueError:
        return "?"
    return KIND_OF_PERF.get(int(kind), kind.name)


def short_file(place: Place) -> str:
    """Return a place's file as a person calls it: the last part of its path."""
    return Path(place.file).name or place.file
