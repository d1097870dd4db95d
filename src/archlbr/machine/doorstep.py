"""The few instructions that the engine calls for every block: the short path of `journal.sampling`, by hand.

What numba compiles as a C callback enters through a frame, a call and a test for exceptions, which cost more than
noting a block does. So the hook is these instructions, which end in a jump to `journal.sampling` where that has
something to do. They are the twin of its first lines; a test holds the two equal and disassembles the bytes. The System
V ABI gives RDI the engine, RSI the block's address, EDX its bytes, RCX the words.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from typing import Final

from archlbr.cpu import words as at


def instructions(slow: int) -> tuple[tuple[str, bytes], ...]:
    """Return what each instruction is and its bytes; `slow` is where the compiled hook begins."""
    used, rows, limit = (struct.pack("<i", 8 * word) for word in (at.JOURNAL_USED, at.JOURNAL, at.LIMIT))
    shift = struct.pack("<B", at.JOURNAL_SIZE_SHIFT)
    return (
        ("mov eax, dword ptr [rcx + USED]", b"\x8b\x81" + used),
        ("lea r8d, [rax + 1]", b"\x44\x8d\x40\x01"),
        ("cmp r8, qword ptr [rcx + LIMIT]", b"\x4c\x3b\x81" + limit),
        ("jae SLOW", b"\x73\x17"),
        ("shl rdx, SHIFT", b"\x48\xc1\xe2" + shift),
        ("or rdx, rsi", b"\x48\x09\xf2"),
        ("mov qword ptr [rcx + rax*8 + JOURNAL], rdx", b"\x48\x89\x94\xc1" + rows),
        ("mov dword ptr [rcx + USED], r8d", b"\x44\x89\x81" + used),
        ("ret", b"\xc3"),
        ("movabs rax, SAMPLING", b"\x48\xb8" + struct.pack("<Q", slow)),
        ("jmp rax", b"\xff\xe0"),
    )


class Doorstep:
    """The instructions in memory of their own, in front of a compiled hook at address `slow`."""

    def __init__(self, slow: int) -> None:
        self.code: Final = b"".join(code for _, code in instructions(slow))
        self._page = mmap.mmap(
            -1,
            mmap.PAGESIZE,
            mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
            prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
        )
        self._page.write(self.code)
        self.address: Final = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
