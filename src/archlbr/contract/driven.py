"""The composed step of a design on one pCPU, as a machine drives it: what `check` explores, with real records.

`machine.pcpu` says what happens; the same functions as in an exploration say what comes of it. Records are ints that a
machine gives more to than a tag; the ghosts that judge an exploration are not asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from archlbr.contract import world as at
from archlbr.contract.owned_host import OwnedHost
from archlbr.contract.request_host import RequestHost
from archlbr.contract.vlbr_host import VlbrHost
from archlbr.contract.world import Scenario
from archlbr.vpmu.designs.sharing import HANDOVER, REQUEST, VLBR

if TYPE_CHECKING:
    from archlbr.contract.actors import HostModel
    from archlbr.contract.world import Ghost, World
    from archlbr.perf.events import Opened
    from archlbr.perf.samples import Sample
    from archlbr.vpmu.designs.sharing import Sharing

# What KVM does next, by where the pCPU is; the first that is possible.
_ONWARDS: Final[dict[int, tuple[str, ...]]] = {
    at.EXIT: ("save_guest", "irqs_on"),
    at.EXIT_SAVED: ("start_host",),
    at.EXIT_DONE: ("irqs_on",),
    at.CLAIM: ("grant",),
    at.HOST_ON: ("check", "enter"),
    at.CHECKED: ("irqs_off",),
    at.ENTRY: ("stop_host", "vmenter"),
    at.ENTRY_STOPPED: ("load_guest",),
    at.ENTRY_LOADED: ("vmenter",),
}


class _Told:
    """What a model tells while it moves: the sample of an NMI."""

    sample: Sample | None = None

    def judged_sample(self, _c: int, sample: Sample, *, in_guest: int) -> int:
        """Keep the sample; who drives the model judges it."""
        del in_guest
        self.sample = sample
        return 0

    def judged_read(self, _v: int, ghost: Ghost, _got: tuple[int, ...]) -> tuple[int, Ghost]:
        """Judge nothing."""
        return 0, ghost


class _Vlbr(_Told, VlbrHost):
    pass


class _Owned(_Told, OwnedHost):
    pass


class _Request(_Told, RequestHost):
    pass


_DRIVEN: Final = {VLBR: _Vlbr, HANDOVER: _Owned, REQUEST: _Request}


def setting(guests: int, event: Opened | None, depth: int = 1) -> Scenario:
    """Return the bounds of a run: so many guests on one pCPU, and the host's event."""
    return Scenario("run", "guests of a machine", frozenset(), vcpus=guests, depth=depth, events=(event,))


class Driven:
    """A design's step for a machine. guests: how many. event: how the host's is opened, None for none."""

    def __init__(self, sharing: Sharing, guests: int, event: Opened | None) -> None:
        driven: Any = _DRIVEN[sharing.family](sharing, setting(guests, event))
        self._model: HostModel = driven
        self._told: _Told = driven
        self._setting = self._model.scenario

    def start(self, width: int, active: int) -> World:
        """Return the host's state with stacks of so many records. active: 1 when the host's event runs already."""
        self._model.scenario = self._setting._replace(depth=width, active=active)
        return self._model.initial()[0]

    def act(self, state: World, name: str, argument: int) -> tuple[World, Sample | None] | None:
        """Return the state after an action on the one pCPU, and the sample that it took; None if it cannot happen."""
        move = self._model.moves.get(name)
        if move is None:
            return None
        self._told.sample = None
        after = move(state, 0, argument)
        sample = self._told.sample
        if after is None:
            return None if sample is None else (state, sample)
        return after, sample

    def onwards(self, state: World) -> tuple[str, ...]:
        """Return what KVM does next on its way round its run loop; the first that is possible."""
        return _ONWARDS[state.cpus[0].phase]

    def in_guest(self, state: World) -> bool:
        """Say whether the pCPU runs guest code."""
        return state.cpus[0].phase == at.GUEST

    def interruptible(self, state: World) -> bool:
        """Say whether an IPI of perf's can come."""
        return state.cpus[0].phase in (at.HOST_ON, at.CHECKED)

    def claiming(self, state: World) -> bool:
        """Say whether an IPI of perf's is on its way."""
        return state.cpus[0].phase == at.CLAIM
