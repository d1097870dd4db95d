"""fork, vfork and posix_spawn: the emulating process itself forks, and its child goes on as the guest's child.

`machine.calls` comes here for clone without CLONE_THREAD. The engine's state is this process's memory, so a fork copies
it. A vfork is a fork whose parent waits until the child becomes another program or ends; what the child wrote near the
parent's stack is carried over then, since posix_spawn(3) reports its errors that way (docs/decisions/012).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import struct
import warnings
from typing import TYPE_CHECKING, Final

from archlbr.guest import syscalls as nr

if TYPE_CHECKING:
    from archlbr.machine.userland import Process, Thread

# Where the pipe of a vfork lives in the child, out of the way of programs that count their files from 3.
_HIGH_FD: Final = 400
# How much of the parent's stack above its stack pointer a vfork child may have written to.
_SHARED_STACK: Final = 64 << 10


def fork(
    process: Process, thread: Thread, flags: int, stack: int, parent_tid: int, child_tid: int, tls: int
) -> int | None:
    """Fork; the parent gets the child's pid, the child 0 in a register of its own."""
    wait = flags & nr.CLONE_VFORK and flags & nr.CLONE_VM
    if flags & nr.CLONE_VM and not wait:
        return -errno.EINVAL  # a process that shares memory without waiting: no C library makes one
    process.recorder.forking()
    rsp = process.engine.registers()["RSP"]
    parent = process.pid
    ours = theirs = -1
    try:
        if wait:
            ours, theirs = os.pipe()
        # Python 3.12 warns of forks with threads; only this thread goes on in the child.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
    except OSError as error:
        if ours >= 0:
            os.close(ours)
            os.close(theirs)
        return -(error.errno or errno.EAGAIN)
    if pid == 0:
        _become_child(process, thread, flags, stack, child_tid, tls, parent)
        if wait:
            os.close(ours)
            process.spawning = _raise_fd(theirs)
        return 0
    if flags & nr.CLONE_PARENT_SETTID:
        process.memory.write(parent_tid, struct.pack("<i", pid))
    if wait:
        os.close(theirs)
        _wait_for_child(process, pid, ours, rsp)
    return pid


def _become_child(
    process: Process, thread: Thread, flags: int, stack: int, child_tid: int, tls: int, parent: int
) -> None:
    process.forked(thread, parent)
    changed = {}
    if stack:
        changed["RSP"] = stack
    if flags & nr.CLONE_SETTLS:
        changed["FS_BASE"] = tls
    process.engine.write_registers(changed)
    if flags & nr.CLONE_CHILD_SETTID:
        process.memory.write(child_tid, struct.pack("<i", process.pid))
    thread.cleared = child_tid if flags & nr.CLONE_CHILD_CLEARTID else 0
    if process.spawning >= 0:
        os.close(process.spawning)
        process.spawning = -1


def _raise_fd(fd: int) -> int:
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD)
    except OSError:
        return fd  # so many files may not be open: it stays where it is
    os.close(fd)
    return high


def release_parent(process: Process, share: bool) -> None:
    """Let the parent of a vfork go on: the child becomes another program, or (share) ends and its writes are wanted."""
    if process.spawning < 0:
        return
    try:
        if share:
            os.write(process.spawning, b"s")
            # The parent copies from this process's memory; the end of the pipe says that it has.
            poller = select.poll()
            poller.register(process.spawning, 0)
            poller.poll(5000)
        os.close(process.spawning)
    except OSError:
        pass  # the guest closed it, or the parent is gone
    process.spawning = -1


def _wait_for_child(process: Process, pid: int, pipe: int, rsp: int) -> None:
    try:
        word = os.read(pipe, 1)
        if word == b"s":
            _copy_stack(process, pid, rsp)
    finally:
        os.close(pipe)


def _copy_stack(process: Process, pid: int, rsp: int) -> None:
    region = process.memory.find(rsp)
    if region is None:
        return
    size = min(_SHARED_STACK, region.end - rsp)
    buffer = ctypes.create_string_buffer(size)
    local = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), size)
    remote = (ctypes.c_uint64 * 2)(rsp, size)
    got = process.kernel.call(nr.PROCESS_VM_READV, pid, ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0)
    if got > 0:
        process.memory.write(rsp, buffer.raw[:got])
