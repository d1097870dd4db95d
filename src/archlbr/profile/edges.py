"""Counted edges and straight-line ranges: what optimisers make of branch stacks.

Fed by the samples of a profile or by a trace; `text` writes them for BOLT, `overlap` compares them, `report` shows the
hottest. An edge is a taken branch (FROM, TO); a range is the straight line from an older entry's TO to the next newer
entry's FROM.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from archlbr.profile.stack import MISPRED, Samples, Words

EDGE = np.dtype([("from", "<u8"), ("to", "<u8"), ("count", "<u8"), ("mispred", "<u8")])
EdgeTable: TypeAlias = NDArray[np.void]

# Tables are folded together when this many rows wait.
_FOLD = 1 << 20


def count_edges(
    sources: Words, targets: Words, counts: Words | None = None, mispreds: Words | None = None
) -> EdgeTable:
    """Return the table of distinct (from, to) pairs, sorted, with their sums; without `counts` each counts once."""
    order = np.lexsort((targets, sources))
    sources, targets = sources[order], targets[order]
    fresh = np.ones(len(order), dtype=np.bool_)
    fresh[1:] = (sources[1:] != sources[:-1]) | (targets[1:] != targets[:-1])
    first = np.flatnonzero(fresh)
    table = np.zeros(len(first), dtype=EDGE)
    table["from"], table["to"] = sources[first], targets[first]
    if len(first):
        ones = np.ones(len(order), dtype=np.uint64) if counts is None else counts[order]
        table["count"] = np.add.reduceat(ones, first)
        if mispreds is not None:
            table["mispred"] = np.add.reduceat(mispreds[order].astype(np.uint64), first)
    return table


class EdgeCounter:
    """Sums edges batch by batch; memory grows with the distinct edges, not with the samples."""

    def __init__(self) -> None:
        self._tables: list[EdgeTable] = []
        self._rows = 0

    def add(self, table: EdgeTable) -> None:
        """Add the counts of a table."""
        self._tables.append(table)
        self._rows += len(table)
        if self._rows > _FOLD and len(self._tables) > 1:
            self._fold()

    def table(self) -> EdgeTable:
        """Return everything added so far, one row an edge, sorted by (from, to)."""
        self._fold()
        return self._tables[0]

    def _fold(self) -> None:
        rows = np.concatenate([np.zeros(0, dtype=EDGE), *self._tables])
        self._tables = [count_edges(rows["from"], rows["to"], rows["count"], rows["mispred"])]
        # Only what comes on top of the distinct edges is folded again.
        self._rows = 0


def pairs(samples: Samples) -> NDArray[np.int64]:
    """Return the index of each entry that has an older one; its range is entries[i+1].to .. entries[i].from."""
    index = np.arange(len(samples.entries) - 1, dtype=np.int64)
    last = np.zeros(len(samples.entries), dtype=np.bool_)
    ends = samples.offsets[1:] - 1
    last[ends[samples.counts > 0]] = True
    return index[~last[:-1]]


def edges(samples: Samples) -> EdgeTable:
    """Return the counted edges of a batch, with their mispredictions."""
    entries = samples.entries
    return count_edges(entries["from"], entries["to"], mispreds=entries["flags"] & np.uint64(MISPRED))


def ranges(samples: Samples) -> EdgeTable:
    """Return the counted straight-line ranges of a batch: from = first address, to = the branch that ends it."""
    newer = pairs(samples)
    return count_edges(samples.entries["to"][newer + 1], samples.entries["from"][newer])


def hottest(table: EdgeTable, limit: int) -> EdgeTable:
    """Return the `limit` edges with the highest counts; equal counts in address order."""
    order = np.lexsort((table["to"], table["from"], np.uint64((1 << 64) - 1) - table["count"]))
    return table[order[:limit]]
