"""The hottest branches, functions, edges and lines of a profile, as values, named where the files have symbols.

Fed by `counts`, named by `names`, shown by `terminal`, `html` and the command. Ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from archlbr.arch.branches import KINDS, PerfBranch
from archlbr.report.counts import fold
from archlbr.report.names import source_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archlbr.report.counts import Counts
    from archlbr.report.lines import SourceLine
    from archlbr.report.names import Names
    from archlbr.report.symbols import Place

KIND_OF_PERF: dict[int, str] = {int(row.perf): row.kind.name for row in KINDS if row.perf is not PerfBranch.UNKNOWN}
CALLS = (int(PerfBranch.CALL), int(PerfBranch.IND_CALL), int(PerfBranch.COND_CALL))
# Lines are looked up for this many of the hottest branches: each costs a look into the debug information.
_LINED = 4096
_SUMS = ("count", "mispred", "cycles", "timed")


class Heat(NamedTuple):
    """What a row of any table counts: branches taken and mispredicted, and cycles (the sum over `timed` entries)."""

    taken: int
    mispredicted: int
    cycles: int
    timed: int

    @property
    def mean_cycles(self) -> float | None:
        """The cycles from the branch before to this one, on average; None when the profile has none."""
        return self.cycles / self.timed if self.timed else None


class HotBranch(NamedTuple):
    """One branch. kind: ours, or perf's name where we have none. line: of its source, where known."""

    source: Place
    target: Place
    kind: str
    heat: Heat
    line: SourceLine | None


class HotFunction(NamedTuple):
    """A function by the branches taken in it; calls: how often a call went to its start."""

    place: Place
    heat: Heat
    calls: int


class HotEdge(NamedTuple):
    """An edge between two functions: every branch from one to the other, by kind."""

    source: Place
    target: Place
    kind: str
    heat: Heat


class HotLine(NamedTuple):
    """A source line by the branches taken in it; text: what it says, empty where the source is not here."""

    line: SourceLine
    function: Place
    heat: Heat
    text: str


class HotKind(NamedTuple):
    """A kind of branch."""

    kind: str
    heat: Heat


class Summary(NamedTuple):
    """A profile in brief. branches: entries in all stacks. timed: some entries count cycles. Hottest first."""

    samples: int
    branches: int
    timed: bool
    command_line: tuple[str, ...]
    hottest: tuple[HotBranch, ...]
    functions: tuple[HotFunction, ...]
    edges: tuple[HotEdge, ...]
    lines: tuple[HotLine, ...]
    kinds: tuple[HotKind, ...]


def summarize(counts: Counts, names: Names, limit: int) -> Summary:
    """Return the `limit` hottest rows of each table."""
    table = counts.branches
    order = np.argsort(-table["count"].astype(np.int64), kind="stable")
    return Summary(
        counts.samples,
        counts.taken,
        counts.timed,
        counts.command_line,
        tuple(_branch(row, names) for row in table[order[:limit]]),
        _functions(table, names, limit),
        _edges(table, names, limit),
        _lines(table[order[:_LINED]], names, limit),
        _kinds(table),
    )


def _heat(row: NDArray[np.void] | np.void) -> Heat:
    return Heat(*(int(row[name]) for name in _SUMS))


def _branch(row: np.void, names: Names) -> HotBranch:
    source, target = (int(row["from_file"]), int(row["from_offset"])), (int(row["to_file"]), int(row["to_offset"]))
    return HotBranch(
        names.place(*source), names.place(*target), kind_name(int(row["type"])), _heat(row), names.line(*source)
    )


def _grouped(table: NDArray[np.void], **keys: NDArray[np.int64]) -> NDArray[np.void]:
    # The rows added up by the given columns, hottest first; equal ones in the order of their keys.
    rows = np.zeros(len(table), dtype=[*((name, "<i8") for name in keys), *((name, "<u8") for name in _SUMS)])
    for name, column in keys.items():
        rows[name] = column
    for name in _SUMS:
        rows[name] = table[name]
    rows = fold(rows, tuple(keys))
    return rows[np.argsort(-rows["count"].astype(np.int64), kind="stable")]


def _functions(table: NDArray[np.void], names: Names, limit: int) -> tuple[HotFunction, ...]:
    inside = names.functions(table["from_file"], table["from_offset"])
    rows = _grouped(table, file=table["from_file"], function=inside)[:limit]
    called = table[np.isin(table["type"], CALLS)]
    goals = names.functions(called["to_file"], called["to_offset"])
    calls = {
        (int(row["file"]), int(row["function"])): int(row["count"])
        for row in _grouped(called, file=called["to_file"], function=goals)
    }
    keys = [(int(row["file"]), int(row["function"])) for row in rows]
    return tuple(
        HotFunction(names.function(*key), _heat(row), calls.get(key, 0)) for key, row in zip(keys, rows, strict=True)
    )


def _edges(table: NDArray[np.void], names: Names, limit: int) -> tuple[HotEdge, ...]:
    source = names.functions(table["from_file"], table["from_offset"])
    target = names.functions(table["to_file"], table["to_offset"])
    apart = (table["from_file"] != table["to_file"]) | (source != target) | np.isin(table["type"], CALLS)
    some = table[apart]
    rows = _grouped(
        some,
        from_file=some["from_file"],
        source=source[apart],
        to_file=some["to_file"],
        target=target[apart],
        type=some["type"].astype(np.int64),
    )
    return tuple(
        HotEdge(
            names.function(int(row["from_file"]), int(row["source"])),
            names.function(int(row["to_file"]), int(row["target"])),
            kind_name(int(row["type"])),
            _heat(row),
        )
        for row in rows[:limit]
    )


def _lines(table: NDArray[np.void], names: Names, limit: int) -> tuple[HotLine, ...]:
    found: dict[tuple[SourceLine, Place], Heat] = {}
    for row in table:
        file, offset = int(row["from_file"]), int(row["from_offset"])
        line = names.line(file, offset)
        if line is None:
            continue
        key = (line, names.place(file, offset)._replace(offset=0))
        before = found.get(key, Heat(0, 0, 0, 0))
        found[key] = Heat(*(old + new for old, new in zip(before, _heat(row), strict=True)))
    rows = sorted(found.items(), key=lambda item: (-item[1].taken, item[0]))
    return tuple(HotLine(line, function, heat, source_text(line)) for (line, function), heat in rows[:limit])


def _kinds(table: NDArray[np.void]) -> tuple[HotKind, ...]:
    rows = _grouped(table, type=table["type"].astype(np.int64))
    return tuple(HotKind(kind_name(int(row["type"])), _heat(row)) for row in rows)


def kind_name(perf_type: int) -> str:
    """Return our name of a PERF_BR_* type, perf's where we have none, and `?` for a number perf does not define."""
    try:
        kind = PerfBranch(perf_type)
    except ValueError:
        return "?"
    return KIND_OF_PERF.get(int(kind), kind.name)
