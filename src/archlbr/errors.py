"""What can go wrong with us, as exceptions; what can go wrong for the guest is a value (`arch.outcomes`).

    ArchLbrError
    +-- InputError       the user's doing: one line with the way out, exit status 2, no traceback
    `-- InternalError    ours: a traceback, and a request to report it
        `-- LayoutError  a register's layout contradicts itself; found at import

`cli` catches InputError and nothing else.
"""

from __future__ import annotations


class ArchLbrError(Exception):
    """The root of every exception this package raises on purpose."""


class InputError(ArchLbrError):
    """The input cannot be used; the message names the cause and the way out in one line."""


class InternalError(ArchLbrError):
    """An assumption of ours was broken; the message carries the numbers."""


class LayoutError(InternalError):
    """A register layout overlaps, misplaces or overflows its fields."""
