"""Small recordings that several tests start from, and what was recorded as plain tuples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from archlbr.profile.perfdata.attr import BRANCH_ANY, BRANCH_USER, branch_attr
from archlbr.profile.stack import Mapping, Samples

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from archlbr.profile.perfdata.stream import RecordStream

ATTR = branch_attr("branches:u", 101, BRANCH_USER | BRANCH_ANY)
PROGRAM = Mapping(0x401000, 0x2000, 0x1000, "/opt/prog", bytes(range(20)), 8, 1, 77, 1)
LIBRARY = Mapping(0x7F0000000000, 0x10000, 0, "/opt/lib.so", b"\xab" * 16, 8, 1, 78)


def stacks(*rows: list[tuple[int, int, int]], depth: int = 4) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return rows of (FROM, TO, INFO) as an LBR read-out of `depth` entries, and the count of each."""
    out = np.zeros((len(rows), depth, 3), dtype=np.uint64)
    for index, row in enumerate(rows):
        if row:
            out[index, : len(row)] = np.array(row, dtype=np.uint64)
    return out, np.array([len(row) for row in rows])


def times(*values: int) -> NDArray[np.uint64]:
    """Return times, or any addresses, as the writer takes them."""
    return np.array(values, dtype=np.uint64)


def flat(events: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return events as plain tuples, one a sample: tasks, time, ip, period, mode, then each (from, to, flags)."""
    out: list[tuple[Any, ...]] = []
    for event in events:
        if not isinstance(event, Samples):
            out.append((type(event).__name__, *event))
            continue
        for index in range(len(event)):
            head = (event.pid, event.tid, event.time, event.ip, event.period, event.cpumode)
            out.append(("sample", *(int(column[index]) for column in head), event.stack(index).tolist()))
    return out


def record(stream: RecordStream) -> None:
    """Record a little of everything."""
    stream.comm(7, 7, 10, "prog", exec=True)
    stream.mmap2(7, 7, 10, PROGRAM)
    stream.mmap2(7, 7, 10, LIBRARY)
    read, counts = stacks(
        [(0x401010, 0x401100, 1 << 60 | 9), (0x401105, 0x401008, 1 << 63 | 5 << 56)],
        [],
        [(0x401200, 0x7F0000000010, 3 << 56)],
    )
    stream.samples(7, 8, times(5000, 6000, 6000), times(0x401100, 0x401101, 0x7F0000000010), 101, read, counts)
    stream.fork(9, 9, 7, 8, 7000)
    stream.exit(9, 9, 7, 8, 8000)
