"""What our own engine needs of this host; beside the chain, since `archlbr record` needs no link of it.

Fed by the system's name, the installed packages and the compiler's cache directory. Ours.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from archlbr.probe.chain import Host, Link, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def engine_links(
    host: Host, requires: list[str], installed: Callable[[str], str | None], cache: tuple[Path, bool]
) -> tuple[Link, ...]:
    """Return what `archlbr record` needs.

    requires: the package's own requirements. installed: a package's version or None. cache: where compiled hooks are
    kept, and whether it can be written.
    """
    return system(host), unicorn(requires, installed("unicorn")), compiled(*cache), qemu_user(host)


def system(host: Host) -> Link:
    """Say whether guests' system calls can be passed on as they are."""
    if host.architecture == "x86_64 Linux":
        return Link("system", State.OK, host.architecture)
    said = f"{host.architecture}: system calls of x86-64 Linux programs cannot be passed on"
    return Link("system", State.BROKEN, said, "record on x86-64 Linux")


def unicorn(requires: list[str], version: str | None) -> Link:
    """Say whether the pinned engine is the installed one."""
    pins = [found[1] for text in requires if (found := re.fullmatch(r"unicorn==([\w.]+)", text.replace(" ", "")))]
    wanted = pins[0] if pins else "unknown"
    if version == wanted:
        return Link("unicorn", State.OK, f"unicorn {version}")
    said = f"unicorn {version} is installed" if version else "unicorn is not installed"
    return Link("unicorn", State.BROKEN, f"{said}, {wanted} is needed", f"pip install unicorn=={wanted}")


def compiled(directory: Path, writable: bool) -> Link:
    """Say whether compiled hooks are kept from one run to the next."""
    if writable:
        return Link("compiled", State.OK, f"{directory} keeps the compiled hooks")
    return Link(
        "compiled", State.BROKEN, f"{directory} cannot be written: each run compiles anew", "set NUMBA_CACHE_DIR"
    )


def qemu_user(host: Host) -> Link:
    """Say whether the second engine is there; it is not needed."""
    path = host.finds("qemu-x86_64")
    if path is None:
        return Link(
            "qemu-user", State.UNKNOWN, "no qemu-x86_64 on PATH: `--engine qemu` is not offered", "install qemu-user"
        )
    return Link("qemu-user", State.OK, "qemu-x86_64 is on PATH")
