"""Which engine runs a program, chosen in one place."""

from __future__ import annotations

from enum import StrEnum


class Engine(StrEnum):
    """`--engine`: auto picks the engine that is exact for every program."""

    AUTO = "auto"
    UNICORN = "unicorn"
    QEMU = "qemu"
    STALKER = "stalker"


def choose(wanted: Engine) -> Engine:
    """Return the engine that runs.

    Unicorn is always here and exact for every program; QEMU is asked for by name, for what it does not record is said
    only once it happens (docs/decisions/042). InputError when what it needs is not installed.
    """
    if wanted is Engine.QEMU:
        from archlbr.cpu.qemu.plugin import build_plugin, find_qemu

        find_qemu()
        build_plugin()
    return Engine.UNICORN if wanted is Engine.AUTO else wanted
