"""Loading a program: the first one, and every one that execve names.

`machine.supervise` calls `start`; `machine.calls` calls `execve`. Segments are mapped as fs/binfmt_elf.c maps them,
position-independent ones at fixed bases, so that two runs look alike.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING, Final

from archlbr.cpu.engine import Protection
from archlbr.errors import InputError
from archlbr.guest import elf, stack
from archlbr.guest import signals as linux
from archlbr.guest import syscalls as nr
from archlbr.machine.forking import release_parent
from archlbr.machine.memory import MMAP_BASE, PAGE, PIE_BASE, STACK_TOP
from archlbr.machine.processor import answer_cpuid
from archlbr.machine.regions import (
    MAP_ANONYMOUS,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_NORESERVE,
    MAP_PRIVATE,
)

if TYPE_CHECKING:
    from archlbr.machine.recorder import Recorder
    from archlbr.machine.userland import Process, Thread

STACK_SIZE: Final = 8 << 20
_INTERPRETER_BASE: Final = MMAP_BASE - (1 << 32)
# Sixteen bytes for AT_RANDOM: fixed, so that a run can be repeated (ours, docs/decisions/012).
_RANDOM: Final = bytes(range(0x10, 0x20))
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000


def start(path: str, argv: tuple[bytes, ...], envp: tuple[bytes, ...], recorder: Recorder) -> tuple[Process, Thread]:
    """Return a process with a program loaded, ready to run; InputError when it cannot be run."""
    from archlbr.machine.userland import Process, Thread

    program = elf.resolve(path, argv)
    if isinstance(program, elf.Refusal):
        raise InputError(program.reason)
    process = Process(recorder)
    recorder.named(process.pid, _comm(path), True)
    thread = Thread(tid=process.pid, rip=0)
    refused = _load(process, thread, path, program, envp)
    if refused:
        raise InputError(refused)
    return process, thread


def execve(
    process: Process, thread: Thread, dirfd: int, path_at: int, argv_at: int, envp_at: int, flags: int
) -> int | None:
    """Turn the process into another program; a negative errno when it stays what it is."""
    memory = process.memory
    raw = memory.read_string(path_at, 4096)
    argv = _strings(process, argv_at)
    envp = _strings(process, envp_at)
    if raw is None or argv is None or envp is None:
        return -errno.EFAULT
    path = os.fsdecode(raw)
    if dirfd != _AT_FDCWD and not path.startswith("/"):
        if not path and not flags & _AT_EMPTY_PATH:
            return -errno.ENOENT
        path = os.path.join(f"/proc/self/fd/{dirfd}", path) if path else f"/proc/self/fd/{dirfd}"
    if path in ("/proc/self/exe", f"/proc/{process.pid}/exe"):
        path = process.path
    if not path:
        return -errno.ENOENT
    program = elf.resolve(path, argv or (b"",))
    if isinstance(program, elf.Refusal):
        return -program.errno
    if sum(len(text) + 9 for text in (*argv, *envp)) > stack.ARGUMENT_LIMIT:
        return -errno.E2BIG
    # The point of no return.
    release_parent(process, share=False)
    process.recorder.flush()
    for other in process.threads.values():
        other.ended = other is not thread
    process.threads = {thread.tid: thread}
    close_on_exec()
    process.signals.reset_for_exec()
    thread.alternate = linux.AlternateStack()
    thread.cleared = 0
    thread.saved = None
    comm = _comm(path if not path.startswith("/proc/self/fd/") else os.path.realpath(path))
    process.renew()
    process.recorder.named(thread.tid, comm, True)
    refused = _load(
        process, thread, os.path.realpath(path) if path.startswith("/proc/self/fd/") else path, program, envp
    )
    if refused:
        process.messages.append(refused)
        process.status = -9
        return None
    process.recorder.kernel_returned(thread.rip, True)
    return None


def _comm(path: str) -> bytes:
    return os.fsencode(os.path.basename(path))[:15]


def _load(process: Process, thread: Thread, path: str, program: elf.Program, envp: tuple[bytes, ...]) -> str:
    image, interpreter = program.image, program.interpreter
    base = 0 if image.kind == elf.ET_EXEC else PIE_BASE - image.low
    refused = _map(process, image, base)
    if refused:
        return refused
    process.memory.set_brk_start(base + image.high)
    interpreter_base = 0
    if interpreter is not None:
        interpreter_base = _INTERPRETER_BASE - interpreter.low
        refused = _map(process, interpreter, interpreter_base)
        if refused:
            return refused
    rights = Protection.READ | Protection.WRITE | (Protection.EXEC if image.executable_stack else 0)
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE
    low = STACK_TOP - STACK_SIZE
    if process.memory.mmap(low, STACK_SIZE, rights, flags, -1, 0) != low:
        return f"no room for the stack at {low:#x}: the emulator lies there; run it with address randomisation on"
    auxv = {
        stack.AT_HWCAP: answer_cpuid(1, 0)[3],  # EDX (ELF_HWCAP in arch/x86/include/asm/elf.h)
        stack.AT_PAGESZ: PAGE,
        stack.AT_CLKTCK: 100,
        stack.AT_PHDR: base + _phdr_address(image),
        stack.AT_PHENT: image.phentsize,
        stack.AT_PHNUM: image.phnum,
        stack.AT_BASE: interpreter_base,
        stack.AT_FLAGS: 0,
        stack.AT_ENTRY: base + image.entry,
        stack.AT_UID: os.getuid(),
        stack.AT_EUID: os.geteuid(),
        stack.AT_GID: os.getgid(),
        stack.AT_EGID: os.getegid(),
        stack.AT_SECURE: 0,
        stack.AT_HWCAP2: 0,
    }
    first = stack.build(STACK_TOP - PAGE, program.argv, envp, auxv, os.fsencode(path), _RANDOM)
    process.memory.write(first.rsp, first.content)
    process.path = os.path.realpath(image.path)
    process.argv = program.argv
    name = ctypes.create_string_buffer(_comm(path))
    process.kernel.call(nr.PRCTL, nr.PR_SET_NAME, ctypes.addressof(name), 0, 0, 0)
    process.auxv = first.auxv
    process.engine.write_registers({"RSP": first.rsp})
    thread.rip = (interpreter_base + interpreter.entry) if interpreter is not None else base + image.entry
    return ""


def _phdr_address(image: elf.Image) -> int:
    for segment in image.segments:
        if segment.offset <= image.phoff < segment.offset + segment.filesz:
            return segment.vaddr + image.phoff - segment.offset
    return 0


# Map the segments; the reason in a sentence when the addresses are taken.
def _map(process: Process, image: elf.Image, base: int) -> str:
    memory = process.memory
    fd = os.open(image.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for segment in image.segments:
            start = (base + segment.vaddr) & -PAGE
            file_end = base + segment.vaddr + segment.filesz
            end = (base + segment.vaddr + segment.memsz + PAGE - 1) & -PAGE
            flags = MAP_PRIVATE | MAP_FIXED_NOREPLACE
            result = start
            mapped = start
            if segment.filesz:
                mapped = (file_end + PAGE - 1) & -PAGE
                result = memory.mmap(
                    start, mapped - start, segment.protection, flags, fd, segment.offset - (segment.vaddr % PAGE)
                )
            if result == start and end > mapped:
                result = memory.mmap(mapped, end - mapped, segment.protection, flags | MAP_ANONYMOUS, -1, 0)
                result = start if result == mapped else result
            if result != start:
                return (
                    f"{image.path} is linked at {start:#x}, where the emulator itself lies; "
                    "use a position-independent build, or a Python that is position-independent"
                )
            if segment.memsz > segment.filesz and segment.protection & Protection.WRITE and file_end % PAGE:
                ctypes.memset(file_end, 0, -file_end % PAGE)
    finally:
        os.close(fd)
    return ""


def _strings(process: Process, address: int) -> tuple[bytes, ...] | None:
    texts: list[bytes] = []
    while address:
        word = process.memory.read(address, 8)
        if word is None:
            return None
        (pointer,) = struct.unpack("<Q", word)
        if pointer == 0:
            break
        text = process.memory.read_string(pointer)
        if text is None:
            return None
        texts.append(text)
        address += 8
    return tuple(texts)


def close_on_exec() -> None:
    """Close every descriptor that does not outlive execve."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if not os.get_inheritable(fd):
                os.close(fd)
        except OSError:
            continue  # the listing's own descriptor
