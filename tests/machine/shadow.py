"""An address space beside the guest's, made by the host's kernel alone: the same calls at shifted addresses."""

from __future__ import annotations

import ctypes
import re
from typing import NamedTuple

PAGE = 4096
# Where the shadow of an address lies: nothing of this process is there.
SHIFT = 0x1800_0000_0000

_libc = ctypes.CDLL(None, use_errno=True)
for _name in ("mmap", "mremap"):
    getattr(_libc, _name).restype = ctypes.c_int64
_libc.mmap.argtypes = [ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
_libc.mprotect.argtypes = [ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int]
_libc.mremap.argtypes = [ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int, ctypes.c_uint64]

_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (...)(.) ")


class Area(NamedTuple):
    """A line of the kernel's maps: [start, end) and its rights as PROT_ bits."""

    start: int
    end: int
    rights: int


def areas(low: int, high: int) -> list[Area]:
    """Return this process's mappings inside [low, high), by the kernel's own listing."""
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            match = _LINE.match(line)
            assert match, line
            start, end = int(match[1], 16), int(match[2], 16)
            rights = sum(bit for bit, letter in zip((1, 2, 4), match[3], strict=True) if letter != "-")
            if start < high and end > low:
                found.append(Area(start, end, rights))
    return found


def pages(found: list[Area], shift: int = 0) -> dict[int, int]:
    """Return the rights of each page."""
    return {page - shift: area.rights for area in found for page in range(area.start, area.end, PAGE)}


def _answer(result: int) -> int:
    return -ctypes.get_errno() if result == -1 else result


class Shadow:
    """The calls, at guest addresses; results are guest addresses or negative errnos."""

    def mmap(self, address: int, length: int, protection: int, flags: int, fd: int, offset: int) -> int:
        return self._back(_libc.mmap(address + SHIFT, length, protection, flags, fd, offset))

    def munmap(self, address: int, length: int) -> int:
        return _answer(_libc.munmap(address + SHIFT, length))

    def mprotect(self, address: int, length: int, protection: int) -> int:
        return _answer(_libc.mprotect(address + SHIFT, length, protection))

    def mremap(self, address: int, old: int, new: int, flags: int, target: int) -> int:
        return self._back(_libc.mremap(address + SHIFT, old, new, flags, target + SHIFT if target else 0))

    def write(self, address: int, content: bytes) -> None:
        ctypes.memmove(address + SHIFT, content, len(content))

    def read(self, address: int, size: int) -> bytes:
        return ctypes.string_at(address + SHIFT, size)

    def one_area(self, address: int, size: int) -> bool:
        """Whether the kernel keeps [address, address + size) as one mapping."""
        found = areas(address + SHIFT, address + SHIFT + size)
        return len(found) == 1 and found[0].start <= address + SHIFT and found[0].end >= address + SHIFT + size

    @staticmethod
    def _back(result: int) -> int:
        answer = _answer(result)
        return answer if answer < 0 else answer - SHIFT
