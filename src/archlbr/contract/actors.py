"""The host as a model: what every design has in common.

`check` explores it; `vlbr_host` and `owned_host` add what a family of designs does at each action. The four functions
of `check.model.Model` are here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.contract import world as at
from archlbr.contract.menu import KINDS, Action, menu, words
from archlbr.contract.properties import BIT
from archlbr.contract.world import Cpu, Ghost, Scenario, World, put
from archlbr.lbr.tagged import HOST, NOBODY, VM, Lbrs
from archlbr.perf.events import ACTIVE, Opened
from archlbr.perf.samples import Sample, faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.perf.schedule import TaskPerf
    from archlbr.vpmu.designs.sharing import Sharing, Vcpu

S1, S2, S3, S4, S5, G1, G2, H1, H2, H3, H4, M1, M1_LIVE, C1, L2_ENTRY, *_ = BIT.values()
UNOPENED = Opened()


class HostModel:
    """One design in one scenario. steps: the actions that the design's family adds to the menu."""

    steps: frozenset[str] = frozenset()

    def __init__(self, sharing: Sharing, scenario: Scenario) -> None:
        """Prepare the tables of a design in a scenario."""
        self.sharing = sharing
        self.scenario = scenario
        self.opened = tuple(event or UNOPENED for event in scenario.events)
        self.moves: dict[str, Callable[[World, int, int], World | None]] = {
            name[4:]: getattr(self, name) for name in dir(self) if name.startswith("_on_")
        }
        self._menus: dict[tuple[int, ...], tuple[Action, ...]] = {}

    # The four functions

    def initial(self) -> list[World]:
        """Return the world before anything has happened; the host events run already where the scenario says so."""
        world = at.start(self.scenario)
        if self.scenario.active:
            for c, event in enumerate(self.scenario.events):
                if event is not None and not (event.task and world.cpus[c].thread):
                    world = self.settled(self.moves["install"](world, c, 0) or world)
        return [world]

    def settled(self, world: World) -> World:
        """Return the world after the steps that an installation leaves open, and with nothing seen."""
        return world._replace(seen=0)

    def actions(self, state: World) -> tuple[Action, ...]:
        """Return what may happen."""
        key = tuple([place for cpu in state.cpus for place in (cpu.thread, cpu.phase)])
        found = self._menus.get(key)
        if found is None:
            actions: list[Action] = []
            for c, cpu in enumerate(state.cpus):
                busy = frozenset(other.thread for other in state.cpus if other is not cpu and other.thread)
                actions += menu(self.scenario, self.steps, c, cpu.thread, cpu.phase, busy)
            found = self._menus[key] = tuple(action for action in actions if action[0] in self.moves)
        return found

    def kinds(self) -> list[str]:
        """Return the kinds of action that the design has and the scenario admits."""
        may = self.scenario.may | self.steps
        return [name for name, kind in KINDS.items() if name in self.moves and (kind.always or name in may)]

    def next(self, state: World, action: Action) -> World | None:
        """Return the world after an action."""
        kind, c, argument = action
        return self.moves[kind](state, c, argument)

    def describe(self, action: Action) -> str:
        """Return an action in the words of KVM and perf."""
        return words(action)

    # What the families share

    def moved(self, world: World, c: int, cpu: Cpu, seen: int = 0) -> World:
        """Return the world with one pCPU changed."""
        return World(put(world.cpus, c, cpu), world.tasks, world.vcpus, world.ghosts, seen)

    def with_vcpu(
        self,
        world: World,
        c: int,
        cpu: Cpu,
        v: int,
        seen: int = 0,
        *,
        task: TaskPerf | None = None,
        vcpu: Vcpu | None = None,
        ghost: Ghost | None = None,
    ) -> World:
        """Return the world with one pCPU and what belongs to one vCPU changed."""
        return World(
            put(world.cpus, c, cpu),
            world.tasks if task is None else put(world.tasks, v, task),
            world.vcpus if vcpu is None else put(world.vcpus, v, vcpu),
            world.ghosts if ghost is None else put(world.ghosts, v, ghost),
            seen,
        )

    def judged_read(self, v: int, ghost: Ghost, got: tuple[int, ...]) -> tuple[int, Ghost]:
        """Return what a guest's read of its records breaks, and the ghost that has seen it."""
        seen = 0
        for tag in got:
            if tag == HOST:
                seen |= S1
            elif tag >= VM and tag != VM + v:
                seen |= S2
        lost = any(mine and mine != theirs for mine, theirs in zip(ghost.expect, got, strict=True))
        if lost:
            seen |= M1_LIVE if ghost.moved & 2 else G1
            own = tuple(tag if tag == VM + v else 0 for tag in got)
            return seen, Ghost(own, 0, ghost.cpu)
        return seen, ghost

    def judged_arrival(self, v: int, ghost: Ghost, got: tuple[int, ...]) -> tuple[int, Ghost]:
        """Return whether a vCPU that enters the guest on another pCPU than before has lost records on the way (M1)."""
        if not ghost.moved & 1:
            return 0, ghost
        lost = any(mine and mine != theirs for mine, theirs in zip(ghost.expect, got, strict=True))
        return M1 if lost else 0, Ghost(ghost.expect, ghost.moved & 2, ghost.cpu)

    def judged_sample(self, c: int, sample: Sample, *, in_guest: int) -> int:
        """Return what a sample breaks."""
        h1, h2, h3 = faults(sample, exclude_guest=self.opened[c].exclude_guest, in_guest=in_guest)
        return h1 * H1 | h2 * H2 | h3 * H3

    def recorded_guest(self, v: int, ghost: Ghost) -> Ghost:
        """Return the ghost after a branch of the guest's that its own enable bit admits."""
        return Ghost((VM + v, *ghost.expect[:-1]), ghost.moved, ghost.cpu)

    def arrived(self, c: int, ghost: Ghost) -> Ghost:
        """Return the ghost of a vCPU that is switched in."""
        if ghost.cpu == c + 1:
            return ghost
        return Ghost(ghost.expect, ghost.moved | (1 if ghost.cpu and any(ghost.expect) else 0), c + 1)

    def host_branch(self, cpu: Cpu, owner_asked: int) -> tuple[Lbrs, int]:
        """Return the registers after host code branched, enough to fill them, and what that breaks."""
        lbr = cpu.lbr
        seen = 0 if owner_asked else S5
        if lbr.select not in (NOBODY, HOST):
            seen |= S4
        return Lbrs(1, lbr.select, (HOST,) * len(lbr.stack)), seen


def host_wants(cpu: Cpu) -> int:
    """Say whether a host event is on the PMU."""
    return int(cpu.perf.event == ACTIVE)
