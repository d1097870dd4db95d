"""`archlbr check`: explore how perf and KVM share the LBRs, and say which properties hold under which design."""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from enum import StrEnum
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from archlbr.contract.table import Table
    from archlbr.vpmu.designs.sharing import Sharing

# Below this many states the interpreter itself is most of the memory.
LARGE = 100_000


class CheckFormat(StrEnum):
    """How the table is printed: for a terminal, for programs (docs/formats.md), or as one page."""

    TEXT = "text"
    JSON = "json"
    HTML = "html"


def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[DESIGN]...", help="Designs; `archlbr+BUG` seeds a bug. All if none.")
    ] = None,
    claim: Annotated[str | None, typer.Option("--property", metavar="P", help="Check this property alone.")] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option("--scenario", metavar="NAME", help="Explore this scenario alone; may be repeated."),
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="Leave out the largest scenarios.")] = False,
    walks: Annotated[
        int, typer.Option("--walks", metavar="N", min=0, help="Walk the whole product at random instead, from N seeds.")
    ] = 0,
    form: Annotated[CheckFormat, typer.Option("--format", help="How to print the result.")] = CheckFormat.TEXT,
) -> int:
    """Explore every interleaving of each named scenario; exit 1 when a property is violated or the search cut short."""
    from archlbr.contract.designs import DESIGNS
    from archlbr.contract.lanes import design_of
    from archlbr.contract.page import as_html
    from archlbr.contract.scenarios import named
    from archlbr.contract.table import VIOLATED, as_document, check_property, explored

    chosen = [design_of(name) for name in names or DESIGNS]
    check_property(claim)
    wanted = [named(name).name for name in scenario or ()]
    stopped = []

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopped.append(1)

    def begins(design: str, place: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{design} in {place}")
            sys.stderr.flush()

    if walks:
        return _walked(chosen, walks)
    before = signal.signal(signal.SIGINT, stop)
    began = time.perf_counter()
    try:
        table = explored(chosen, wanted, claim, small=small, tick=lambda _states: bool(stopped), begins=begins)
    finally:
        signal.signal(signal.SIGINT, before)
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
    seconds = time.perf_counter() - began
    if form is CheckFormat.JSON:
        print(json.dumps(as_document(table), indent=2))
    elif form is CheckFormat.HTML:
        print(as_html(table))
    else:
        print("\n".join(as_text(table)))
    print(_told(table, seconds), file=sys.stderr)
    bad = any(cell.verdict == VIOLATED for row in table.cells.values() for cell in row.values())
    return 1 if bad or not table.complete else 0


def _walked(chosen: list[Sharing], seeds: int) -> int:
    from archlbr.contract.walks import walked

    bad = False
    for design in chosen:
        found = walked(design, seeds)
        print(f"{design.name}: {found.steps:,} steps from {seeds} seeds through the whole product; no proof")
        print(f"  kinds of action taken: {len(found.kinds)}; never: {', '.join(found.never) or 'none'}")
        print(f"  classes of state met: {found.classes}")
        for line in found.lines:
            print(f"  {line}")
        bad = bad or bool(found.lines)
    return 1 if bad else 0


def _told(table: Table, seconds: float) -> str:
    states = sum(outcome.exploration.states for outcome in table.outcomes)
    edges = sum(outcome.exploration.edges for outcome in table.outcomes)
    word = "complete" if table.complete else "INCOMPLETE, cut short"
    rate = edges / seconds if seconds else 0
    largest = max((outcome.exploration.states for outcome in table.outcomes), default=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = f", {peak / largest:,.0f} bytes a state at the peak" if largest >= LARGE else ""
    return (
        f"{len(table.outcomes)} explorations, {word}: {states:,} states, {edges:,} transitions,"
        f" {seconds:.1f} s, {rate:,.0f} transitions/s{memory}"
    )


def as_text(table: Table) -> list[str]:
    """Return the table, then the shortest interleaving of each violation with its replay line."""
    from archlbr.check import replay
    from archlbr.contract.lanes import as_text as lanes
    from archlbr.contract.lanes import model_of, steps
    from archlbr.contract.properties import BY_NAME
    from archlbr.contract.table import VIOLATED

    names = list(table.cells)
    columns = list(next(iter(table.cells.values()), {}))
    width = max(len(name) for name in [*columns, "property"]) + 2
    lines = [f"{'property':<{width}}" + "".join(f"{name:<{max(len(name), 10) + 2}}" for name in names)]
    for column in columns:
        row = f"{column:<{width}}"
        for name in names:
            cell = table.cells[name].get(column)
            row += f"{cell.verdict if cell else '':<{max(len(name), 10) + 2}}"
        lines.append(row.rstrip())
    for name, cells in table.cells.items():
        for column, cell in cells.items():
            if cell.verdict != VIOLATED or cell.replay is None:
                continue
            run = replay.run(model_of(f"{name}/{cell.scenario}"), replay.decode(cell.replay))
            also = f" ({', '.join(cell.names)} among its interleavings)" if cell.names else ""
            lines += ["", f"{name} violates {column}: {BY_NAME[column].says}{also}"]
            lines.append(f"  scenario {cell.scenario}, {cell.depth} steps")
            lines += lanes(steps(run.states, run.actions), None if cell.loop is None else cell.depth)
            lines.append(f"  {cell.replay}")
    return lines
