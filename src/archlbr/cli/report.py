"""`archlbr report`: the hottest branches of a profile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from archlbr.cli.formats import Format

if TYPE_CHECKING:
    from archlbr.report.summary import Summary
    from archlbr.report.symbols import Place

VERSION = 1


def report(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A perf.data with branch stacks.")] = "perf.data",
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many branches to show.")] = 20,
    form: Annotated[Format, typer.Option("--format", help="How to print the result.")] = Format.TEXT,
) -> None:
    """Show the hottest branches of a profile, with their symbols."""
    from archlbr.report.summary import summarize
    from archlbr.report.terminal import render

    summary = summarize(file, limit)
    print(as_json(summary) if form is Format.JSON else render(summary))


def as_json(summary: Summary) -> str:
    """Return the `report` document of docs/formats.md."""
    branches = [
        {
            "from": _place(branch.source),
            "to": _place(branch.target),
            "kind": branch.kind,
            "taken": branch.taken,
            "mispredicted": branch.mispredicted,
        }
        for branch in summary.hottest
    ]
    document = {
        "version": VERSION,
        "samples": summary.samples,
        "branches": summary.branches,
        "command_line": list(summary.command_line),
        "hottest": branches,
    }
    return json.dumps(document, indent=2)


def _place(place: Place) -> dict[str, object]:
    return {"file": place.file, "symbol": place.symbol or None, "offset": f"{place.offset:#x}"}
