"""What every engine offers: guest code runs until something needs attention.

`machine` drives an engine through this protocol and never asks which one it is. An engine maps memory it is given,
executes, and stops with a `Stop`; it knows nothing of LBRs or of Linux.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, Protocol


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


class Engine(Protocol):
    """A processor that runs guest code out of this process's own memory."""

    def map(self, start: int, length: int, protection: int) -> None:
        """Let the guest see this process's memory at the same addresses; lengths in whole pages."""

    def unmap(self, start: int, length: int) -> None:
        """Take guest memory away again."""

    def protect(self, start: int, length: int, protection: int) -> None:
        """Change the rights of mapped memory."""

    def run(self, rip: int) -> Stop:
        """Execute from `rip` until something stops it."""

    def save(self) -> object:
        """Return the register state, to be given to `restore` later."""

    def restore(self, context: object) -> None:
        """Put a saved register state back."""
