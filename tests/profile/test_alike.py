"""Profiles are mostly of records alike, read together: what is read is what reading one by one gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archlbr.profile.maps import AddressSpaces
from archlbr.profile.perfdata.decode import decode
from archlbr.profile.perfdata.walk import walk
from archlbr.profile.stack import Mapping, Mmap
from tests.profile.examples import ATTR

if TYPE_CHECKING:
    from archlbr.profile.stack import Words

SAMPLE, LOST, AUXTRACE = 9, 2, 71


def words(rows: list[list[int]]) -> Words:
    return np.array([word for row in rows for word in row], dtype=np.uint64)


def header(kind: int, length: int) -> int:
    return 8 * length << 48 | kind


# Runs of records alike, cut anywhere: (kind, length in words, how many).
RUNS = st.lists(st.tuples(st.sampled_from([SAMPLE, LOST]), st.integers(1, 4), st.integers(1, 30)), max_size=6)


@given(RUNS, st.integers(0, 5))
def test_each_record_of_a_run_is_found(runs: list[tuple[int, int, int]], cut: int) -> None:
    lengths = [length for _, length, count in runs for _ in range(count)]
    rows = [[header(kind, length), *[0] * (length - 1)] for kind, length, count in runs for _ in range(count)]
    content = words(rows)[: max(0, sum(lengths) - cut)]
    starts, at = [], 0
    for length in lengths:
        if at + length > len(content):
            break
        starts.append(at)
        at += length
    found = walk(content, 0)
    assert found.starts.tolist() == starts
    assert found.lengths.tolist() == lengths[: len(starts)]
    assert (found.used, found.skip) == (8 * at, 0)


def test_records_with_payloads_behind_them_are_never_taken_together() -> None:
    rows = [[header(AUXTRACE, 6), size, 0, 0, 0, 0] for size in [0] * 12 + [80]]
    found = walk(words(rows), 0)
    assert (len(found.starts), found.skip) == (13, 80)


@pytest.mark.parametrize("counts", [[2] * 5, [0] * 5, [1, 2, 1], [3], [2, 2, 0, 2]])
@pytest.mark.parametrize("gap", [0, 1])
def test_stacks_of_one_length_and_of_several_are_taken_apart_alike(counts: list[int], gap: int) -> None:
    rows, starts, at = [], [], 0
    for number, count in enumerate(counts):
        entries = [[0x1000 * number + place, 0x2000 * number + place, place] for place in range(count)]
        body = [5, 7, 11, 13, count, *(word for entry in entries for word in entry)]
        rows.append([header(SAMPLE, 1 + len(body)), *body, *[0] * (gap * number)])
        starts.append(at)
        at += len(rows[-1])
    lengths = np.array([1 + 5 + 3 * count for count in counts])
    attr = ATTR._replace(sample_type=FIELDS)
    found = decode(words(rows), np.array(starts), lengths, attr, 0)
    assert found.counts.tolist() == counts
    assert found.ip.tolist() == [5] * len(counts)
    for number, count in enumerate(counts):
        expected = [(0x1000 * number + place, 0x2000 * number + place, place) for place in range(count)]
        assert found.stack(number).tolist() == expected


# IP, TID, TIME, PERIOD and BRANCH_STACK (perf_event.h).
FIELDS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 8 | 1 << 11


def asked(pids: list[int], addresses: list[int]) -> st.SearchStrategy[list[tuple[int, int, int]]]:
    return st.lists(st.tuples(st.sampled_from(pids), st.integers(0, 30), st.sampled_from(addresses)), max_size=12)


# One process without a kernel, which is looked up at once, and more.
@given(st.one_of(asked([1], [0x1800, 0x3800]), asked([1, 2], [0x1800, 0x3800, 1 << 63 | 0x1800])))
def test_many_lookups_are_each_of_them_alone(wanted: list[tuple[int, int, int]]) -> None:
    def mapped(time: int, pid: int, start: int, path: str) -> Mmap:
        return Mmap(pid, pid, time, Mapping(start, 0x1000, 0, path))

    spaces = AddressSpaces([mapped(0, 1, 0x1000, "a"), mapped(10, 1, 0x3000, "b"), mapped(20, 1, 0x1000, "c")])
    columns = (np.array([row[0] for row in wanted], np.int32), words([[row[1] for row in wanted]]))
    together = spaces.lookup(*columns, words([[row[2] for row in wanted]])).tolist()
    alone = [
        spaces.lookup(np.array([pid], np.int32), words([[time]]), words([[address]])).tolist()[0]
        for pid, time, address in wanted
    ]
    assert together == alone
    by_hand = []
    for pid, time, address in wanted:
        there = {0x1800: "c" if time >= 20 else "a", 0x3800: "b" if time >= 10 else ""}.get(address, "")
        by_hand.append(there if pid == 1 else "")
    assert [spaces.mappings[number].path if number >= 0 else "" for number in together] == by_hand
