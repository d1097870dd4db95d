"""`archlbr snapshot`: writes a running machine to a file, from which `archlbr restore` goes on."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from archlbr.cli import control


def snapshot(
    socket: Annotated[str, typer.Argument(metavar="SOCKET", help="What `archlbr run --control` was given.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where the machine is written.")],
) -> int:
    """Write a running machine to FILE: it stands still meanwhile, and then goes on.

    archlbr run --kernel vmlinuz --control machine.sock & archlbr snapshot machine.sock machine.snapshot
    """
    answer = control.ask(socket, {"snapshot": os.path.abspath(file)}, lambda _: None)
    return 0 if answer else 1
