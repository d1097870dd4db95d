"""How far a running guest has come, read from outside at no cost to it.

`supervise` looks here while it waits; `cli` shows it. Each guest process keeps its counts in the words of `cpu.words`,
at one address in all of them, since they are forks of one another. Authority: process_vm_readv(2), proc(5).
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from archlbr.cpu import words as at

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from archlbr.cpu.words import Words

_LIBC = ctypes.CDLL(None, use_errno=True)
_READ = 28  # words
assert max(at.RETIRED, at.TAKEN, at.INHERITED_RETIRED, at.INHERITED_TAKEN) < _READ


class Counted(NamedTuple):
    """What all processes of a guest have retired so far: instructions, and near branches taken."""

    instructions: int
    branches: int


class _Stretch(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class Progress:
    """The counts of a process and all that it started; what ended keeps its last known ones."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._known: dict[int, Counted] = {}

    def look(self, address: int) -> Counted:
        """Return the counts now; `address` is where each process has its words, 0 while that is not known."""
        if address:
            for pid in _tree(self._pid):
                counted = _read(pid, address)
                if counted is not None:
                    self._known[pid] = counted
        return total(self._known.values())


def _read(pid: int, address: int) -> Counted | None:
    words = (ctypes.c_uint64 * _READ)()
    size = ctypes.sizeof(words)
    here, there = _Stretch(ctypes.addressof(words), size), _Stretch(address, size)
    got = _LIBC.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, ctypes.c_ulong(0))
    if got != size:
        return None  # it has ended, or its memory is not ours to read
    return counted(list(words))


def counted(words: Sequence[int] | Words) -> Counted:
    """Return what one process has retired, from the words of `cpu.words`."""
    return Counted(
        int(words[at.RETIRED]) - int(words[at.INHERITED_RETIRED]),
        int(words[at.TAKEN]) - int(words[at.INHERITED_TAKEN]),
    )


def total(counts: Iterable[Counted]) -> Counted:
    """Return the sum of several processes' counts."""
    rows = list(counts)
    return Counted(sum(row.instructions for row in rows), sum(row.branches for row in rows))


def _tree(pid: int) -> list[int]:
    found, index = [pid], 0
    while index < len(found):
        for listed in Path(f"/proc/{found[index]}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(word) for word in listed.read_text().split()]
        index += 1
    return found
