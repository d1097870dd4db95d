"""Random walks through the whole product, from seeds: what they met, and what they never did. They prove nothing.

`cli.check --walks` prints it. The product is `scenarios.WHOLE`; a class of state is the phases of the pCPUs with the
states of their host events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from archlbr.check import replay
from archlbr.check.campaign import Shard
from archlbr.check.explore import walk
from archlbr.contract import designs
from archlbr.contract.scenarios import WHOLE
from archlbr.contract.verdicts import claims

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from archlbr.vpmu.designs.sharing import Sharing

STEPS = 2000
SEEDS_A_SHARD = 8


@dataclass(frozen=True, slots=True)
class Walked:
    """What the walks of one design came to. seeds: how many. offered, kinds: kinds of action that some state offered,
    and that a walk took. met: the classes of state. lines: a replay line for the first walk that broke each property.
    """

    seeds: int
    steps: int
    offered: frozenset[str]
    kinds: frozenset[str]
    met: frozenset[tuple[int, ...]]
    lines: tuple[str, ...]

    @property
    def never(self) -> tuple[str, ...]:
        """Return the kinds of action that were offered and that no walk took."""
        return tuple(sorted(self.offered - self.kinds))

    @property
    def classes(self) -> int:
        """Return how many classes of state were met."""
        return len(self.met)


def walked(
    design: Sharing, seeds: int, steps: int = STEPS, first: int = 0, tick: Callable[[int], bool] | None = None
) -> Walked:
    """Walk a design from `seeds` seeds, `first` the first; each walk ends at its first violation. tick: see `explore`;
    it is asked before each walk.
    """
    host = designs.model(design, WHOLE)
    asked = claims(design, WHOLE)
    kinds: set[str] = set()
    offered: set[str] = set()
    met: set[tuple[int, ...]] = set()
    lines: dict[str, str] = {}
    total = done = 0
    for seed in range(first, first + seeds):
        if tick is not None and tick(total):
            break
        done += 1
        one = walk(host, asked, seed, steps)
        total += len(one.path)
        state = host.initial()[0]
        for action in one.path:
            offered.update(kind for kind, _, _ in host.actions(state))
            kinds.add(action[0])
            after = host.next(state, action)
            assert after is not None
            state = after
            met.add(tuple(place for cpu in state.cpus for place in (cpu.phase, cpu.perf.event)))
        if one.violated is not None and one.violated not in lines:
            choices = replay.choices_of(host, one.path)
            lines[one.violated] = replay.encode(replay.Line(f"{design.name}/{WHOLE.name}", one.violated, choices))
    return Walked(done, total, frozenset(offered), frozenset(kinds), frozenset(met), tuple(lines.values()))


def together(parts: Sequence[Walked]) -> Walked:
    """Return what the walks of one design came to, given ranges of seeds in their order."""
    lines: dict[str, str] = {}
    for part in parts:
        for line in part.lines:
            lines.setdefault(replay.decode(line).claim, line)
    return Walked(
        sum(part.seeds for part in parts),
        sum(part.steps for part in parts),
        frozenset().union(*(part.offered for part in parts)),
        frozenset().union(*(part.kinds for part in parts)),
        frozenset().union(*(part.met for part in parts)),
        tuple(lines.values()),
    )


def cut(chosen: Sequence[Sharing], seeds: int, first: int = 0, each: int = SEEDS_A_SHARD) -> list[Shard]:
    """Return the walks of designs as shards of at most `each` seeds, for `walked`."""
    return [
        Shard(f"{design.name} from seed {begin}", (design, min(each, first + seeds - begin), STEPS, begin))
        for design in chosen
        for begin in range(first, first + seeds, each)
    ]
