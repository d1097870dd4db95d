"""Which mapping an address belonged to: processes, their mappings, and when.

Fed by the side-band events of a profile; `text`, `validate` and `edges` ask it about whole batches. The rules are the
kernel's: a mapping replaces what it overlaps, fork copies the parent's, exec drops the process's own.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from archlbr.profile.stack import KERNEL_BIT, Comm, Event, Fork, Mapping, Mmap, Words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# The pid of the kernel's mappings.
KERNEL_PID = -1


class _Picture:
    """What one process has mapped at one moment: ranges in order, none over another, and each one's mapping number."""

    def __init__(self, starts: list[int], ends: list[int], numbers: list[int]) -> None:
        self.starts, self.ends, self.numbers = starts, ends, numbers

    def copy(self) -> _Picture:
        return _Picture(self.starts[:], self.ends[:], self.numbers[:])

    def put(self, start: int, end: int, number: int) -> None:
        """Map a range in place of what it overlaps."""
        if start >= end:
            return
        low, high = bisect_right(self.ends, start), bisect_left(self.starts, end)
        rows = [(start, end, number)]
        if low < high:
            if self.starts[low] < start:
                rows.insert(0, (self.starts[low], start, self.numbers[low]))
            if self.ends[high - 1] > end:
                rows.append((end, self.ends[high - 1], self.numbers[high - 1]))
        self.starts[low:high] = [row[0] for row in rows]
        self.ends[low:high] = [row[1] for row in rows]
        self.numbers[low:high] = [row[2] for row in rows]

    def find(self, addresses: Words) -> NDArray[np.int64]:
        """Return the number of the mapping that holds each address, -1 where none does."""
        if not self.starts:
            return np.full(len(addresses), -1, dtype=np.int64)
        starts, ends = np.array(self.starts, dtype=np.uint64), np.array(self.ends, dtype=np.uint64)
        place = np.searchsorted(starts, addresses, side="right") - 1
        inside = (place >= 0) & (addresses < ends[place])
        return np.where(inside, np.array(self.numbers, dtype=np.int64)[place], -1)

    def find_few(self, addresses: list[int]) -> list[int]:
        """Return the same, for fewer addresses than there are ranges."""
        out = []
        for address in addresses:
            place = bisect_right(self.starts, address) - 1
            out.append(self.numbers[place] if place >= 0 and address < self.ends[place] else -1)
        return out


class _Process:
    """One process: what it mapped and when, and its picture after one of these changes.

    Only one picture is kept. Profiles ask in the order of time, so that it mostly moves on; a process that maps code
    anew ten thousand times has as many pictures of as many ranges.
    """

    def __init__(self) -> None:
        self._times: list[int] = []
        self._moments: Words = np.zeros(0, dtype=np.uint64)
        # A range that was mapped, or the picture that replaced all: the parent's after fork, none after exec.
        self._changes: list[tuple[int, int, int] | _Picture] = []
        self._picture = _Picture([], [], [])
        self._at = -1

    @property
    def last(self) -> _Picture:
        """The picture after the last change."""
        return self.after(len(self._changes) - 1)

    def change(self, time: int, change: tuple[int, int, int] | _Picture) -> None:
        self._times.append(time)
        self._changes.append(change)

    def epochs(self, times: Words) -> NDArray[np.int64]:
        """Return the number of the last change at or before each time, int64[n]; the first for what came before it."""
        if len(self._moments) < len(self._times):
            self._moments = np.array(self._times, dtype=np.uint64)
        return np.maximum(np.searchsorted(self._moments, times, side="right") - 1, 0)

    def after(self, epoch: int) -> _Picture:
        """Return the picture after change number `epoch`; it changes with the next call."""
        if epoch < self._at:
            self._picture, self._at = _Picture([], [], []), -1
        while self._at < epoch:
            self._at += 1
            change = self._changes[self._at]
            if isinstance(change, _Picture):
                self._picture = change.copy()
            else:
                self._picture.put(*change)
        return self._picture


class AddressSpaces:
    """Every process's mappings over time; `mappings` lists each once, lookups answer by index into it."""

    def __init__(self, sideband: Iterable[Event]) -> None:
        self.mappings: list[Mapping] = []
        self._numbers: dict[Mapping, int] = {}
        self._processes: dict[int, _Process] = {}
        for event in sideband:
            if isinstance(event, Mmap):
                self._map(event.pid, event.time, event.mapping)
            elif isinstance(event, Fork) and event.pid != event.ppid:
                parent = self._processes.get(event.ppid)
                self._of(event.pid).change(event.time, parent.last.copy() if parent else _Picture([], [], []))
            elif isinstance(event, Comm) and event.exec:
                self._of(event.pid).change(event.time, _Picture([], [], []))

    def lookup(self, pids: NDArray[np.int32], times: Words, addresses: Words) -> NDArray[np.int64]:
        """Return the number of the mapping that held each address, int64[n], -1 where none did.

        A process's first picture also answers for what came before it: a recorder may note mappings late.
        """
        found = np.full(len(addresses), -1, dtype=np.int64)
        if not len(addresses):
            return found
        # As nearly always: one process, that maps nothing meanwhile, and no kernel.
        process = self._processes.get(int(pids[0]))
        if process is not None and (pids == pids[0]).all() and not (addresses >> np.uint64(KERNEL_BIT)).any():
            first, last = process.epochs(np.array([times.min(), times.max()], dtype=np.uint64)).tolist()
            if first == last and len(addresses) >= len((picture := process.after(first)).starts):
                return picture.find(addresses)
        owner = np.where(addresses >> np.uint64(KERNEL_BIT), KERNEL_PID, pids)
        for pid in np.unique(owner).tolist():
            process = self._processes.get(pid)
            if process is None:
                continue
            mine = np.flatnonzero(owner == pid)
            epochs = process.epochs(times[mine])
            order = np.argsort(epochs, kind="stable")
            mine, epochs = mine[order], epochs[order]
            cuts = [0, *(np.flatnonzero(np.diff(epochs)) + 1).tolist(), len(epochs)]
            for low, high in pairwise(cuts):
                some = mine[low:high]
                picture = process.after(int(epochs[low]))
                if len(some) < len(picture.starts):
                    found[some] = picture.find_few(addresses[some].tolist())
                else:
                    found[some] = picture.find(addresses[some])
        return found

    def _of(self, pid: int) -> _Process:
        return self._processes.setdefault(pid, _Process())

    def _map(self, pid: int, time: int, mapping: Mapping) -> None:
        number = self._numbers.setdefault(mapping, len(self.mappings))
        if number == len(self.mappings):
            self.mappings.append(mapping)
        start, end = mapping.start, min(mapping.start + mapping.length, (1 << 64) - 1)
        self._of(pid).change(time, (start, end, number))
