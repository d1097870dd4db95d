"""Edge overlap: how alike two profiles are.

Fed with the edge tables of `edges`; tests and benchmarks hold a profile against the exact trace with it. The metric is
the degree of overlap of the sampling literature and of `llvm-profdata overlap` (reference profile-tools.md 5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from archlbr.profile.edges import EdgeTable


def overlap(one: EdgeTable, other: EdgeTable) -> float:
    """Return the sum over all edges of min(p, q), p and q the two tables' normalised counts: 1.0 the same, 0.0
    disjoint.

    Two empty tables are the same; an empty one and another are disjoint. Each table lists an edge once.
    """
    if not len(one) or not len(other):
        return 1.0 if len(one) == len(other) else 0.0
    sources = np.concatenate([one["from"], other["from"]])
    targets = np.concatenate([one["to"], other["to"]])
    share = np.concatenate([_shares(one), _shares(other)])
    order = np.lexsort((targets, sources))
    sources, targets, share = sources[order], targets[order], share[order]
    both = (sources[1:] == sources[:-1]) & (targets[1:] == targets[:-1])
    # Shares of the same table may add up to a hair more or less than 1.
    return min(1.0, round(float(np.minimum(share[1:], share[:-1])[both].sum()), 12))


def _shares(table: EdgeTable) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return table["count"].astype(np.float64) / float(table["count"].sum())
