"""Which mapping an address belonged to: processes, their mappings, and when.

Fed by the side-band events of a profile; `text`, `validate` and `edges` ask it about whole batches. The rules are the
kernel's: a mapping replaces what it overlaps, fork copies the parent's, exec drops the process's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from archlbr.profile.stack import KERNEL_BIT, Comm, Event, Fork, Mapping, Mmap, Words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# The pid of the kernel's mappings.
KERNEL_PID = -1


class AddressSpaces:
    """Every process's mappings over time; `mappings` lists each once, lookups answer by index into it."""

    def __init__(self, sideband: Iterable[Event]) -> None:
        self.mappings: list[Mapping] = []
        self._numbers: dict[Mapping, int] = {}
        # Per pid: the times at which the picture changed, and the picture from each on: (starts, ends, mapping
        # numbers).
        self._times: dict[int, list[int]] = {}
        self._pictures: dict[int, list[list[tuple[int, int, int]]]] = {}
        self._frozen: dict[tuple[int, int], tuple[Words, Words, NDArray[np.int64]]] = {}
        for event in sideband:
            if isinstance(event, Mmap):
                self._map(event.pid, event.time, event.mapping)
            elif isinstance(event, Fork) and event.pid != event.ppid:
                self._change(event.pid, event.time, list(self._now(event.ppid)))
            elif isinstance(event, Comm) and event.exec:
                self._change(event.pid, event.time, [])

    def lookup(self, pids: NDArray[np.int32], times: Words, addresses: Words) -> NDArray[np.int64]:
        """Return the number of the mapping that held each address, int64[n], -1 where none did.

        A process's first picture also answers for what came before it: a recorder may note mappings late.
        """
        found = np.full(len(addresses), -1, dtype=np.int64)
        owner = np.where(addresses >> np.uint64(KERNEL_BIT), KERNEL_PID, pids)
        for pid in np.unique(owner).tolist():
            if pid not in self._times:
                continue
            mine = np.flatnonzero(owner == pid)
            moments = np.array(self._times[pid], dtype=np.uint64)
            epochs = np.maximum(np.searchsorted(moments, times[mine], side="right") - 1, 0)
            for epoch in np.unique(epochs).tolist():
                some = mine[epochs == epoch]
                found[some] = self._search(pid, epoch, addresses[some])
        return found

    def _search(self, pid: int, epoch: int, addresses: Words) -> NDArray[np.int64]:
        starts, ends, numbers = self._freeze(pid, epoch)
        if not len(starts):
            return np.full(len(addresses), -1, dtype=np.int64)
        place = np.searchsorted(starts, addresses, side="right") - 1
        inside = (place >= 0) & (addresses < ends[place])
        return np.where(inside, numbers[place], -1)

    def _freeze(self, pid: int, epoch: int) -> tuple[Words, Words, NDArray[np.int64]]:
        key = (pid, epoch)
        if key not in self._frozen:
            rows = self._pictures[pid][epoch]
            self._frozen[key] = (
                np.array([row[0] for row in rows], dtype=np.uint64),
                np.array([row[1] for row in rows], dtype=np.uint64),
                np.array([row[2] for row in rows], dtype=np.int64),
            )
        return self._frozen[key]

    def _now(self, pid: int) -> list[tuple[int, int, int]]:
        return self._pictures[pid][-1] if pid in self._pictures else []

    def _change(self, pid: int, time: int, rows: list[tuple[int, int, int]]) -> None:
        self._times.setdefault(pid, []).append(time)
        self._pictures.setdefault(pid, []).append(rows)

    def _map(self, pid: int, time: int, mapping: Mapping) -> None:
        number = self._numbers.setdefault(mapping, len(self.mappings))
        if number == len(self.mappings):
            self.mappings.append(mapping)
        start, end = mapping.start, min(mapping.start + mapping.length, (1 << 64) - 1)
        rows = [(start, end, number)]
        for low, high, old in self._now(pid):
            if high <= start or low >= end:
                rows.append((low, high, old))
                continue
            if low < start:
                rows.append((low, start, old))
            if high > end:
                rows.append((end, high, old))
        rows.sort()
        self._change(pid, time, rows)
