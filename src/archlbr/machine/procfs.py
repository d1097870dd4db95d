"""What a program finds under /proc about itself: the program, not the process that emulates it.

`machine.calls` asks here for open and readlink. Everything else under /proc passes to the host as it is.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from archlbr.guest import syscalls as nr
from archlbr.machine.regions import MAP_GROWSDOWN, MAP_SHARED

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.machine.userland import Process, Thread

_O_WRITING: Final = os.O_WRONLY | os.O_RDWR


def _own(process: Process, path: bytes) -> str:
    # The name below /proc/self, /proc/thread-self or /proc/PID, or "" for any other path.
    for prefix in (b"/proc/self/", b"/proc/thread-self/", b"/proc/%d/" % process.pid):
        if path.startswith(prefix):
            return os.fsdecode(path[len(prefix) :])
    return ""


def maps(process: Process) -> bytes:
    """Return the guest's own /proc/self/maps (proc(5))."""
    lines = []
    memory = process.memory
    for region in memory.regions:
        rights = "".join(
            letter if region.protection & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4))
        ) + ("s" if region.flags & MAP_SHARED else "p")
        device = f"{os.major(region.device):02x}:{os.minor(region.device):02x}"
        name = region.path
        if not name and memory.brk_start <= region.start < memory.brk_end:
            name = "[heap]"
        elif not name and region.flags & MAP_GROWSDOWN:
            name = "[stack]"
        head = f"{region.start:08x}-{region.end:08x} {rights} {region.offset:08x} {device} {region.inode}"
        lines.append(f"{head:<73}{name}".rstrip() if name else head)
    return ("\n".join(lines) + "\n").encode(errors="surrogateescape")


def _content(process: Process, name: str) -> bytes | None:
    if name == "maps":
        return maps(process)
    if name == "cmdline":
        return b"".join(word + b"\0" for word in process.argv)
    if name == "auxv":
        return process.auxv
    return None


def _open(process: Process, thread: Thread, number: int, a: list[int], path_at: int, flags: int) -> int:
    path = process.memory.read_string(path_at, 4096)
    name = _own(process, path) if path is not None else ""
    if name == "exe":
        try:
            file = os.open(process.path, flags)
        except OSError as error:
            return -(error.errno or errno.EIO)
        os.set_inheritable(file, not flags & os.O_CLOEXEC)
        return file
    content = _content(process, name) if name and not flags & _O_WRITING else None
    if content is None:
        return process.pass_on(thread, number, a)
    file = os.memfd_create(name, os.MFD_CLOEXEC if flags & os.O_CLOEXEC else 0)
    os.write(file, content)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def open_(process: Process, thread: Thread, a: list[int]) -> int:
    """Open a file (path, flags, mode)."""
    return _open(process, thread, nr.OPEN, a, a[0], a[1])


def openat(process: Process, thread: Thread, a: list[int]) -> int:
    """Open a file (dirfd, path, flags, mode)."""
    return _open(process, thread, nr.OPENAT, a, a[1], a[2])


def _readlink(process: Process, thread: Thread, number: int, a: list[int], path_at: int, buffer: int, size: int) -> int:
    path = process.memory.read_string(path_at, 4096)
    if path is None or _own(process, path) != "exe":
        return process.pass_on(thread, number, a)
    target = os.fsencode(process.path)[:size]
    return len(target) if process.memory.write(buffer, target) else -errno.EFAULT


def readlink(process: Process, thread: Thread, a: list[int]) -> int:
    """Read a link (path, buf, size)."""
    return _readlink(process, thread, nr.READLINK, a, a[0], a[1], a[2])


def readlinkat(process: Process, thread: Thread, a: list[int]) -> int:
    """Read a link (dirfd, path, buf, size)."""
    return _readlink(process, thread, nr.READLINKAT, a, a[1], a[2], a[3])


CALLS: Final[dict[int, Callable[[Process, Thread, list[int]], int | None]]] = {
    nr.OPEN: open_,
    nr.OPENAT: openat,
    nr.READLINK: readlink,
    nr.READLINKAT: readlinkat,
}
