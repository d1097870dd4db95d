"""The system calls that are the machine's: address space, threads, signals, the program itself, the processor.

`machine.userland` looks a number up in `OURS` before it asks the host's kernel. Each function takes the process, the
calling thread and six arguments, and returns the result as the kernel would; None when it has set the registers itself
or the thread does not go on. Meanings follow the man pages (section 2) of the calls' names.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from typing import TYPE_CHECKING, Final, TypeAlias

from archlbr.guest import signals as linux
from archlbr.guest import syscalls as nr
from archlbr.machine import delivery, forking, launch, procfs
from archlbr.machine.regions import MAP_ANONYMOUS

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.machine.userland import Process, Thread

Arguments: TypeAlias = list[int]
Call: TypeAlias = "Callable[[Process, Thread, Arguments], int | None]"

_SHM_RDONLY: Final = 0o10000
_SHM_REMAP: Final = 0o40000
_IPC_STAT: Final = 2


def signed(value: int) -> int:
    """Return a register as the C int a call declares."""
    return ctypes.c_int(value & 0xFFFFFFFF).value


def mmap(process: Process, _thread: Thread, a: Arguments) -> int:
    """Map memory or a file (addr, length, prot, flags, fd, offset)."""
    fd = signed(a[4])
    if not a[3] & MAP_ANONYMOUS:
        try:
            os.fstat(fd)
        except OSError as error:
            return -(error.errno or errno.EBADF)
    return _complain_of_collision(process, process.memory.mmap(a[0], a[1], a[2] & 0xF, a[3] & 0xFFFFFFFF, fd, a[5]))


def munmap(process: Process, _thread: Thread, a: Arguments) -> int:
    """Unmap memory (addr, length)."""
    return process.memory.munmap(a[0], a[1])


def mprotect(process: Process, _thread: Thread, a: Arguments) -> int:
    """Change the rights of memory (addr, length, prot)."""
    return process.memory.mprotect(a[0], a[1], a[2] & 0xF)


def mremap(process: Process, _thread: Thread, a: Arguments) -> int:
    """Grow, shrink or move a mapping (old_address, old_size, new_size, flags, new_address)."""
    return _complain_of_collision(process, process.memory.mremap(a[0], a[1], a[2], a[3], a[4]))


def brk(process: Process, _thread: Thread, a: Arguments) -> int:
    """Move the end of the heap (addr)."""
    return process.memory.brk(a[0])


def shmat(process: Process, _thread: Thread, a: Arguments) -> int:
    """Attach shared memory (shmid, addr, flags), at an address of ours when none is asked for."""
    status = ctypes.create_string_buffer(256)
    result = process.kernel.call(nr.SHMCTL, a[0], _IPC_STAT, ctypes.addressof(status))
    if result < 0:
        return result
    key, size = struct.unpack_from("<I", status)[0], struct.unpack_from("<Q", status, 48)[0]  # struct shmid64_ds
    where = a[1] or process.memory.choose(size)
    if where < 0 or process.memory.overlapping(where, where + size):
        return -errno.EINVAL
    result = process.kernel.call(nr.SHMAT, a[0], where, a[2] & ~_SHM_REMAP)
    if result >= 0:
        process.memory.attach(result, size, key, a[0])
        if a[2] & _SHM_RDONLY:
            process.memory.mprotect(result, size, 1)
    return result


def shmdt(process: Process, _thread: Thread, a: Arguments) -> int:
    """Detach shared memory (addr)."""
    result = process.kernel.call(nr.SHMDT, a[0])
    if result == 0:
        process.memory.detach(a[0])
    return result


def rt_sigaction(process: Process, _thread: Thread, a: Arguments) -> int:
    """Examine or change a signal's action (sig, act, oldact, sigsetsize)."""
    number = signed(a[0])
    if a[3] != 8 or not 1 <= number <= linux.COUNT:
        return -errno.EINVAL
    old = process.signals.actions[number]
    new = None
    if a[1]:
        if number in linux.UNCATCHABLE:
            return -errno.EINVAL
        raw = process.memory.read(a[1], 32)
        if raw is None:
            return -errno.EFAULT
        new = linux.Action.unpack(raw)
    if a[2] and not process.memory.write(a[2], old.pack()):
        return -errno.EFAULT
    if new is not None:
        process.signals.set(number, new)
    return 0


