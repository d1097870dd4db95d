"""Two profiles held against each other: how much their edges overlap, and which came, went or moved.

Fed by two `counts`, with `profile.overlap` for the one number; the command prints it. An edge is the same when files
and offsets are; a file is the same when its path is, or else its name, where only one file on each side has it. Between
functions the two programs themselves are the same file, whatever their names. Ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from archlbr.errors import InputError
from archlbr.profile.edges import count_edges
from archlbr.profile.overlap import overlap
from archlbr.report.names import Names
from archlbr.report.terminal import aligned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from archlbr.profile.stack import Words
    from archlbr.report.counts import Counts
    from archlbr.report.symbols import Place

# The function number -1, as an unsigned word.
_NO_FUNCTION = 1 << 63


class Change(NamedTuple):
    """An edge of either profile. before, after: its counts; 0 where a profile does not have it."""

    source: Place
    target: Place
    before: int
    after: int


class Difference(NamedTuple):
    """Two profiles compared. branches: entries in all stacks of each. overlap: 1.0 the same, 0.0 disjoint.

    gained, lost: how many edges only the second or the first has; changes: the largest in share first.
    other_builds: files whose build-ids differ, so that equal offsets mean different code. left_out: files of which
    only another build than the one that ran is here, so that their functions have no names.
    """

    branches: tuple[int, int]
    edges: tuple[int, int]
    overlap: float
    gained: int
    lost: int
    gained_share: float
    lost_share: float
    changes: tuple[Change, ...]
    other_builds: tuple[str, ...]
    left_out: tuple[str, ...] = ()


class _Ends:
    """Numbers for the ends of edges, the same in both profiles: a file and an offset, or a function by its name."""

    def __init__(self, by_function: bool) -> None:
        self._by_function = by_function
        self._numbers: dict[tuple[str, object], int] = {}
        self._known: list[tuple[Names, int, int]] = []

    def table(self, counts: Counts, names: Names, paths: Sequence[str]) -> NDArray[np.void]:
        """Return a profile's edges; `paths` are its files under the names that both profiles use."""
        sources, targets = (self._keys(counts, names, paths, side) for side in ("from", "to"))
        return count_edges(sources, targets, counts.branches["count"], counts.branches["mispred"])

    def _keys(self, counts: Counts, names: Names, paths: Sequence[str], side: str) -> Words:
        files, offsets = counts.branches[f"{side}_file"], counts.branches[f"{side}_offset"]
        details = names.functions(files, offsets).astype(np.uint64) if self._by_function else offsets
        rows = np.stack([files.astype(np.uint64), details], axis=1)
        distinct, inverse = np.unique(rows, axis=0, return_inverse=True)
        numbers = []
        for file, detail in zip(distinct[:, 0].astype(np.int64).tolist(), distinct[:, 1].tolist(), strict=True):
            known = (names, file, detail)
            key = (paths[file] if file >= 0 else "", self._place(known).symbol if self._by_function else detail)
            if key not in self._numbers:
                self._numbers[key] = len(self._known)
                self._known.append(known)
            numbers.append(self._numbers[key])
        return np.array(numbers, dtype=np.uint64)[inverse.reshape(-1)]

    def place(self, number: int) -> Place:
        """Return the name of an end."""
        return self._place(self._known[number])

    def _place(self, known: tuple[Names, int, int]) -> Place:
        names, file, detail = known
        if self._by_function:
            return names.function(file, detail if detail < _NO_FUNCTION else -1)
        return names.place(file, detail)


