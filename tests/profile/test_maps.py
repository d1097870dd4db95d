"""Addresses find the mapping that held them, in their process, at their time."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from archlbr.profile.maps import AddressSpaces
from archlbr.profile.stack import Comm, Event, Fork, Mapping, Mmap


def mapping(start: int, end: int, path: str) -> Mapping:
    """Return a mapping of a range."""
    return Mapping(start, end - start, 0, path)


def paths(events: list[Event], *asked: tuple[int, int, int]) -> list[str | None]:
    """Return the path that held each (pid, time, address)."""
    spaces = AddressSpaces(events)
    pids = np.array([row[0] for row in asked], dtype=np.int32)
    moments = np.array([row[1] for row in asked], dtype=np.uint64)
    found = spaces.lookup(pids, moments, np.array([row[2] for row in asked], dtype=np.uint64))
    return [spaces.mappings[number].path if number >= 0 else None for number in found.tolist()]


def test_the_first_and_the_last_byte_belong_and_the_next_does_not() -> None:
    events: list[Event] = [Mmap(1, 1, 5, mapping(0x1000, 0x2000, "a"))]
    asked = [(1, 9, 0xFFF), (1, 9, 0x1000), (1, 9, 0x1FFF), (1, 9, 0x2000), (2, 9, 0x1000)]
    assert paths(events, *asked) == [None, "a", "a", None, None]


def test_a_later_mapping_replaces_what_it_overlaps() -> None:
    events: list[Event] = [Mmap(1, 1, 5, mapping(0x1000, 0x4000, "a")), Mmap(1, 1, 8, mapping(0x2000, 0x3000, "b"))]
    asked = [(1, time, address) for time in (7, 8) for address in (0x1800, 0x2800, 0x3800)]
    assert paths(events, *asked) == ["a", "a", "a", "a", "b", "a"]


def test_a_child_has_its_parent_s_mappings_until_it_runs_another_program() -> None:
    events: list[Event] = [
        Mmap(1, 1, 5, mapping(0x1000, 0x2000, "a")),
        Fork(2, 1, 2, 1, 10),
        Mmap(1, 1, 12, mapping(0x1000, 0x2000, "later")),
        Comm(2, 2, 20, "new", True),
        Mmap(2, 2, 21, mapping(0x1000, 0x2000, "b")),
    ]
    asked = [(2, 11, 0x1000), (2, 13, 0x1000), (2, 20, 0x1000), (2, 21, 0x1000), (1, 13, 0x1000)]
    assert paths(events, *asked) == ["a", "a", None, "b", "later"]


def test_a_thread_shares_its_process_s_mappings() -> None:
    events: list[Event] = [
        Mmap(1, 1, 5, mapping(0x1000, 0x2000, "a")),
        Fork(1, 1, 2, 1, 6),
        Mmap(1, 2, 7, mapping(0x2000, 0x3000, "b")),
    ]
    assert paths(events, (1, 8, 0x1000), (1, 8, 0x2000)) == ["a", "b"]


def test_a_mapping_noted_late_answers_for_what_came_before() -> None:
    events: list[Event] = [Mmap(1, 1, 50, mapping(0x1000, 0x2000, "a"))]
    assert paths(events, (1, 1, 0x1000)) == ["a"]


def test_kernel_addresses_are_the_kernel_s_whoever_ran() -> None:
    text = 0xFFFFFFFF81000000
    events: list[Event] = [Mmap(-1, 0, 0, mapping(text, text + 0x1000, "[kernel.kallsyms]_text"))]
    assert paths(events, (7, 1, text + 5), (8, 1, text + 0x1000)) == ["[kernel.kallsyms]_text", None]


def test_earlier_times_may_be_asked_after_later_ones() -> None:
    events: list[Event] = [Mmap(1, 1, time, mapping(0x1000, 0x2000, str(time))) for time in (5, 6, 7)]
    spaces = AddressSpaces(events)
    for time in (7, 5, 6, 4, 7):
        found = spaces.lookup(np.array([1], np.int32), np.array([time], np.uint64), np.array([0x1800], np.uint64))
        assert spaces.mappings[int(found[0])].path == str(max(time, 5))


def test_a_program_that_maps_code_ten_thousand_times_takes_no_more_memory_than_its_mappings() -> None:
    # In a process of its own: tracemalloc crashes where another thread allocates while it stops, and Frida's threads
    # stay in this one (python/cpython issue 128679).
    code = """
import tracemalloc
import numpy as np
from archlbr.profile.maps import AddressSpaces
from archlbr.profile.stack import Mapping, Mmap
starts = [1 << 40 | number << 13 for number in range(1, 10_001)]
events = [Mmap(1, 1, 10 * number, Mapping(start, 4096, 0, "")) for number, start in enumerate(starts, 1)]
tracemalloc.start()
spaces = AddressSpaces(events)
for number in range(100, 10_000, 100):
    asked = np.array(starts[number - 1 : number + 1], dtype=np.uint64)
    found = spaces.lookup(np.array([1, 1], np.int32), np.full(2, 10 * number, np.uint64), asked)
    assert found.tolist() == [number - 1, -1]
print(tracemalloc.get_traced_memory()[1])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert ran.stderr == ""
    # A picture for each change would be ten thousand lists of up to ten thousand ranges.
    assert 0 < int(ran.stdout) < 20 << 20


RANGES = st.tuples(st.integers(0, 30), st.integers(1, 15))


@given(rows=st.lists(RANGES, max_size=12))
def test_any_mappings_agree_with_a_map_of_bytes(rows: list[tuple[int, int]]) -> None:
    events: list[Event] = []
    held: dict[int, str] = {}
    asked, expected = [], []
    for time, (start, length) in enumerate(rows, 1):
        events.append(Mmap(1, 1, time, mapping(start, start + length, str(time))))
        held.update(dict.fromkeys(range(start, start + length), str(time)))
        for address in range(50):
            asked.append((1, time, address))
            expected.append(held.get(address))
    assert paths(events, *asked) == expected
