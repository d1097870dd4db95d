"""Edges and ranges are counted, and two tables compared, as a dictionary would do it."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archlbr.profile import edges as edges_module
from archlbr.profile.edges import EdgeCounter, EdgeTable, count_edges, edges, hottest, pairs, ranges
from archlbr.profile.overlap import overlap
from archlbr.profile.stack import ENTRY, Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL = st.integers(0, 3)
STACKS = st.lists(st.lists(st.tuples(SMALL, SMALL, st.booleans()), max_size=5), max_size=8)
EDGES = st.lists(st.tuples(SMALL, SMALL), max_size=40)


def batch(rows: list[list[tuple[int, int, bool]]]) -> Samples:
    """Return a batch whose stacks are lists of (from, to, mispredicted)."""
    flat = [(source, target, 1 if missed else 2) for row in rows for source, target, missed in row]
    entries = np.array(flat, dtype=ENTRY) if flat else np.zeros(0, dtype=ENTRY)
    offsets = np.cumsum([0, *map(len, rows)])
    nothing = np.zeros(len(rows), dtype=np.int32)
    words = np.zeros(len(rows), dtype=np.uint64)
    return Samples(nothing, nothing, words, words, words, nothing.astype(np.uint8), entries, offsets)


def table(rows: list[tuple[int, int]]) -> EdgeTable:
    """Return the edge table of a list of edges."""
    columns: NDArray[np.uint64] = np.array(rows, dtype=np.uint64).reshape(-1, 2)
    return count_edges(columns[:, 0], columns[:, 1])


@given(STACKS)
def test_edges_and_mispredictions_are_counted(rows: list[list[tuple[int, int, bool]]]) -> None:
    taken, missed = Counter(), Counter()
    for row in rows:
        taken.update(entry[:2] for entry in row)
        missed.update(entry[:2] for entry in row if entry[2])
    expected = [(*edge, count, missed[edge]) for edge, count in sorted(taken.items())]
    assert edges(batch(rows)).tolist() == expected


@given(STACKS)
def test_ranges_run_from_an_older_target_to_the_next_newer_source(rows: list[list[tuple[int, int, bool]]]) -> None:
    found = Counter((older[1], newer[0]) for row in rows for newer, older in pairwise(row))
    assert [row[:3] for row in ranges(batch(rows)).tolist()] == [(*line, n) for line, n in sorted(found.items())]
    assert len(pairs(batch(rows))) == found.total()


@pytest.mark.parametrize("fold", [1, 1 << 20])
@given(parts=st.lists(EDGES, max_size=6))
def test_a_counter_sums_tables(fold: int, parts: list[list[tuple[int, int]]]) -> None:
    counter = EdgeCounter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edges_module, "_FOLD", fold)
        for part in parts:
            counter.add(table(part))
    total = Counter(edge for part in parts for edge in part)
    assert counter.table().tolist() == [(*edge, n, 0) for edge, n in sorted(total.items())]


def test_the_hottest_come_first_and_equals_in_address_order() -> None:
    rows = table([(5, 6)] * 2 + [(1, 2)] * 3 + [(3, 4)] * 2 + [(7, 8)])
    assert [row[:3] for row in hottest(rows, 3).tolist()] == [(1, 2, 3), (3, 4, 2), (5, 6, 2)]


@given(EDGES, EDGES)
def test_overlap_is_the_sum_of_the_smaller_shares(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    left, right = Counter(one), Counter(other)
    if one and other:
        expected = sum(min(left[edge] / len(one), right[edge] / len(other)) for edge in left | right)
    else:
        expected = float(one == other)
    assert overlap(table(one), table(other)) == pytest.approx(expected, abs=1e-12)


def test_overlap_of_the_literature_s_example() -> None:
    """Half the weight on one edge in both, the other half on different ones: 0.5; scale does not matter."""
    assert overlap(table([(1, 2), (3, 4)]), table([(1, 2), (1, 2), (5, 6), (5, 6)])) == 0.5
