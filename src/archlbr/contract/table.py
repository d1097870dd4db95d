"""The verdict table: design x property over the named scenarios, as results; nothing is formatted here.

`verdicts` explores, `lanes`, `page` and `cli` print. A cell takes the shortest path of all scenarios; what holds, holds
over all scenarios of its design, each explored completely, and its states are their sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from archlbr.check.campaign import Shard, Watch, in_turn
from archlbr.contract import designs, scenarios
from archlbr.contract.interleavings import names_for
from archlbr.contract.properties import BY_NAME, CLAIMS
from archlbr.contract.verdicts import WITNESSES, Outcome, applies, judge, replay_line
from archlbr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from archlbr.check.campaign import Runner
    from archlbr.contract.world import Scenario
    from archlbr.host import Action
    from archlbr.vpmu.designs.sharing import Sharing

UNWATCHED = Watch()
HOLDS, VIOLATED, NOT_APPLICABLE, INCOMPLETE = "holds", "violated", "n/a", "incomplete"


@dataclass(frozen=True, slots=True)
class Cell:
    """A verdict. scenario, path, loop, replay: of the shortest interleaving, where there is one. depth: its steps, or
    the greatest depth explored. states: distinct states of the scenario that decided, or of all. over: the scenarios
    that the verdict speaks of, each explored completely unless the table is incomplete.
    """

    verdict: str
    kind: str
    states: int
    depth: int
    scenario: str | None = None
    path: tuple[Action, ...] = ()
    loop: tuple[Action, ...] | None = None
    replay: str | None = None
    names: tuple[str, ...] = ()
    over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """design -> property -> cell; complete: no exploration was cut short. outcomes: what each exploration found.
    reduced: what the explorations left out (`reduction`).
    """

    complete: bool
    cells: dict[str, dict[str, Cell]]
    outcomes: tuple[Outcome, ...]
    reduced: tuple[str, ...] = ()


def scenarios_of(design: Sharing, wanted: Sequence[str] = (), *, small: bool = False) -> list[Scenario]:
    """Return the scenarios of a design; wanted: their names, all if empty. small: without the largest."""
    if scenarios.WHOLE.name in wanted:
        raise InputError("scenario 'whole' is out of reach of a complete search: walk it with --walks N")
    chosen = [scenarios.named(name) for name in wanted] or list(scenarios.SCENARIOS)
    return [
        scenario
        for scenario in chosen
        if scenarios.belongs(design.family, scenario) and not (small and scenarios.large(scenario))
    ]


def check_property(name: str | None) -> None:
    """Raise InputError for a property that is none."""
    if name is not None and name not in BY_NAME:
        raise InputError(f"unknown property {name!r}: use one of {', '.join(BY_NAME)}")


def explored(
    chosen: Sequence[Sharing],
    wanted: Sequence[str] = (),
    claim: str | None = None,
    *,
    small: bool = False,
    reduce: frozenset[str] = frozenset(),
    run: Runner = in_turn,
    watch: Watch = UNWATCHED,
) -> Table:
    """Explore designs in their scenarios. reduce: see `judge`. run: where; watch: who looks on (`check.campaign`)."""
    check_property(claim)
    asked = None if claim is None else (claim,)
    shards = [
        Shard(f"{design.name} in {scenario.name}", (design, scenario, asked), weight(scenario))
        for design in chosen
        for scenario in scenarios_of(design, wanted, small=small)
    ]
    results = run(partial(judge, reduce=reduce), shards, watch)
    outcomes = [outcome for outcome in results if outcome is not None]
    complete = len(outcomes) == len(shards) and all(outcome.exploration.complete for outcome in outcomes)
    cells = {
        design.name: dict(_row(design, outcomes, claim, complete=complete, part=bool(wanted))) for design in chosen
    }
    return Table(complete, cells, tuple(outcomes), tuple(sorted(reduce)))


def weight(scenario: Scenario) -> int:
    """Return a guess at how many states a scenario has: it grows with the actors, and with what may happen."""
    return int(scenario.cpus * scenario.vcpus * scenario.depth * 2 ** len(scenario.may))


def _row(
    design: Sharing, outcomes: Sequence[Outcome], only: str | None, *, complete: bool, part: bool
) -> Iterator[tuple[str, Cell]]:
    mine = [outcome for outcome in outcomes if outcome.design == design.name]
    states = sum(outcome.exploration.states for outcome in mine)
    depth = max((outcome.exploration.depth for outcome in mine), default=0)
    over = tuple(outcome.scenario for outcome in mine)
    for claim in CLAIMS:
        if only not in (None, claim.name):
            continue
        if not applies(design, claim.name):
            yield claim.name, Cell(NOT_APPLICABLE, claim.kind, 0, 0)
            continue
        broken = [outcome for outcome in mine if claim.name in outcome.found]
        if not broken:
            yield claim.name, Cell(HOLDS if complete else INCOMPLETE, claim.kind, states, depth, over=over)
            continue
        best = min(broken, key=lambda outcome: len(outcome.found[claim.name]))
        path = best.found[claim.name]
        line = replay_line(design, scenarios.named(best.scenario), best, claim.name)
        yield (
            claim.name,
            Cell(
                VIOLATED,
                claim.kind,
                best.exploration.states,
                len(path),
                best.scenario,
                path,
                best.loops.get(claim.name),
                line,
                names_for(design.name, claim.name),
                over,
            ),
        )
    for name in WITNESSES if only is None else ():
        seen = [outcome for outcome in mine if name in outcome.witnessed]
        if not design.exposes and "guest" in WITNESSES[name]:
            yield name, Cell(NOT_APPLICABLE, "sometimes", 0, 0)
        elif not seen and part:
            yield name, Cell(NOT_APPLICABLE, "sometimes", states, depth, over=over)  # not in these scenarios
        elif not seen:
            yield name, Cell(VIOLATED if complete else INCOMPLETE, "sometimes", states, depth, over=over)
        else:
            best = min(seen, key=lambda outcome: len(outcome.witnessed[name]))
            path = best.witnessed[name]
            yield name, Cell(HOLDS, "sometimes", best.exploration.states, len(path), best.scenario, path, over=over)


def coverage(table: Table, design: Sharing) -> dict[str, int]:
    """Return kind of action -> times it led somewhere in a design's explorations, 0 for what was offered in vain."""
    taken: dict[str, int] = {}
    for outcome in table.outcomes:
        if outcome.design == design.name:
            host = designs.model(design, scenarios.named(outcome.scenario))
            for kind in host.kinds():
                taken.setdefault(kind, 0)
            for action, times in outcome.exploration.coverage.items():
                taken[action[0]] += times
    return taken


def as_document(table: Table) -> dict[str, object]:
    """Return the table as `check --format json` prints it (docs/formats.md)."""
    return {
        "version": 1,
        "complete": table.complete,
        "reduced": list(table.reduced),
        "designs": {
            design: {
                name: {
                    "verdict": cell.verdict,
                    "kind": cell.kind,
                    "states": cell.states,
                    "depth": cell.depth,
                    "replay": cell.replay,
                    "names": list(cell.names),
                    "scenario": cell.scenario,
                    "scenarios": list(cell.over),
                }
                for name, cell in row.items()
            }
            for design, row in table.cells.items()
        },
    }