def compare(one: Counts, other: Counts, by_function: bool, limit: int) -> Difference:
    """Return what differs; edges between functions, by their names, or between addresses."""
    if not len(one.branches) or not len(other.branches):
        raise InputError("a profile without branches cannot be compared: record it with a smaller period")
    ends = _Ends(by_function)
    paths = _same_files(one.paths, other.paths)
    if by_function:
        _pair_programs(one, other, paths)
    namings = [Names(counts.paths, counts.build_ids) for counts in (one, other)]
    tables = [ends.table(counts, names, own) for counts, names, own in zip((one, other), namings, paths, strict=True)]
    before, after = ({(int(row["from"]), int(row["to"])): int(row["count"]) for row in table} for table in tables)
    totals = sum(before.values()), sum(after.values())
    gained, lost = after.keys() - before.keys(), before.keys() - after.keys()

    def moved(edge: tuple[int, int]) -> float:
        return abs(after.get(edge, 0) / totals[1] - before.get(edge, 0) / totals[0])

    changed = [edge for edge in before.keys() | after.keys() if moved(edge)]
    changes = tuple(
        Change(ends.place(edge[0]), ends.place(edge[1]), before.get(edge, 0), after.get(edge, 0))
        for edge in sorted(changed, key=lambda edge: (-moved(edge), edge))[:limit]
    )
    return Difference(
        totals,
        (len(before), len(after)),
        overlap(tables[0], tables[1]),
        len(gained),
        len(lost),
        sum(after[edge] for edge in gained) / totals[1],
        sum(before[edge] for edge in lost) / totals[0],
        changes,
        _other_builds(one, other, paths),
        tuple(sorted(namings[0].left_out | namings[1].left_out)),
    )


def _same_files(one: Sequence[str], other: Sequence[str]) -> tuple[list[str], list[str]]:
    # The second profile's files under the first's names, where they are the same.
    names = [Path(path).name for path in one]
    theirs = [Path(path).name for path in other]
    renamed = []
    for path, name in zip(other, theirs, strict=True):
        alone = names.count(name) == 1 and theirs.count(name) == 1
        renamed.append(one[names.index(name)] if path not in one and alone else path)
    return list(one), renamed


def _pair_programs(one: Counts, other: Counts, paths: tuple[list[str], list[str]]) -> None:
    # Two builds may have two names: the file with the most branches is the program, and its functions keep theirs.
    first, second = (_hottest_file(counts) for counts in (one, other))
    if paths[0][first] not in paths[1] and paths[1][second] not in paths[0]:
        paths[1][second] = paths[0][first]


def _hottest_file(counts: Counts) -> int:
    mapped = counts.branches["from_file"] >= 0
    totals = np.bincount(counts.branches["from_file"][mapped], counts.branches["count"][mapped], minlength=1)
    return int(np.argmax(totals))


def _other_builds(one: Counts, other: Counts, paths: tuple[list[str], list[str]]) -> tuple[str, ...]:
    theirs = dict(zip(paths[1], (other.build_ids.get(path, b"") for path in other.paths), strict=True))
    differ = []
    for path in one.paths:
        mine = one.build_ids.get(path, b"")
        if mine and theirs.get(path) and theirs[path] != mine:
            differ.append(path)
    return tuple(differ)


def render(found: Difference, by_function: bool) -> str:
    """Return the comparison as lines."""
    lines = [
        f"overlap {found.overlap:.4f}",
        f"{found.branches[0]:,} branches on {found.edges[0]:,} edges, then {found.branches[1]:,} on {found.edges[1]:,}",
        f"gained {found.gained:,} edges ({found.gained_share:.2%} of the second's branches), "
        f"lost {found.lost:,} ({found.lost_share:.2%} of the first's)",
    ]
    lines += [
        f"{Path(path).name} is another build in the second: "
        + ("its functions are matched by name" if by_function else "compare by function (--by function)")
        for path in found.other_builds
    ]
    if not found.changes:
        return "\n".join([*lines, "no edge differs"])
    rows: list[tuple[str, ...]] = [("before", "after", "change", "from", "to")]
    for change in found.changes:
        before, after = change.before / found.branches[0], change.after / found.branches[1]
        names = (place.function if by_function else place.with_file for place in (change.source, change.target))
        rows.append(
            (
                f"{before:.2%}" if change.before else "-",
                f"{after:.2%}" if change.after else "-",
                f"{100 * (after - before):+.2f}",
                *names,
            )
        )
    return "\n".join([*lines, *aligned(rows, 3)])
