"""A program that stops at its entry: its libraries are mapped, and nothing of its own has run.

A child asks to be traced and executes the program (`machine.supervise`); `hold_at_entry` lets it run to the entry,
leaves a jump to itself there and lets go, so that Frida can trace it next. Authority: ptrace(2), getauxval(3).
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from typing import Final, NamedTuple

from archlbr.errors import InputError

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.restype = ctypes.c_long
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_TRACEME, _PEEKTEXT, _POKETEXT, _POKEUSER, _CONT, _DETACH = 0, 1, 4, 6, 7, 17
_RIP: Final = 16 * 8  # in struct user_regs_struct
_AT_ENTRY: Final = 9
_INT3, _JUMP_TO_ITSELF = 0xCC, 0xFEEB
_WORD: Final = (1 << 64) - 1


class Held(NamedTuple):
    """Where a program waits, and the eight bytes that belong there."""

    entry: int
    code: int


def trace_me() -> None:
    """Let the parent trace this process: it stops when it executes a program."""
    _LIBC.ptrace(_TRACEME, 0, None, None)


def hold_at_entry(pid: int) -> Held:
    """Bring a child that has called `trace_me` and executes a program to its entry, and leave it there, untraced."""
    _stopped(pid)
    with open(f"/proc/{pid}/auxv", "rb") as file:
        vector = dict(struct.iter_unpack("QQ", file.read()))
    entry = vector[_AT_ENTRY]
    code = _LIBC.ptrace(_PEEKTEXT, pid, entry, None) & _WORD
    _ask(_POKETEXT, pid, entry, code & ~0xFF | _INT3)
    delivered = 0
    while True:
        _ask(_CONT, pid, 0, delivered)
        delivered = _stopped(pid)
        if delivered == signal.SIGTRAP:
            break
    _ask(_POKETEXT, pid, entry, code & ~0xFFFF | _JUMP_TO_ITSELF)
    _ask(_POKEUSER, pid, _RIP, entry)
    _ask(_DETACH, pid, 0, 0)
    return Held(entry, code)


def _ask(request: int, pid: int, address: int, value: int) -> None:
    if _LIBC.ptrace(request, pid, address, value) < 0:
        raise InputError(f"--engine stalker cannot trace the program ({os.strerror(ctypes.get_errno())})")


def _stopped(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        raise InputError("--engine stalker: the program ended before it reached its entry")
    return os.WSTOPSIG(status)
