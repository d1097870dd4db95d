"""`archlbr report`: what a profile shows, as lines, as a page, or as call stacks for other tools."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from archlbr.cli.messages import tell_other_builds
from archlbr.errors import InputError
from archlbr.report.rows import By

if TYPE_CHECKING:
    from collections.abc import Collection

    from archlbr.report.counts import Counts
    from archlbr.report.names import Names
    from archlbr.report.summary import Heat, Summary
    from archlbr.report.symbols import Place

VERSION = 1
_ROWS, _PAGE_ROWS = 20, 200


class Form(StrEnum):
    """`--format`: what the report is written as."""

    TEXT = "text"
    JSON = "json"
    HTML = "html"
    SPEEDSCOPE = "speedscope"
    PPROF = "pprof"


def report(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A perf.data with branch stacks.")] = "perf.data",
    limit: Annotated[
        int | None, typer.Option("-n", "--limit", min=1, help="How many rows to show: 20, on a page 200.")
    ] = None,
    by: Annotated[By, typer.Option("--by", help="What a row is.")] = By.BRANCH,
    annotate: Annotated[
        str | None, typer.Option("--annotate", metavar="FUNCTION", help="Show this function's instructions.")
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="How to print the result.")] = Form.TEXT,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Write here, not to stdout.")
    ] = None,
) -> None:
    """Show the hottest branches of a profile, with their symbols and source lines.

    `--by` shows functions, edges between functions, source lines, kinds of branches or (recorded with -j stack) call
    stacks instead. `--format html` writes one page with all of it, `speedscope` the call stacks, and `pprof` the call
    stacks, or the branches where there are none. `cycles` is the mean from the branch before; under archlbr record it
    counts instructions.
    """
    from archlbr.profile.output import Output

    if form is Form.PPROF and output is None and sys.stdout.isatty():
        raise InputError("pprof is no text for a terminal: give a file with -o, as in -o profile.pb.gz")
    rows = limit if limit is not None else _PAGE_ROWS if form is Form.HTML else _ROWS
    made, left_out = _render(file, rows, by, annotate, form)
    raw = made if isinstance(made, bytes) else f"{made}\n".encode(errors="backslashreplace")
    if output is not None:
        with Output(output) as out:
            out.write(raw)
    elif isinstance(made, bytes):
        sys.stdout.buffer.write(raw)
    else:
        print(made)
    if left_out:
        tell_other_builds(left_out)


def _render(file: str, limit: int, by: By, annotate: str | None, form: Form) -> tuple[str | bytes, Collection[str]]:
    from archlbr.report.counts import count
    from archlbr.report.names import Names
    from archlbr.report.stacks import is_call_stack

    stacked = form is Form.SPEEDSCOPE or (by is By.STACK and form is Form.TEXT)
    if stacked or (form is Form.PPROF and is_call_stack(file)):
        return _from_stacks(file, form)
    counts = count(file)
    names = Names(counts.paths, counts.build_ids)
    try:
        return _from_counts(file, counts, names, limit, by, annotate, form), names.left_out
    finally:
        names.close()


def _from_counts(
    file: str, counts: Counts, names: Names, limit: int, by: By, annotate: str | None, form: Form
) -> str | bytes:
    from archlbr.report import terminal
    from archlbr.report.code import find_function, read_code
    from archlbr.report.summary import summarize

    if annotate is not None:
        place = find_function(counts, names, annotate)
        if place is None:
            raise InputError(f"no branch of {file} lies in a function named {annotate}: archlbr report --by function")
        code = read_code(counts, names, *place)
        if code is None:
            raise InputError(f"the instructions of {annotate} cannot be read: its file is gone, or it is too long")
        return terminal.render_code(code)
    if form is Form.HTML:
        from archlbr.report.html import page

        return page(file, counts, names, limit)
    if form is Form.PPROF:
        from archlbr.report.pprof import of_branches

        return of_branches(counts, names, file)
    summary = summarize(counts, names, limit)
    return as_json(summary) if form is Form.JSON else terminal.render(summary, by)


def _from_stacks(file: str, form: Form) -> tuple[str | bytes, Collection[str]]:
    from archlbr import __version__
    from archlbr.report import pprof, speedscope
    from archlbr.report.stacks import call_tree, read_stacks
    from archlbr.report.terminal import render_tree

    stacks = read_stacks(file)
    if form is Form.SPEEDSCOPE:
        return speedscope.render(stacks, file, f"archlbr {__version__}"), stacks.left_out
    if form is Form.PPROF:
        return pprof.of_stacks(stacks, file), stacks.left_out
    return render_tree(stacks, call_tree(stacks)), stacks.left_out


def as_json(summary: Summary) -> str:
    """Return the `report` document of docs/formats.md."""
    document = {
        "version": VERSION,
        "samples": summary.samples,
        "branches": summary.branches,
        "command_line": list(summary.command_line),
        "hottest": [
            {
                "from": _place(row.source),
                "to": _place(row.target),
                "kind": row.kind,
                **_heat(row.heat),
                "line": str(row.line) if row.line else None,
            }
            for row in summary.hottest
        ],
        "functions": [
            {"function": _function(row.place), **_heat(row.heat), "calls": row.calls} for row in summary.functions
        ],
        "edges": [
            {"from": _function(row.source), "to": _function(row.target), "kind": row.kind, **_heat(row.heat)}
            for row in summary.edges
        ],
        "lines": [
            {"file": row.line.file, "line": row.line.line, "function": _function(row.function), **_heat(row.heat)}
            for row in summary.lines
        ],
        "kinds": [{"kind": row.kind, **_heat(row.heat)} for row in summary.kinds],
    }
    return json.dumps(document, indent=2)


def _place(place: Place) -> dict[str, object]:
    return {"file": place.file, "symbol": place.symbol or None, "offset": f"{place.offset:#x}"}


def _function(place: Place) -> dict[str, object]:
    return {"file": place.file, "symbol": place.symbol or None}


def _heat(heat: Heat) -> dict[str, object]:
    return {"taken": heat.taken, "mispredicted": heat.mispredicted, "cycles": heat.mean_cycles}
