"""A mapping of a guest program's, as /proc/PID/maps lists it: a range, its rights, and the file behind it.

`machine.memory` keeps them sorted; `machine.procfs` shows them to the guest, a recorder to whoever turns addresses into
symbols. Sources: mmap(2), proc(5), include/uapi/asm-generic/mman-common.h, ipc/shm.c for the names of segments.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MAP_SHARED: Final = 0x01
MAP_PRIVATE: Final = 0x02
MAP_FIXED: Final = 0x10
MAP_ANONYMOUS: Final = 0x20
MAP_GROWSDOWN: Final = 0x100
MAP_NORESERVE: Final = 0x4000
MAP_FIXED_NOREPLACE: Final = 0x100000


class Region(NamedTuple):
    """One mapping [start, end) of the guest: rights, mmap flags, and the file behind it ("" for none)."""

    start: int
    end: int
    protection: int
    flags: int
    path: str = ""
    offset: int = 0
    device: int = 0
    inode: int = 0

    def part(self, start: int, end: int) -> Region:
        """Return the piece of this region inside [start, end)."""
        low, high = max(self.start, start), min(self.end, end)
        offset = self.offset + (low - self.start) if self.path else 0
        return self._replace(start=low, end=high, offset=offset)

    def goes_on_in(self, other: Region) -> bool:
        """Whether the kernel would keep this region and the one behind it as one (vma_merge() in mm/vma.c)."""
        kind = MAP_SHARED | MAP_PRIVATE | MAP_GROWSDOWN
        offset = self.offset + (self.end - self.start) if self.path else 0
        mine = (self.end, self.protection, self.flags & kind, self.path, offset, self.device, self.inode)
        theirs = (other.start, other.protection, other.flags & kind, other.path, other.offset, other.device)
        return mine == (*theirs, other.inode)

    def attached_at(self, address: int) -> bool:
        """Whether this is a piece of the System V segment that was attached at an address."""
        return self.path.startswith(_SEGMENT) and self.start - self.offset == address


_SEGMENT: Final = "/SYSV"


def segment(start: int, end: int, protection: int, key: int, number: int) -> Region:
    """Return the mapping of a System V segment: named by its key, its number is the inode, its device 00:01."""
    return Region(start, end, protection, MAP_SHARED, f"{_SEGMENT}{key:08x} (deleted)", 0, 1, number)
