"""A design in a scenario as a model: `host.step` under the bounds of the scenario, judged after each step.

`check` explores it. The four functions of `check.model.Model` are here; `menu` says what may happen where, `judge` what
a step breaks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.contract.judge import Judge
from archlbr.contract.menu import KINDS, menu, words
from archlbr.contract.world import Scenario, World, setting, start
from archlbr.host import Host
from archlbr.host.step import composed
from archlbr.lbr.bank import VM

if TYPE_CHECKING:
    from archlbr.host import Action
    from archlbr.vpmu.designs.sharing import Sharing


def disowned(host: Host, v: int) -> Host:
    """Return the host with every record of a VM that is gone under a tag that is no VM's."""
    mine, gone = VM + v, VM + len(host.vcpus)

    def renamed(stack: tuple[int, ...]) -> tuple[int, ...]:
        return tuple([gone if tag == mine else tag for tag in stack])

    cpus = tuple([cpu._replace(lbr=cpu.lbr.written(renamed(cpu.lbr.stack))) for cpu in host.cpus])
    tasks = tuple([task._replace(image=renamed(task.image)) for task in host.tasks])
    return Host(cpus, tasks, tuple([vcpu._replace(image=renamed(vcpu.image)) for vcpu in host.vcpus]))


class HostModel:
    """One design in one scenario."""

    def __init__(self, sharing: Sharing, scenario: Scenario) -> None:
        """Prepare the tables of a design in a scenario."""
        self.sharing = sharing
        self.scenario = scenario
        self.composed = composed(sharing, setting(scenario))
        self.moves = self.composed.moves
        self.rules = Judge(self.composed, self.composed.opened).rules
        self._menus: dict[tuple[int, ...], tuple[Action, ...]] = {}

    def initial(self) -> list[World]:
        """Return the world before anything has happened; the host events run already where the scenario says so."""
        world = start(self.scenario)
        if self.scenario.active:
            for c, event in enumerate(self.scenario.events):
                if event is not None and not (event.task and world.cpus[c].thread):
                    world = self.next(world, ("install", c, 0)) or world
                    world = World(self.composed.settled(world.host), world.ghosts, 0)
        return [world]

    def actions(self, state: World) -> tuple[Action, ...]:
        """Return what may happen."""
        cpus = state.host.cpus
        key = tuple([place for cpu in cpus for place in (cpu.thread, cpu.phase)])
        found = self._menus.get(key)
        if found is None:
            actions: list[Action] = []
            for c, cpu in enumerate(cpus):
                busy = frozenset(other.thread for other in cpus if other is not cpu and other.thread)
                actions += menu(self.scenario, self.composed.steps, c, cpu.thread, cpu.phase, busy)
            found = self._menus[key] = tuple(action for action in actions if action[0] in self.moves)
        return found

    def kinds(self) -> list[str]:
        """Return the kinds of action that the design has and the scenario admits."""
        may = self.scenario.may | self.composed.steps
        return [name for name, kind in KINDS.items() if name in self.moves and (kind.always or name in may)]

    def next(self, state: World, action: Action) -> World | None:
        """Return the world after an action; None also where it changes nothing and breaks nothing."""
        kind, c, argument = action
        host = state.host
        moved = self.moves[kind](host, c, argument)
        if moved is None:
            return None
        after, told = moved
        if kind == "reborn":
            after = disowned(after, argument)
        ghosts = state.ghosts
        rule = self.rules.get(kind)
        if rule is None:
            return World(after, ghosts, 0)
        seen, judged = rule(state, c, argument, after, told)
        if not seen and after == host and judged == ghosts:
            return None
        return World(after, judged, seen)

    def describe(self, action: Action) -> str:
        """Return an action in the words of KVM and perf."""
        return words(action)
