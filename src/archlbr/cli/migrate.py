"""`archlbr migrate`: moves a running machine to the process that waits in `archlbr restore --incoming`."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from archlbr.cli import control


def migrate(
    socket: Annotated[str, typer.Argument(metavar="SOCKET", help="What `archlbr run --control` was given.")],
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where `archlbr restore --incoming` waits.")],
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="FILE", help="Where the machine stays until it is moved; else SOCKET.machine."),
    ] = None,
) -> int:
    """Move a running machine to another process, in rounds while it runs; progress is on stderr.

    archlbr restore there.machine --incoming 127.0.0.1:4444 & archlbr migrate machine.sock 127.0.0.1:4444
    """
    request = {"migrate": address, "keep": os.path.abspath(keep or f"{socket}.machine")}
    answer = control.ask(socket, request, _show)
    return 0 if answer.get("confirmed") else 1


def _show(words: dict[str, Any]) -> None:
    if "round" in words:
        print(
            f"round {words['round']}: {words['pages']} pages, {words['bytes'] / 1e6:.1f} MB sent, "
            f"{words['left']} pages changed meanwhile",
            file=sys.stderr,
        )
    elif "moved" in words:
        print(
            f"moved to {words['moved']}: {words['pages']} pages while it stood still, "
            f"{1000 * words['downtime']:.0f} ms",
            file=sys.stderr,
        )
    elif "note" in words:
        print(f"archlbr: {words['note']}", file=sys.stderr)
