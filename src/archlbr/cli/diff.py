"""`archlbr diff`: what two profiles have in common, and what not."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from archlbr.cli.formats import Format
from archlbr.cli.messages import tell_other_builds

if TYPE_CHECKING:
    from archlbr.report.difference import Change, Difference
    from archlbr.report.symbols import Place

VERSION = 1


class By(StrEnum):
    """`--by`: what an edge leads from and to."""

    BRANCH = "branch"
    FUNCTION = "function"


def diff(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="A perf.data with branch stacks.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="The one to hold against it.")],
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many edges to show.")] = 20,
    by: Annotated[By, typer.Option("--by", help="Compare branches, or edges between functions by name.")] = By.BRANCH,
    form: Annotated[Format, typer.Option("--format", help="How to print the result.")] = Format.TEXT,
) -> None:
    """Compare two profiles: overlap, edges gained and lost, and those whose share changed most.

    Overlap is the sum of the smaller share of each edge: 1 when the profiles agree, 0 when they have no edge in common.
    Of two builds compare functions, since addresses are not the same code.
    """
    from archlbr.report.counts import count
    from archlbr.report.difference import compare, render

    found = compare(count(first), count(second), by is By.FUNCTION, limit)
    print(as_json(found) if form is Format.JSON else render(found, by is By.FUNCTION))
    if found.left_out:
        tell_other_builds(found.left_out)


def as_json(found: Difference) -> str:
    """Return the `diff` document of docs/formats.md."""
    document = {
        "version": VERSION,
        "overlap": found.overlap,
        "branches": list(found.branches),
        "edges": list(found.edges),
        "gained": found.gained,
        "lost": found.lost,
        "gained_share": found.gained_share,
        "lost_share": found.lost_share,
        "other_builds": list(found.other_builds),
        "changes": [_change(change) for change in found.changes],
    }
    return json.dumps(document, indent=2)


def _change(change: Change) -> dict[str, object]:
    return {
        "from": _place(change.source),
        "to": _place(change.target),
        "before": change.before,
        "after": change.after,
    }


def _place(place: Place) -> dict[str, object]:
    return {"file": place.file, "symbol": place.symbol or None, "offset": f"{place.offset:#x}"}
