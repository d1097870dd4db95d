"""The raw system call, and that a signal keeps it out of the kernel."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

import capstone
import pytest

from archlbr.guest.kernel import ERESTARTSYS, Kernel

READ, WRITE, MMAP, MUNMAP, GETPID, PREAD, LSEEK = 0, 1, 9, 11, 39, 17, 8


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return Kernel()


def test_the_result_is_the_kernel_s(kernel: Kernel) -> None:
    assert kernel.call(GETPID) == os.getpid()
    assert kernel.call(READ, 1 << 20, 0, 0) == -errno.EBADF
    assert kernel.call(LSEEK, -1, 0, 0) == -errno.EBADF
    assert kernel.call(9999) == -errno.ENOSYS


def test_all_six_arguments_arrive(kernel: Kernel) -> None:
    """mmap of a file's second page uses every one, and pread shows what came."""
    with open(os.memfd_create("pages"), "r+b", buffering=0) as file:
        file.write(bytes(4096) + b"second page".ljust(4096, b"."))
        where = kernel.call(MMAP, 0, 4096, mmap.PROT_READ, mmap.MAP_PRIVATE, file.fileno(), 4096)
        assert ctypes.string_at(where, 11) == b"second page"
        assert kernel.call(MUNMAP, where, 4096) == 0
        buffer = ctypes.create_string_buffer(8)
        assert kernel.call(PREAD, file.fileno(), ctypes.addressof(buffer), 6, 4096 + 7) == 6
        assert buffer.raw == b"page..\0\0"


def guest_call(*values: int) -> ctypes.Array[ctypes.c_uint64]:
    return (ctypes.c_uint64 * 7)(*values)


def test_a_pending_signal_keeps_the_call_from_being_made(kernel: Kernel) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    text = ctypes.create_string_buffer(b"written")
    words = guest_call(WRITE, writer, ctypes.addressof(text), 7)
    pending = ctypes.c_uint64(1)
    try:
        assert kernel.call_interruptible(words, ctypes.addressof(pending)) == -ERESTARTSYS
        with pytest.raises(BlockingIOError):
            os.read(reader, 10)
        pending.value = 0
        assert kernel.call_interruptible(words, ctypes.addressof(pending)) == 7
        assert os.read(reader, 10) == b"written"
        pending.value = 1 << 63  # any bit of the word counts
        assert kernel.call_interruptible(words, ctypes.addressof(pending)) == -ERESTARTSYS
    finally:
        os.close(reader)
        os.close(writer)


def test_the_window_is_the_look_and_the_call(kernel: Kernel) -> None:
    """A signal between the look and SYSCALL, or on SYSCALL where a restart puts it, must find its way out."""
    start, end, out = kernel.window
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    code = list(decoder.disasm(ctypes.string_at(start, out + 8 - start), start))
    assert [(i.address - start, i.mnemonic, i.op_str) for i in code] == [
        (0, "cmp", "qword ptr [rcx], 0"),
        (4, "jne", hex(out)),
        (6, "syscall", ""),
        (8, "ret", ""),
        (9, "mov", "rax, 0xfffffffffffffe00"),
        (16, "ret", ""),
    ]
    assert (end - start, out - start) == (8, 9)
    assert ERESTARTSYS == 512
