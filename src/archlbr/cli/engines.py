"""Which engine runs a program: the one choice there is so far, made in one place."""

from __future__ import annotations

from enum import StrEnum


class Engine(StrEnum):
    """`--engine`: auto picks the fastest engine that is exact for the program."""

    AUTO = "auto"
    UNICORN = "unicorn"


def choose(wanted: Engine) -> str:
    """Return the name of the engine that runs; Unicorn is the one that is always here and exact for every program."""
    return Engine.UNICORN if wanted is Engine.AUTO else wanted
