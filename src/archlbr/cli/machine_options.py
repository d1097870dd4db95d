"""The options that `run` and `restore` share: how a running machine ends, is saved and is asked."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Until: TypeAlias = Annotated[int, typer.Option("--until", metavar="NS", help="End when the model's clock is there.")]
Snapshot: TypeAlias = Annotated[
    str | None, typer.Option("--snapshot", metavar="FILE", help="Write the machine here at --until.")
]
Control: TypeAlias = Annotated[
    str | None, typer.Option("--control", metavar="SOCKET", help="Let `snapshot` and `migrate` ask here.")
]
Timeout: TypeAlias = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="End the run after this time.")]
