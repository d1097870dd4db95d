"""What an engine stops with, and the rights of the memory that it runs in.

`cpu.unicorn.engine` executes guest code until something needs attention, and says what by a `Stop`; `machine` asks it.
An engine knows nothing of LBRs or of Linux.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class StopReason(IntEnum):
    """Why guest code stopped running; the values are those of the words' REASON_ constants."""

    NONE = 0
    SYSCALL = 1
    SLICE = 2
    SIGNAL = 3
    FLUSH = 4
    EXCEPTION = 5
    FAULT = 6
    INVALID = 7


class Stop(NamedTuple):
    """One stop: the reason, the guest's RIP, and what the reason carries.

    vector: the exception vector (EXCEPTION). address, access: the data address that no mapping allows and the engine's
    name for the access, one of "read", "write", "fetch" (FAULT); `present` says whether something is mapped there.
    """

    reason: StopReason
    rip: int
    vector: int = 0
    address: int = 0
    access: str = ""
    present: int = 0


class Protection(IntEnum):
    """Bits of a mapping's rights, as mmap(2) has them."""

    NONE = 0
    READ = 1
    WRITE = 2
    EXEC = 4
