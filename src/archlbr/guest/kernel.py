"""The host's kernel, asked as the guest asks it: one raw system call that a signal can always interrupt.

`machine.userland` passes the guest's calls through here. The call itself is a few bytes of machine code, so that a
signal which arrives between the last look at the pending flag and the SYSCALL instruction is not lost: the compiled
handler of `machine.signals` sees where the thread stood and moves it to the way out. Restartable calls come back as
-ERESTARTSYS, since the kernel itself puts RIP back on the SYSCALL for them (signal(7), SA_RESTART).
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

ERESTARTSYS: Final = 512

# mov rax,[rdi]; mov rdx,[rdi+24]; mov r10,[rdi+32]; mov r8,[rdi+40]; mov r9,[rdi+48]; mov rcx,rsi
# mov rsi,[rdi+16]; mov rdi,[rdi+8]
_LOAD: Final = bytes.fromhex("488b07 488b5718 4c8b5720 4c8b4728 4c8b4f30 4889f1 488b7710 488b7f08".replace(" ", ""))
# cmp qword [rcx],0; jne out; syscall; ret; out: mov rax,-512; ret
_CALL: Final = bytes.fromhex("48833900 7503 0f05 c3 48c7c000feffff c3".replace(" ", ""))


class Kernel:
    """System calls of this process, by number.

    window: the addresses (start, end, out) of the machine code between the look at the pending flag and the return, for
    the signal handler.
    """

    def __init__(self) -> None:
        self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code.write(_LOAD + _CALL)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        start = base + len(_LOAD)
        self.window = (start, start + 8, start + 9)
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
        self._call = kind(base)
        self._never = ctypes.c_uint64(0)

    def call(self, number: int, *arguments: int) -> int:
        """Make one system call for ourselves; return its result, a negative errno on failure."""
        words = (ctypes.c_uint64 * 7)(number, *[value & (1 << 64) - 1 for value in arguments])
        while True:
            result: int = self._call(ctypes.addressof(words), ctypes.addressof(self._never))
            if result != -ERESTARTSYS:
                return result

    def call_interruptible(self, words: ctypes.Array[ctypes.c_uint64], pending: int) -> int:
        """Make the guest's call (number and six arguments); -ERESTARTSYS when the word at `pending` became non-zero."""
        result: int = self._call(ctypes.addressof(words), pending)
        return result