def rt_sigreturn(process: Process, thread: Thread, _a: Arguments) -> None:
    """Go back to what a signal interrupted."""
    delivery.sigreturn(process, thread)


def sigaltstack(process: Process, thread: Thread, a: Arguments) -> int:
    """Examine or change the alternate signal stack (ss, old_ss)."""
    rsp = process.engine.registers()["RSP"]
    old = thread.alternate
    if a[0]:
        raw = process.memory.read(a[0], linux.STACK_SIZE)
        if raw is None:
            return -errno.EFAULT
        new = old.changed(linux.AlternateStack.unpack(raw), rsp)
        if isinstance(new, int):
            return -new
        thread.alternate = new
    if a[1] and not process.memory.write(a[1], old.seen(rsp).pack()):
        return -errno.EFAULT
    return 0


def arch_prctl(process: Process, _thread: Thread, a: Arguments) -> int:
    """Get or set FS or GS (code, addr): FS and GS are the engine's."""
    code = signed(a[0])
    if code in (nr.ARCH_SET_FS, nr.ARCH_SET_GS):
        if a[1] >= 1 << 47:
            return -errno.EPERM
        process.engine.write_registers({"FS_BASE" if code == nr.ARCH_SET_FS else "GS_BASE": a[1]})
        return 0
    if code in (nr.ARCH_GET_FS, nr.ARCH_GET_GS):
        base = process.engine.fs_base if code == nr.ARCH_GET_FS else process.engine.gs_base
        return 0 if process.memory.write(a[1], struct.pack("<Q", base)) else -errno.EFAULT
    return -errno.EINVAL


def prctl(process: Process, thread: Thread, a: Arguments) -> int:
    """Operate on the thread (option, ...): names are noted; what would bind the emulator is refused."""
    option = signed(a[0])
    if option in (nr.PR_SET_SECCOMP, nr.PR_SET_MM):
        return -errno.EINVAL
    result = process.kernel.call(nr.PRCTL, *a[:5])
    if option == nr.PR_SET_NAME and result == 0:
        name = process.memory.read_string(a[1], 16)
        process.recorder.named(thread.tid, (name or b"")[:15], False)
    return result


def set_tid_address(_process: Process, thread: Thread, a: Arguments) -> int:
    """Keep the address that the machine clears when the thread ends (tidptr)."""
    thread.cleared = a[0]
    return thread.tid


def prlimit64(process: Process, _thread: Thread, a: Arguments) -> int:
    """Get or set a limit (pid, resource, new, old): memory limits would bind the emulator and are not set."""
    if a[2] and signed(a[1]) in nr.EMULATOR_LIMITS and signed(a[0]) in (0, process.pid):
        return process.kernel.call(nr.PRLIMIT64, a[0], a[1], 0, a[3])
    return process.kernel.call(nr.PRLIMIT64, *a[:4])


def setrlimit(process: Process, _thread: Thread, a: Arguments) -> int:
    """Set a limit (resource, rlim), as prlimit64."""
    if signed(a[0]) in nr.EMULATOR_LIMITS:
        return 0
    return process.kernel.call(nr.SETRLIMIT, *a[:2])


def clone(process: Process, thread: Thread, a: Arguments) -> int | None:
    """Create a thread or a process (flags, stack, parent_tid, child_tid, tls)."""
    flags = a[0]
    if flags & nr.CLONE_THREAD:
        return new_thread(process, thread, a)
    if flags & nr.CLONE_UNSUPPORTED:
        return -errno.EINVAL
    return forking.fork(process, thread, flags, a[1], a[2], a[3], a[4])


