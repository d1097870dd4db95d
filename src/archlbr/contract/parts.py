"""A world taken apart for `check.parts`: a pCPU, a thread's perf context, a vCPU and a ghost are a part each.

A step on a pCPU touches that pCPU, the vCPU whose thread runs there, the one whose records its registers hold, and the
one that is switched to; a look from another thread reads all. `tests/contract/test_parts.py` makes every transition of
the scenarios both ways.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from archlbr.check.parts import Touch
from archlbr.contract.world import World
from archlbr.host import Host
from archlbr.lbr.bank import VM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archlbr.contract.actors import HostModel
    from archlbr.contract.world import Scenario
    from archlbr.host import Action

FROM_ELSEWHERE = frozenset({"get_msrs", "migrate"})


class Places(NamedTuple):
    """Where in a world taken apart each kind of part stands."""

    cpus: tuple[int, ...]
    tasks: tuple[int, ...]
    host_tasks: tuple[int, ...]
    vcpus: tuple[int, ...]
    ghosts: tuple[int, ...]
    seen: tuple[int, ...]


def places(scenario: Scenario) -> Places:
    """Return the places of a scenario's parts."""
    c, v = scenario.cpus, scenario.vcpus
    marks = (0, c, c + v, 2 * c + v, 2 * c + 2 * v, 2 * c + 3 * v, 2 * c + 3 * v + 1)
    return Places(*(tuple(range(first, end)) for first, end in pairwise(marks)))


class WorldInParts:
    """A host's model whose worlds can be taken apart: pCPUs, contexts, vCPUs, ghosts, and what was seen."""

    def __init__(self, host: HostModel) -> None:
        self.host = host
        self.initial, self.actions, self.next, self.describe = host.initial, host.actions, host.next, host.describe
        self.places = places(host.scenario)
        self._ends = tuple(part[-1] + 1 for part in self.places)

    def split(self, world: World) -> tuple[Any, ...]:
        """Return the parts of a world."""
        host = world.host
        return (*host.cpus, *host.tasks, *host.vcpus, *world.ghosts, world.seen)

    def join(self, parts: Sequence[Any]) -> World:
        """Return the world made of parts."""
        cpus, _, tasks, vcpus, ghosts, _ = self._ends
        host = Host(tuple(parts[:cpus]), tuple(parts[cpus:tasks]), tuple(parts[tasks:vcpus]))
        return World(host, tuple(parts[vcpus:ghosts]), parts[ghosts])

    def offering(self) -> tuple[int, ...]:
        """Return the places of the pCPUs: a menu hangs on what runs where."""
        return self.places.cpus

    def of_vcpu(self, v: int) -> tuple[int, ...]:
        """Return the places of what belongs to a vCPU."""
        return self.places.tasks[v], self.places.vcpus[v], self.places.ghosts[v]

    def touch(self, world: World, action: Action) -> Touch:
        """Return what an action reads and writes; each step also says anew what it broke."""
        kind, c, argument = action
        seen = self.places.seen
        if kind in FROM_ELSEWHERE:
            mine = self.of_vcpu(argument)
            return Touch((*self.places.cpus, *mine), (c, *mine, *seen))
        if kind == "reborn":
            everywhere = tuple(range(self._ends[3]))
            return Touch(
                (*everywhere, self.places.ghosts[argument]), (*everywhere, self.places.ghosts[argument], *seen)
            )
        cpu = world.host.cpus[c]
        of = {cpu.thread - 1, cpu.owner - VM, argument - 1 if kind == "switch" else -1}
        touched = (c, self.places.host_tasks[c], *(place for v in sorted(of) if v >= 0 for place in self.of_vcpu(v)))
        return Touch(touched, (*touched, *seen))
