"""`archlbr check`: explore how perf and KVM share the LBRs, and say which properties hold under which design."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from archlbr.errors import InputError

if TYPE_CHECKING:
    from archlbr.check.campaign import Runner, Watch
    from archlbr.contract.table import Table
    from archlbr.vpmu.designs.sharing import Sharing

# Below this many states the interpreter itself is most of the memory.
LARGE = 100_000


class Reduction(StrEnum):
    """What an exploration may leave out without a change of verdict (`contract.reduction`)."""

    SYMMETRY = "symmetry"
    INDEPENDENCE = "independence"


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
    bounds: Annotated[
        list[str] | None,
        typer.Option(
            "--bound",
            metavar="NAME=N[,N...]",
            help="Other bounds of the scenarios: cpus, vcpus, records (a stack); several values, several explorations.",
        ),
    ] = None,
    reduce: Annotated[
        list[Reduction] | None,
        typer.Option(
            "--reduce",
            help="Take two VMs that are alike for one, or one order of what two pCPUs do apart; may be repeated.",
        ),
    ] = None,
    walks: Annotated[
        int, typer.Option("--walks", metavar="N", min=0, help="Walk the whole product at random instead, from N seeds.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="The first of the seeds of --walks.")] = 0,
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", min=1, help="Worker processes; as many as cores if not given.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", metavar="ADDRESS", help="Explore on the workers of a dask scheduler instead."),
    ] = None,
    actions: Annotated[bool, typer.Option("--coverage", help="Print how often each kind of action was taken.")] = False,
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
    if jobs is not None and cluster is not None:
        raise InputError("--jobs starts processes here and --cluster takes those of a cluster: give one of them")
    wanted = [named(name).name for name in scenario or ()]
    wanted = with_bounds(wanted, bounds or ())
    run = runner(jobs, cluster)
    if walks:
        with watched() as watch:
            return _walked(chosen, walks, seed, run, watch)
    began = time.perf_counter()
    with watched() as watch:
        left_out = frozenset(str(one) for one in reduce or ())
        table = explored(chosen, wanted, claim, small=small, reduce=left_out, run=run, watch=watch)
    seconds = time.perf_counter() - began
    if form is CheckFormat.JSON:
        print(json.dumps(as_document(table), indent=2))
    elif form is CheckFormat.HTML:
        print(as_html(table))
    else:
        print("\n".join([*as_text(table), *(as_coverage(table, chosen) if actions else ())]))
    print(_told(table, seconds), file=sys.stderr)
    bad = any(cell.verdict == VIOLATED for row in table.cells.values() for cell in row.values())
    return 1 if bad or not table.complete else 0


def runner(jobs: int | None, cluster: str | None) -> Runner:
    """Return where the explorations run."""
    if cluster is not None:
        from archlbr.check.cluster import on_cluster

        return on_cluster(cluster)
    from archlbr.check.campaign import in_processes

    return in_processes(len(os.sched_getaffinity(0)) if jobs is None else jobs)


def with_bounds(wanted: Sequence[str], bounds: Sequence[str]) -> list[str]:
    """Return the names of the scenarios (all if none is wanted) under each combination of the bounds' values."""
    from archlbr.contract.scenarios import SCENARIOS, named

    names = list(wanted)
    if bounds and not names:
        names = [scenario.name for scenario in SCENARIOS]
    for bound in bounds:
        key, _, values = bound.partition("=")
        names = [named(f"{name},{key}={value}").name for name in names for value in values.split(",")]
    return list(dict.fromkeys(names))


@contextmanager
def watched() -> Iterator[Watch]:
    """Yield a watch that Ctrl-C stops, and that shows on a terminal how far the campaign has come."""
    from archlbr.check.campaign import Watch

    stopped: list[int] = []
    shown = sys.stderr.isatty()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopped.append(1)

    def ended(name: str, done: int, of: int) -> None:
        if shown:
            sys.stderr.write(f"\r\x1b[K[ {done} of {of}: {name} ]")
            sys.stderr.flush()

    def says(text: str) -> None:
        wipe = "\r\x1b[K" if shown else ""
        sys.stderr.write(f"{wipe}archlbr: {text}\n")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield Watch(lambda: bool(stopped), ended, says)
    finally:
        signal.signal(signal.SIGINT, before)
        if shown:
            sys.stderr.write("\r\x1b[K")


def _walked(chosen: list[Sharing], seeds: int, first: int, run: Runner, watch: Watch) -> int:
    from archlbr.contract.walks import cut, together, walked

    shards = cut(chosen, seeds, first)
    results = run(walked, shards, watch)
    bad = False
    for design in chosen:
        parts = [
            result
            for shard, result in zip(shards, results, strict=True)
            if result is not None and shard.arguments[0] == design
        ]
        found = together(parts)
        short = "" if found.seeds == seeds else f"; INCOMPLETE, cut short: {found.seeds} seeds were walked"
        print(f"{design.name}: {found.steps:,} steps from {seeds} seeds through the whole product; no proof{short}")
        print(f"  kinds of action taken: {len(found.kinds)}; never: {', '.join(found.never) or 'none'}")
        print(f"  classes of state met: {found.classes}")
        for line in found.lines:
            print(f"  {line}")
        bad = bad or bool(found.lines or short)
    return 1 if bad else 0


def _told(table: Table, seconds: float) -> str:
    states = sum(outcome.exploration.states for outcome in table.outcomes)
    edges = sum(outcome.exploration.edges for outcome in table.outcomes)
    word = "complete" if table.complete else "INCOMPLETE, cut short: what is left undecided is marked incomplete"
    reduced = f" reduced by {' and '.join(table.reduced)}" if table.reduced else ""
    rate = edges / seconds if seconds else 0
    largest = max((outcome.exploration.states for outcome in table.outcomes), default=0)
    peak = 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    memory = f", {peak / largest:,.0f} bytes a state at the peak" if largest >= LARGE else ""
    return (
        f"{len(table.outcomes)} explorations{reduced}, {word}: {states:,} states, {edges:,} transitions,"
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
    return [*lines, "", *_over(table)]


def _over(table: Table) -> list[str]:
    # What holds, holds over these and no more.
    lines = []
    for name in table.cells:
        mine = [outcome for outcome in table.outcomes if outcome.design == name]
        whole = [outcome.scenario for outcome in mine if outcome.exploration.complete]
        lines.append(f"{name}: every verdict is over {len(whole)} scenarios, each explored completely:")
        lines += textwrap.wrap(
            " ".join(whole) or "none", 110, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
    return lines


def as_coverage(table: Table, chosen: Sequence[Sharing]) -> list[str]:
    """Return, for each design, how many transitions each kind of action made, and which kinds made none."""
    from archlbr.contract.table import coverage

    lines = []
    for design in chosen:
        taken = coverage(table, design)
        never = [kind for kind, times in taken.items() if not times]
        told = ", ".join(f"{kind} {times:,}" for kind, times in taken.items() if times)
        lines += ["", f"{design.name}: transitions by kind of action; never: {', '.join(never) or 'none'}"]
        lines += textwrap.wrap(told, 110, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return lines