def new_thread(process: Process, thread: Thread, a: Arguments) -> int:
    """Start a thread that goes on after the caller's SYSCALL with its own stack and FS base."""
    from archlbr.machine.userland import Thread as NewThread

    engine = process.engine
    flags, stack, parent_tid, child_tid, tls = a[:5]
    registers = engine.registers()
    mine = engine.save()
    changed = {"RAX": 0, "RSP": stack or registers["RSP"], "RCX": thread.rip, "R11": registers["EFLAGS"]}
    if flags & nr.CLONE_SETTLS:
        changed["FS_BASE"] = tls
    engine.write_registers(changed)
    child = NewThread(tid=0, rip=thread.rip, saved=engine.save(), alternate=linux.DISARMED)
    engine.restore(mine)
    ready = threading.Event()
    # The new thread waits for its turn before it runs, so that its tid is known and written first.
    process.start_thread(child, ready)
    ready.wait()
    if flags & nr.CLONE_CHILD_CLEARTID:
        child.cleared = child_tid
    word = struct.pack("<i", child.tid)
    if flags & nr.CLONE_PARENT_SETTID:
        process.memory.write(parent_tid, word)
    if flags & nr.CLONE_CHILD_SETTID:
        process.memory.write(child_tid, word)
    process.threads[child.tid] = child
    process.recorder.thread_started(child.tid, thread.tid)
    return child.tid


def fork(process: Process, thread: Thread, _a: Arguments) -> int | None:
    """Create a process."""
    return forking.fork(process, thread, nr.SIGCHLD, 0, 0, 0, 0)


def vfork(process: Process, thread: Thread, _a: Arguments) -> int | None:
    """Create a process and wait for its execve."""
    return forking.fork(process, thread, nr.SIGCHLD | nr.CLONE_VM | nr.CLONE_VFORK, 0, 0, 0, 0)


def execve(process: Process, thread: Thread, a: Arguments) -> int | None:
    """Become another program (path, argv, envp)."""
    return launch.execve(process, thread, -100, a[0], a[1], a[2], 0)


def execveat(process: Process, thread: Thread, a: Arguments) -> int | None:
    """Become another program (dirfd, path, argv, envp, flags)."""
    return launch.execve(process, thread, signed(a[0]), a[1], a[2], a[3], a[4])


def exit_thread(process: Process, thread: Thread, a: Arguments) -> None:
    """End this thread (status), and with its last one the process."""
    if len(process.threads) == 1:
        process.status = a[0] & 0xFF
        return
    process.recorder.flush()
    process.recorder.thread_ended(thread.tid)
    del process.threads[thread.tid]
    thread.ended = True
    # No signal may pick a thread that runs no guest code any more.
    everything = struct.pack("<Q", (1 << 64) - 1)
    process.kernel.call(nr.RT_SIGPROCMASK, 2, ctypes.addressof(ctypes.create_string_buffer(everything)), 0, 8)
    if thread.cleared and process.memory.write(thread.cleared, bytes(4)):
        process.kernel.call(nr.FUTEX, thread.cleared, nr.FUTEX_WAKE, 1)


def exit_group(process: Process, _thread: Thread, a: Arguments) -> None:
    """End the process (status)."""
    process.status = a[0] & 0xFF


OURS: Final[dict[int, Call]] = {
    nr.MMAP: mmap,
    nr.MUNMAP: munmap,
    nr.MPROTECT: mprotect,
    nr.MREMAP: mremap,
    nr.BRK: brk,
    nr.SHMAT: shmat,
    nr.SHMDT: shmdt,
    nr.RT_SIGACTION: rt_sigaction,
    nr.RT_SIGRETURN: rt_sigreturn,
    nr.SIGALTSTACK: sigaltstack,
    nr.ARCH_PRCTL: arch_prctl,
    nr.PRCTL: prctl,
    nr.SET_TID_ADDRESS: set_tid_address,
    nr.PRLIMIT64: prlimit64,
    nr.SETRLIMIT: setrlimit,
    nr.CLONE: clone,
    nr.FORK: fork,
    nr.VFORK: vfork,
    nr.EXECVE: execve,
    nr.EXECVEAT: execveat,
    nr.EXIT: exit_thread,
    nr.EXIT_GROUP: exit_group,
    **procfs.CALLS,
}


def _complain_of_collision(process: Process, result: int) -> int:
    if process.memory.collided is not None:
        low, high = process.memory.collided
        process.memory.collided = None
        process.messages.append(
            f"{process.path} asked for a mapping at {low:#x}-{high:#x}, where the emulator itself lies; "
            "it was told ENOMEM; build the program so that it lets the kernel choose"
        )
    return result
