"""Which interleaving a run of a machine was: its own actions, replayed in the scenarios that `check` explores.

`cli` hands over the path of `machine.pcpu` up to where a property was broken. In a scenario, the path is followed as
far as the scenario has its actions; if the model breaks the same property on it, what the path does not need for it is
left out, and the rest replays like a path that `check` found. In the scenario of a named interleaving, it is that one.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from archlbr.check import replay
from archlbr.contract import designs, scenarios
from archlbr.contract.interleavings import NAMED, Named
from archlbr.contract.menu import KINDS
from archlbr.contract.properties import BIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archlbr.contract.actors import HostModel
    from archlbr.contract.world import Scenario
    from archlbr.host import Action
    from archlbr.perf.events import Opened
    from archlbr.vpmu.designs.sharing import Sharing

# How many runs of the model may be spent on leaving out what is not needed.
_PATIENCE = 3_000


class Observed(NamedTuple):
    """An interleaving that a run was. name, says: of `interleavings`, "" for one without a name. path: what of the run
    makes it, in its scenario. line: that, to be replayed.
    """

    name: str
    says: str
    path: tuple[Action, ...]
    line: str


def followed(model: HostModel, path: Sequence[Action], claim: str) -> tuple[Action, ...] | None:
    """Return the actions of a path that the model has, up to the one that breaks a property; None if none does."""
    bit = BIT[claim]
    state = model.initial()[0]
    taken: list[Action] = []
    for action in path:
        if action not in model.actions(state):
            continue
        after = model.next(state, action)
        if after is None:
            continue
        taken.append(action)
        if after.seen & bit:
            return tuple(taken)
        state = after
    return None


def shortened(model: HostModel, path: tuple[Action, ...], claim: str, patience: int = _PATIENCE) -> tuple[Action, ...]:
    """Return a part of a path that still breaks the property, and from which no one action can be left out."""
    size = len(path) // 2
    while size and patience > 0:
        at, shorter = 0, False
        while at < len(path) and patience > 0:
            patience -= 1
            without = followed(model, path[:at] + path[at + size :], claim)
            if without is not None and len(without) < len(path):
                path, shorter = without, True
            else:
                at += size
        if not shorter or size > 1:
            size //= 2
    return path


def _seen_by(vcpu: int, alone: bool, path: Sequence[Action], *, fills: bool) -> list[Action]:
    """Return the path as a scenario has it: one guest in the first place, the others its host task if it is `alone`.

    fills: host code that left some of a guest's records is taken for code that fills the registers, or for none.
    """
    seen: list[Action] = []
    current = 1
    for kind, c, argument in path:
        if kind == "switch":
            current = argument
            first = argument == vcpu + 1
            seen.append((kind, c, 1 if first else 0 if alone or not argument else 2))
        elif kind == "host_branch" and argument:
            seen += [(kind, c, 0)] * fills
        elif not alone or current == vcpu + 1 or KINDS[kind].vcpu != 1:
            seen.append((kind, c, 0 if kind == "host_branch" else argument))
    return seen


def observed(
    sharing: Sharing, guests: int, event: Opened | None, path: Sequence[Action], claim: str
) -> tuple[Observed, ...]:
    """Return the interleavings of a design that a path is which broke a property, each shortened.

    Those that have a name, if it is one; else the first of the scenarios that has it; () if the model has no such path.
    """
    named = [one for one in NAMED if (one.design, one.claim, one.found) == (sharing.name, claim, 1)]
    found = [
        seen
        for one in named
        if (seen := _in_scenario(sharing, scenarios.named(one.scenario), guests, event, path, claim, one))
    ]
    if found:
        return tuple(found)
    for scenario in scenarios.SCENARIOS:
        if scenarios.belongs(sharing.family, scenario):
            seen = _in_scenario(sharing, scenario, guests, event, path, claim, None)
            if seen is not None:
                return (seen,)
    return ()


def _in_scenario(
    sharing: Sharing,
    scenario: Scenario,
    guests: int,
    event: Opened | None,
    path: Sequence[Action],
    claim: str,
    named: Named | None,
) -> Observed | None:
    if scenario.cpus != 1 or scenario.events[0] != event:
        return None
    model = designs.model(sharing, scenario)
    for vcpu, fills in product(range(guests), (True, False)):
        taken = followed(model, _seen_by(vcpu, scenario.vcpus == 1, path, fills=fills), claim)
        if taken is not None:
            least = shortened(model, taken, claim)
            line = replay.Line(f"{sharing.name}/{scenario.name}", claim, replay.choices_of(model, least))
            name, says = (named.name, named.says) if named is not None else ("", "")
            return Observed(name, says, least, replay.encode(line))
    return None
