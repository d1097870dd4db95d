"""Waiting for a blocked signal: what `signal.sigtimedwait` does, less its wrong answer after a stop.

Where a stopped process goes on (Ctrl-Z, then fg) after the wait's end, Python returns a siginfo that nobody has filled
in. `machine.supervise` and `cli.isolation` wait here. Authority: sigtimedwait(2), signal(7) on SIGCONT.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_LIBC: Final = ctypes.CDLL(None)


class Siginfo(NamedTuple):
    """A signal: si_signo, and si_code, which says where it came from (SI_KERNEL, SI_USER and others)."""

    number: int
    code: int


class _Info(ctypes.Structure):
    _fields_ = (("number", ctypes.c_int), ("errno", ctypes.c_int), ("code", ctypes.c_int), ("rest", ctypes.c_int * 29))


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def sigtimedwait(numbers: Iterable[int], seconds: float) -> Siginfo | None:
    """Take the first of some blocked signals; None where none came in time, or the wait was cut short."""
    wanted = (ctypes.c_uint64 * 16)(sum(1 << number - 1 for number in set(numbers)))  # sigset_t
    info = _Info()
    time = _Time(int(seconds), int(seconds % 1 * 1e9))
    taken = _LIBC.sigtimedwait(wanted, ctypes.byref(info), ctypes.byref(time))
    return Siginfo(info.number, info.code) if taken > 0 else None
