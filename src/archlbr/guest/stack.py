"""A program's first stack: argc, argv, envp and the auxiliary vector, as the kernel lays them out.

`machine.userland` writes the bytes below the top of the guest's stack. No AT_SYSINFO_EHDR is given: without a vDSO the
C library makes system calls, which the machine sees. Source: fs/binfmt_elf.c, create_elf_tables(); System V ABI 3.4.1.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

AT_NULL: Final = 0
AT_PHDR: Final = 3
AT_PHENT: Final = 4
AT_PHNUM: Final = 5
AT_PAGESZ: Final = 6
AT_BASE: Final = 7
AT_FLAGS: Final = 8
AT_ENTRY: Final = 9
AT_UID: Final = 11
AT_EUID: Final = 12
AT_GID: Final = 13
AT_EGID: Final = 14
AT_PLATFORM: Final = 15
AT_HWCAP: Final = 16
AT_CLKTCK: Final = 17
AT_SECURE: Final = 23
AT_RANDOM: Final = 25
AT_HWCAP2: Final = 26
AT_EXECFN: Final = 31

# Strings and vectors may take a quarter of the stack (fs/exec.c, bprm_stack_limits()).
ARGUMENT_LIMIT: Final = 2 << 20


class FirstStack(NamedTuple):
    """The stack pointer at entry, the bytes from there up, and where the auxiliary vector lies."""

    rsp: int
    content: bytes
    auxv: bytes


def build(
    top: int, argv: tuple[bytes, ...], envp: tuple[bytes, ...], auxv: dict[int, int], execfn: bytes, random: bytes
) -> FirstStack:
    """Return the first stack of a program below the address `top`.

    `auxv` holds what the loader knows; AT_RANDOM, AT_EXECFN and AT_PLATFORM are placed here. `random` is 16 bytes.
    """
    cursor = top - 8  # a null word ends the stack
    pieces = [bytes(8)]

    def place(text: bytes) -> int:
        nonlocal cursor
        cursor -= len(text)
        pieces.append(text)
        return cursor

    execfn_at = place(execfn + b"\0")
    environment = [place(text + b"\0") for text in reversed(envp)][::-1]
    arguments = [place(text + b"\0") for text in reversed(argv)][::-1]
    platform_at = place(b"x86_64\0")
    padding = (cursor - 16) % 16
    place(bytes(padding))
    random_at = place(random)
    vector = {**auxv, AT_RANDOM: random_at, AT_EXECFN: execfn_at, AT_PLATFORM: platform_at, AT_NULL: 0}
    auxiliary = b"".join(struct.pack("<QQ", key, value) for key, value in vector.items())
    words = [len(argv), *arguments, 0, *environment, 0]
    body = struct.pack(f"<{len(words)}Q", *words) + auxiliary
    rsp = (cursor - len(body)) & -16
    gap = cursor - len(body) - rsp
    return FirstStack(rsp, body + bytes(gap) + b"".join(reversed(pieces)), auxiliary)
