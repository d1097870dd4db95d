"""A stream of records: what a recording says, in the order it happened.

A recording calls it, through the file (`writer`) or through a process's own spool (`spool`); both are this with another
sink. Times come from the caller (model ns) and are nudged where two records would compare as equal (`timeline`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from archlbr.profile.perfdata import records
from archlbr.profile.perfdata.samples import encode
from archlbr.profile.perfdata.timeline import Timeline
from archlbr.profile.stack import Comm, Exit, Fork, Mapping, Mmap, Words

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from archlbr.profile.perfdata.attr import Attr

# Samples are encoded this many at a time: the working set stays in the cache, and memory flat.
BATCH = 1024


class RecordStream:
    """The records of one recording; each method appends what happened to the sink."""

    def __init__(
        self, attr: Attr, sink: Callable[[bytes | memoryview], None], note: Callable[[records.BuildId], None]
    ) -> None:
        self.attr = attr
        self.timeline = Timeline()
        self.written = 0
        self._sink = sink
        self._note = note

    def comm(self, pid: int, tid: int, time: int, name: str, exec: bool = False) -> None:  # noqa: A002 - perf's word
        """Name a task; `exec` when it has become another program."""
        self._sink(records.pack_comm(Comm(pid, tid, self.timeline.sideband(time), name, exec)))

    def mmap2(self, pid: int, tid: int, time: int, mapping: Mapping) -> None:
        """Add an executable mapping of a process; its build-id goes into the file's table."""
        if mapping.build_id:
            self._note(records.BuildId(mapping.path, mapping.build_id))
        self._sink(records.pack_mmap2(Mmap(pid, tid, self.timeline.sideband(time), mapping)))

    def fork(self, pid: int, tid: int, ppid: int, ptid: int, time: int) -> None:
        """Add a task `tid` of process `pid` that task `ptid` of process `ppid` created."""
        self._sink(records.pack_task(records.FORK_TYPE, Fork(pid, ppid, tid, ptid, self.timeline.sideband(time))))

    def exit(self, pid: int, tid: int, ppid: int, ptid: int, time: int) -> None:
        """End a task."""
        self._sink(records.pack_task(records.EXIT_TYPE, Exit(pid, ppid, tid, ptid, self.timeline.sideband(time))))

    def samples(
        self,
        pid: ArrayLike,
        tid: ArrayLike,
        times: Words,
        ips: Words,
        periods: ArrayLike,
        stacks: Words,
        counts: NDArray[np.integer],
        types: NDArray[np.integer] | None = None,
    ) -> None:
        """Append n samples in time order.

        times (ns), ips: uint64[n]; pid, tid, periods: a number or an array of n; stacks: uint64[n, depth, 3] of FROM,
        TO, INFO as the LBR registers gave them, newest first; counts: valid entries of each, [n]; types: PERF_BR_*
        type of far transfers, [n, depth]. Kernel entries are left out when the event is user only.
        """
        rows = len(times)
        task = np.asarray(pid, dtype=np.int64) & 0xFFFFFFFF | np.asarray(tid, dtype=np.int64) << 32
        tasks = np.broadcast_to(task.astype(np.uint64), (rows,))
        period = np.broadcast_to(np.asarray(periods, dtype=np.uint64), (rows,))
        given = self.timeline.samples(times)
        for at in range(0, rows, BATCH):
            part = slice(at, at + BATCH)
            known = None if types is None else types[part]
            words = encode(
                self.attr, tasks[part], given[part], ips[part], period[part], stacks[part], counts[part], known
            )
            self._sink(words.data.cast("B"))
        self.written += rows
