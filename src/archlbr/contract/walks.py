"""Random walks through the whole product, from seeds: what they met, and what they never did. They prove nothing.

`cli.check --walks` prints it. The product is `scenarios.WHOLE`; a class of state is the phases of the pCPUs with the
states of their host events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from archlbr.check import replay
from archlbr.check.explore import walk
from archlbr.contract import designs
from archlbr.contract.scenarios import WHOLE
from archlbr.contract.verdicts import claims

if TYPE_CHECKING:
    from archlbr.vpmu.designs.sharing import Sharing

STEPS = 2000


@dataclass(frozen=True, slots=True)
class Walked:
    """What the walks of one design came to. never: kinds of action that the design has and no walk took. lines: a
    replay line for the first walk that broke each property.
    """

    steps: int
    kinds: frozenset[str]
    never: tuple[str, ...]
    classes: int
    lines: tuple[str, ...]


def walked(design: Sharing, seeds: int, steps: int = STEPS) -> Walked:
    """Walk a design from seeds 0 to `seeds` - 1; each walk ends at its first violation."""
    host = designs.model(design, WHOLE)
    asked = claims(design, WHOLE)
    kinds: set[str] = set()
    offered: set[str] = set()
    classes: set[tuple[int, ...]] = set()
    lines: dict[str, str] = {}
    total = 0
    for seed in range(seeds):
        one = walk(host, asked, seed, steps)
        total += len(one.path)
        state = host.initial()[0]
        for action in one.path:
            offered.update(kind for kind, _, _ in host.actions(state))
            kinds.add(action[0])
            after = host.next(state, action)
            assert after is not None
            state = after
            classes.add(tuple(place for cpu in state.cpus for place in (cpu.phase, cpu.perf.event)))
        if one.violated is not None and one.violated not in lines:
            choices = replay.choices_of(host, one.path)
            lines[one.violated] = replay.encode(replay.Line(f"{design.name}/{WHOLE.name}", one.violated, choices))
    never = tuple(sorted(offered - kinds))
    return Walked(total, frozenset(kinds), never, len(classes), tuple(lines.values()))
