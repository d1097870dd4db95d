"""A guest program's address space: the host's own mappings, at the guest's own addresses, in the engine's view.

`machine.calls` turns mmap(2) and its family into these methods. Each mapping is made twice: once in this process by the
host's kernel, once in the engine over the same bytes. Addresses are chosen here, bottom up from a fixed base, so that
two runs look alike; what this process itself occupies is never given away (MAP_FIXED_NOREPLACE).
"""

from __future__ import annotations

import ctypes
import errno
import os
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from archlbr.cpu.engine import Protection
from archlbr.guest import syscalls
from archlbr.machine.regions import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_NORESERVE,
    MAP_PRIVATE,
    Region,
    segment,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.cpu.unicorn.engine import UnicornEngine
    from archlbr.guest.kernel import Kernel

PAGE: Final = 4096

MREMAP_MAYMOVE: Final = 1
MREMAP_FIXED: Final = 2
MREMAP_DONTUNMAP: Final = 4

# Below what Linux gives a position-independent emulator and its libraries (0x55... and 0x7f...), above everything that
# programs are linked at ("ours", docs/decisions/012).
PIE_BASE: Final = 0x2000_0000_0000
MMAP_BASE: Final = 0x2AAA_0000_0000
STACK_TOP: Final = 0x2FFF_FFFF_F000
USER_END: Final = 0x7FFF_FFFF_F000


def _pages(length: int) -> int:
    return (length + PAGE - 1) & -PAGE


def _host_rights(protection: int) -> int:
    # The engine reads code as data, and x86 cannot write what it cannot read. The host never executes guest memory.
    rights = protection & (Protection.READ | Protection.WRITE)
    return rights | Protection.READ if protection & (Protection.WRITE | Protection.EXEC) else rights


def _guest_rights(protection: int) -> int:
    return protection | Protection.READ if protection & (Protection.WRITE | Protection.EXEC) else protection


