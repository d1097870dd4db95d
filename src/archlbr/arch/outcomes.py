"""What a guest's instruction comes to, as closed values: a fault of the guest is an outcome, never an exception.

Every pure step returns one of these beside the new state; `host` and `machine` deliver the faults. The vectors are
those of the Intel SDM vol. 3A, chapter 6.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Done(NamedTuple):
    """The action took effect and has nothing to say."""


class Value(NamedTuple):
    """A register read as `value` (64 bits)."""

    value: int


class Image(NamedTuple):
    """The action wrote `content` to memory; the whole area, as it stands afterwards."""

    content: bytes


class GeneralProtection(NamedTuple):
    """#GP(0); the state is as it was before the instruction."""

    vector: int = 13


class UndefinedOpcode(NamedTuple):
    """#UD; the state is as it was before the instruction."""

    vector: int = 6


Outcome: TypeAlias = Done | Value | Image | GeneralProtection | UndefinedOpcode

DONE = Done()
GP = GeneralProtection()
UD = UndefinedOpcode()