class AddressSpace:
    """The guest's mappings, kept in the host, in the engine and in `regions`, sorted by address.

    Methods answer like the system calls: an address or 0, or a negative errno. `announce` is called with each region
    that becomes executable. `collided` holds the range of a fixed mapping that was refused because this process lies
    there.
    """

    def __init__(self, kernel: Kernel, engine: UnicornEngine, announce: Callable[[Region], None]) -> None:
        self.regions: list[Region] = []
        self.collided: tuple[int, int] | None = None
        self.brk_start = 0
        self.brk_end = 0
        self._kernel = kernel
        self._engine = engine
        self._announce = announce
        self._next = MMAP_BASE

    def find(self, address: int) -> Region | None:
        """Return the region that holds an address."""
        index = bisect_right(self.regions, address, key=lambda region: region.start) - 1
        if index >= 0 and address < self.regions[index].end:
            return self.regions[index]
        return None

    def overlapping(self, start: int, end: int) -> list[Region]:
        """Return the pieces of regions inside [start, end)."""
        return [region.part(start, end) for region in self.regions if region.start < end and region.end > start]

    def mmap(self, address: int, length: int, protection: int, flags: int, fd: int, offset: int) -> int:
        """Map anonymous memory or a file."""
        if length == 0 or offset % PAGE:
            return -errno.EINVAL
        size = _pages(length)
        if size > USER_END:
            return -errno.ENOMEM
        if flags & (MAP_FIXED | MAP_FIXED_NOREPLACE):
            if address % PAGE:
                return -errno.EINVAL
            if address + size > USER_END:
                return -errno.ENOMEM
            if flags & MAP_FIXED_NOREPLACE and self.overlapping(address, address + size):
                return -errno.EEXIST
            if not self._claim(address, size):
                return -errno.ENOMEM
            start = address
        else:
            start = self._choose(address & -PAGE, size)
            if start < 0:
                return start
        host = flags & ~(MAP_FIXED_NOREPLACE | MAP_GROWSDOWN) | MAP_FIXED
        result = self._kernel.call(
            syscalls.MMAP, start, size, _host_rights(protection), host, fd if not flags & MAP_ANONYMOUS else -1, offset
        )
        if result < 0:
            self._release(start, size)
            return result
        self._forget(start, start + size)
        region = Region(start, start + size, protection, flags)
        if not flags & MAP_ANONYMOUS:
            status = os.fstat(fd)
            region = region._replace(
                path=os.readlink(f"/proc/self/fd/{fd}"), offset=offset, device=status.st_dev, inode=status.st_ino
            )
        self._insert(region)
        return start

    def munmap(self, address: int, length: int) -> int:
        """Unmap what the guest owns in a range."""
        size = _pages(length)
        if address % PAGE or length == 0 or address + size > USER_END:
            return -errno.EINVAL
        pieces = self.overlapping(address, address + size)
        self._forget(address, address + size)
        # What is free again is taken first, as the kernel does: the engine keeps something of every page it ever saw.
        if pieces and MMAP_BASE <= pieces[0].start < self._next:
            self._next = pieces[0].start
        for piece in pieces:
            self._kernel.call(syscalls.MUNMAP, piece.start, piece.end - piece.start)
        return 0

    def mprotect(self, address: int, length: int, protection: int) -> int:
        """Change the rights of mapped memory."""
        size = _pages(length)
        if address % PAGE:
            return -errno.EINVAL
        if size == 0:
            return 0
        protection &= Protection.READ | Protection.WRITE | Protection.EXEC  # PROT_GROWSDOWN and the like: no effect
        cursor = address
        for piece in self.overlapping(address, address + size):
            if piece.start != cursor:  # what lies before a hole has changed: do_mprotect_pkey() in mm/mprotect.c
                return -errno.ENOMEM
            cursor = piece.end
            span = piece.end - piece.start
            result = self._kernel.call(syscalls.MPROTECT, piece.start, span, _host_rights(protection))
            if result < 0:
                return result
            if piece.protection == protection:
                continue
            if piece.protection & Protection.EXEC or protection & Protection.EXEC:
                self._engine.forget_code(piece.start, span)
            if piece.protection == Protection.NONE:
                self._engine.map(piece.start, span, _guest_rights(protection))
            else:
                self._engine.protect(piece.start, span, _guest_rights(protection))
            self._cut(piece.start, piece.end)
            changed = piece._replace(protection=protection)
            self._keep(changed)
            if protection & Protection.EXEC and not piece.protection & Protection.EXEC:
                self._announce(changed)
        return 0 if cursor == address + size else -errno.ENOMEM

    def mremap(self, address: int, old: int, new: int, flags: int, target: int) -> int:
        """Grow, shrink or move a mapping."""
        old_size, new_size = _pages(old), _pages(new)
        if address % PAGE or new_size == 0 or flags & ~7 or (flags & MREMAP_FIXED and not flags & MREMAP_MAYMOVE):
            return -errno.EINVAL
        if flags & MREMAP_DONTUNMAP or old_size == 0:
            return -errno.EINVAL
        region = self.find(address)
        if region is None or address + old_size > region.end:
            return -errno.EFAULT
        if new_size <= old_size and not flags & MREMAP_FIXED:
            if new_size < old_size:
                self.munmap(address + new_size, old_size - new_size)
            return address
        moved = region.part(address, address + old_size)
        if not flags & MREMAP_FIXED:
            if not self.overlapping(address + old_size, address + new_size):
                result = self._kernel.call(syscalls.MREMAP, address, old_size, new_size, 0, 0)
                if result == address:
                    self._forget(address, address + old_size)
                    self._insert(moved._replace(end=address + new_size))
                    return address
            if not flags & MREMAP_MAYMOVE:
                return -errno.ENOMEM
            target = self._choose(0, new_size)
            if target < 0:
                return target
        elif target % PAGE or (target < address + old_size and target + new_size > address):
            return -errno.EINVAL
        elif not self._claim(target, new_size):
            return -errno.ENOMEM
        result = self._kernel.call(syscalls.MREMAP, address, old_size, new_size, MREMAP_MAYMOVE | MREMAP_FIXED, target)
        if result < 0:
            self._release(target, new_size)
            return result
        self._forget(address, address + old_size)
        self._forget(target, target + new_size)
        self._insert(moved._replace(start=target, end=target + new_size))
        return target

    def set_brk_start(self, address: int) -> None:
        """Let the heap begin at the page after a program's last segment."""
        self.brk_start = self.brk_end = _pages(address)

    def brk(self, address: int) -> int:
        """Move the end of the heap; return where it is."""
        if address < self.brk_start:
            return self.brk_end
        old, new = _pages(self.brk_end), _pages(address)
        if new > old:
            if self.overlapping(old, new):
                return self.brk_end
            flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
            if self.mmap(old, new - old, Protection.READ | Protection.WRITE, flags, -1, 0) != old:
                return self.brk_end
        elif new < old:
            self.munmap(new, old - new)
        self.brk_end = address
        return address

    def attach(self, start: int, length: int, key: int, number: int) -> None:
        """Take in a System V segment that the host's kernel attached; one beside another stays one of its own."""
        self._insert(segment(start, start + _pages(length), Protection.READ | Protection.WRITE, key, number))

    def detach(self, address: int) -> None:
        """Let go of the segment that the host's kernel detached from an address: every piece that is left of it."""
        for region in list(self.regions):
            if region.attached_at(address):
                self.munmap(region.start, region.end - region.start)

    def clear(self) -> None:
        """Unmap everything the guest owns."""
        for region in list(self.regions):
            self.munmap(region.start, region.end - region.start)
        self.brk_start = self.brk_end = 0
        self._next = MMAP_BASE

    def choose(self, length: int) -> int:
        """Return a free address for a mapping that the host's kernel will make, without making it."""
        start = self._choose(0, _pages(length))
        if start > 0:
            self._release(start, _pages(length))
        return start

    # A guest range at a fixed address: what the guest does not own there must be free in this process. Free parts are
    # reserved, so that the mapping that follows replaces only what is ours to replace.
    def _claim(self, start: int, size: int) -> bool:
        cursor, end = start, start + size
        reserved: list[tuple[int, int]] = []
        for piece in [*self.overlapping(start, end), Region(end, end, 0, 0)]:
            if piece.start > cursor:
                if not self._reserve(cursor, piece.start - cursor):
                    self.collided = (cursor, piece.start)
                    for low, length in reserved:
                        self._kernel.call(syscalls.MUNMAP, low, length)
                    return False
                reserved.append((cursor, piece.start - cursor))
            cursor = piece.end
        return True

    def _reserve(self, start: int, size: int) -> bool:
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE
        return self._kernel.call(syscalls.MMAP, start, size, 0, flags, -1, 0) == start

    def _release(self, start: int, size: int) -> None:
        # What the guest owned in a claimed range is still mapped; only the reserved gaps go.
        cursor = start
        for piece in [*self.overlapping(start, start + size), Region(start + size, start + size, 0, 0)]:
            if piece.start > cursor:
                self._kernel.call(syscalls.MUNMAP, cursor, piece.start - cursor)
            cursor = piece.end

    def _choose(self, hint: int, size: int) -> int:
        if hint and hint + size <= USER_END and not self.overlapping(hint, hint + size) and self._reserve(hint, size):
            return hint
        start = self._next
        while start + size <= STACK_TOP - (1 << 33):
            taken = self.overlapping(start, start + size)
            if taken:
                start = taken[-1].end
            elif self._reserve(start, size):
                self._next = start + size
                return start
            else:
                start += max(size, 1 << 24)  # something of this process, which may be large
        return -errno.ENOMEM

    def _insert(self, region: Region) -> None:
        self._engine.map(region.start, region.end - region.start, _guest_rights(region.protection))
        self._keep(region)
        if region.protection & Protection.EXEC:
            self._announce(region)

    def _keep(self, region: Region) -> None:
        # Pieces that fit are one region again, as in the kernel: mremap takes only what is one. The heap stays apart.
        index = bisect_right(self.regions, region.start, key=lambda other: other.start)
        first = last = index
        if last < len(self.regions) and region.goes_on_in(self.regions[last]) and region.end != self.brk_start:
            region = region._replace(end=self.regions[last].end)
            last += 1
        if first and self.regions[first - 1].goes_on_in(region) and region.start != self.brk_start:
            first -= 1
            region = self.regions[first]._replace(end=region.end)
        self.regions[first:last] = [region]

    # Take [start, end) out of the engine and out of the list; the host's mapping is the caller's affair.
    def _forget(self, start: int, end: int) -> None:
        for piece in self.overlapping(start, end):
            span = piece.end - piece.start
            if piece.protection & Protection.EXEC:
                self._engine.forget_code(piece.start, span)
            if piece.protection != Protection.NONE:
                self._engine.unmap(piece.start, span)
        self._cut(start, end)

    def _cut(self, start: int, end: int) -> None:
        kept: list[Region] = []
        for region in self.regions:
            if region.end <= start or region.start >= end:
                kept.append(region)
                continue
            if region.start < start:
                kept.append(region.part(region.start, start))
            if region.end > end:
                kept.append(region.part(end, region.end))
        self.regions = kept

    def read(self, address: int, size: int) -> bytes | None:
        """Return guest bytes, or None when some of them cannot be read."""
        if self._readable(address, size, Protection.READ | Protection.WRITE | Protection.EXEC):
            return ctypes.string_at(address, size)
        return None

    def write(self, address: int, content: bytes) -> bool:
        """Write guest bytes; False, and nothing written, when some of them cannot be."""
        if not self._readable(address, len(content), Protection.WRITE):
            return False
        ctypes.memmove(address, content, len(content))
        return True

    def read_string(self, address: int, limit: int = 131072) -> bytes | None:
        """Return a null-terminated string of the guest, or None when it runs out of readable memory."""
        content = b""
        while len(content) < limit:
            chunk = self.read(address + len(content), PAGE - (address + len(content)) % PAGE)
            if chunk is None:
                return None
            end = chunk.find(b"\0")
            if end >= 0:
                return content + chunk[:end]
            content += chunk
        return None

    def _readable(self, address: int, size: int, rights: int) -> bool:
        pieces = self.overlapping(address, address + size)
        covered = sum(piece.end - piece.start for piece in pieces if piece.protection & rights)
        return covered == size
