"""Explore designs in scenarios and say what holds: each verdict is the outcome of a complete exploration.

`cli` and the tests ask; `scenarios`, `designs`, `properties` and `check` do the work. A property is violated when one
scenario violates it, and holds when all of them were explored completely without; it says nothing beyond them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from archlbr.check import replay
from archlbr.check.explore import Exploration, Graph, check_determinism, explore
from archlbr.check.liveness import known_by_key, violation
from archlbr.check.model import Model, Property, S, always, response, sometimes
from archlbr.check.parts import Packed
from archlbr.check.reduce import least_of
from archlbr.contract import designs, reduction, scenarios
from archlbr.contract.parts import WorldInParts, places
from archlbr.contract.properties import BIT, CLAIMS
from archlbr.contract.symmetry import exchanged, symmetric
from archlbr.host import state as at
from archlbr.lbr.bank import HOST, VM
from archlbr.perf.events import ACTIVE, ERROR, OFF, PENDING
from archlbr.vpmu.designs.sharing import REQUEST, VLBR, Sharing

if TYPE_CHECKING:
    from archlbr.contract.actors import HostModel
    from archlbr.contract.world import Scenario, World
    from archlbr.host import Action

Tick = Callable[[int], bool]
SELF_CHECK = 20  # steps

# What KVM and perf do without being asked again. That a thread is scheduled, or that user space calls KVM_RUN, is
# nobody's promise.
PROMISED = (
    "enter", "check", "irqs_off", "stop_host", "load_guest", "vmenter", "save_guest", "start_host", "irqs_on", "grant",
    "exit",
)  # fmt: skip
IN_TRANSIT = (at.ENTRY_STOPPED, at.EXIT_SAVED, at.CLAIM)
GUEST_S = ("S1", "S2", "S3", "S4", "G1", "G2", "M1", "M1-live", "L1")

WITNESSES = {
    "guest records": "a guest has a record of its own in the registers",
    "host records": "the host has a record of its own in the registers",
    "both record": "a guest has its own records while the host's event runs",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One design in one scenario. found: property -> the shortest path that breaks it, the stem of a lasso for a
    response; loops: its cycle. witnessed: `WITNESSES` -> the shortest path to it.
    """

    design: str
    scenario: str
    exploration: Exploration[Action]
    found: dict[str, tuple[Action, ...]]
    loops: dict[str, tuple[Action, ...]]
    witnessed: dict[str, tuple[Action, ...]]


def class_of(action: Action) -> str:
    """Return the fairness class of an action: its kind and pCPU; for a switch, the thread, wherever it runs."""
    kind, cpu, argument = action
    return f"switch:{argument}" if kind == "switch" else f"{kind}@{cpu}"


def applies(design: Sharing, claim: str) -> bool:
    """Say whether a property can be asked of a design: no guest LBRs, no claim about them; no counts, none of those."""
    if not design.exposes and claim in GUEST_S:
        return False
    if claim == "C1":
        return design.family == VLBR
    return claim != "L2-entry" or design.family == REQUEST


def _wants_in_vain(world: World) -> bool:
    # vLBR: the guest's bit is set, its event is gone or in ERROR, and no host event contends.
    if any(cpu.perf.event == ACTIVE for cpu in world.cpus):
        return False
    return any(
        vcpu.enable and vcpu.level == 1 and task.event in (ERROR, OFF)
        for vcpu, task in zip(world.vcpus, world.tasks[: len(world.vcpus)], strict=True)
    )


def claims(design: Sharing, scenario: Scenario) -> list[Property[World]]:
    """Return the properties of a design in a scenario, as `check` takes them."""
    fair = tuple(f"{kind}@{c}" for kind in PROMISED for c in range(scenario.cpus))
    at_cpus, at_tasks, _, at_vcpus, _, at_seen = places(scenario)
    found: list[Property[World]] = [
        always(claim.name, _unseen(claim.name), at_seen)
        for claim in CLAIMS
        if claim.kind == "always" and applies(design, claim.name)
    ]
    # L1 of all vCPUs together, whose names symmetry exchanges. L2 and L3 of each pCPU: what one is owed is not what
    # another gets.
    scheduled = (*fair, *(f"switch:{v + 1}" for v in range(scenario.vcpus)))
    if applies(design, "L1"):
        vlbr = design.family == VLBR
        starves, where = (_wants_in_vain, at_cpus + at_tasks + at_vcpus) if vlbr else (_starved, at_vcpus)
        found.append(response("L1", starves, scheduled, where, strong=1))
    for name, owes, promised in (("L2", _pending, fair), ("L2-sched", _pending, scheduled), ("L3", _in_transit, fair)):
        if applies(design, name):
            strong = int(promised is scheduled)
            found += [
                response(name, partial(owes, c=c), promised, (at_cpus[c],), strong=strong) for c in range(scenario.cpus)
            ]
    if design.family == REQUEST:
        found.append(always("R9", _not_evicted, at_cpus))
    return found


def _unseen(name: str) -> Callable[[World], bool]:
    bit = BIT[name]
    return lambda world: not world.seen & bit


def _starved(world: World) -> bool:
    return any(vcpu.starved for vcpu in world.vcpus)


def _pending(world: World, c: int) -> bool:
    return world.cpus[c].perf.event == PENDING


def _in_transit(world: World, c: int) -> bool:
    return world.cpus[c].phase in IN_TRANSIT


def _not_evicted(world: World) -> bool:
    # While a request is pending, no host code records into what is the guest's. That a host record is there is not yet
    # an eviction: R5 gives the guest one that a stale request had saved as its own.
    return not any(
        cpu.perf.event == PENDING and cpu.owner >= VM and cpu.phase != at.GUEST and cpu.lbr.enable for cpu in world.cpus
    )


def _guest_records(world: World) -> bool:
    return any(cpu.phase == at.GUEST and cpu.lbr.stack[0] == VM + cpu.thread - 1 for cpu in world.cpus)


def _host_records(world: World) -> bool:
    return any(cpu.phase != at.GUEST and cpu.lbr.enable and cpu.lbr.stack[0] == HOST for cpu in world.cpus)


def _both(world: World) -> bool:
    return any(
        cpu.phase == at.GUEST and cpu.perf.event == ACTIVE and cpu.lbr.stack[0] == VM + cpu.thread - 1
        for cpu in world.cpus
    )


def witnesses(scenario: Scenario) -> list[Property[World]]:
    """Return what must be reachable somewhere, so that the properties are not true of nothing."""
    predicates = (_guest_records, _host_records, _both)
    at_cpus = places(scenario).cpus
    return [sometimes(name, predicate, at_cpus) for name, predicate in zip(WITNESSES, predicates, strict=True)]


def judge(
    design: Sharing,
    scenario: Scenario,
    wanted: Sequence[str] | None = None,
    tick: Tick | None = None,
    *,
    reduce: frozenset[str] = frozenset(),
) -> Outcome:
    """Explore a design in a scenario, completely unless `tick` stops it; first the step is made twice on a short walk.

    wanted: the properties, None for all. reduce: `reduction.SYMMETRY`, `reduction.INDEPENDENCE`, or both: what to leave
    out; it changes no verdict and no shortest length.
    """
    host = designs.model(design, scenario)
    check_determinism(host, 1, SELF_CHECK)
    asked = [claim for claim in claims(design, scenario) if wanted is None or claim.name in wanted]
    if scenario.cpus * scenario.vcpus == 1 and not scenarios.large(scenario):
        return _judged(design, scenario, host, asked, witnesses(scenario), tick)
    parted = WorldInParts(host)
    packed = Packed(parted)
    ours = [packed.claim(claim) for claim in asked]
    sometimes = [packed.claim(witness) for witness in witnesses(scenario)]
    if reduction.SYMMETRY in reduce and symmetric(scenario):
        images = packed.images(exchanged, reduction.moves(parted.places))
        return _judged(design, scenario, packed, ours, sometimes, tick, images)
    if reduction.INDEPENDENCE in reduce and reduction.independent(design, scenario):
        return _apart(design, scenario, packed, ours, sometimes, tick)
    return _judged(design, scenario, packed, ours, sometimes, tick)


def _judged(
    design: Sharing,
    scenario: Scenario,
    model: Model[S, Action],
    asked: Sequence[Property[S]],
    sometimes: Sequence[Property[S]],
    tick: Tick | None,
    images: Callable[[S], Sequence[S]] | None = None,
) -> Outcome:
    graph: Graph[S, Action] = Graph()
    canonical = None if images is None else least_of(images)
    exploration = explore(model, [*asked, *sometimes], canonical=canonical, tick=tick, graph=graph)
    found = {claim.name: exploration.found[claim.name] for claim in asked if claim.name in exploration.found}
    loops: dict[str, tuple[Action, ...]] = {}
    for claim in asked:
        if claim.kind == "response" and exploration.complete and claim.name not in found:
            lasso = violation(model, graph, claim, class_of, images)
            if lasso is not None:
                found[claim.name], loops[claim.name] = lasso.stem, lasso.cycle
    witnessed = {name: path for name, path in exploration.found.items() if name in WITNESSES}
    return Outcome(design.name, scenario.name, exploration, found, loops, witnessed)


def _apart(
    design: Sharing,
    scenario: Scenario,
    packed: Packed[World, Action],
    asked: Sequence[Property[int]],
    sometimes: Sequence[Property[int]],
    tick: Tick | None,
) -> Outcome:
    # One order of what two pCPUs do apart. It keeps whether something is found, but not in how many steps: what was
    # found is searched for again, in every order, as far as its shortest path. It keeps no fair cycle: a response holds
    # if nobody ever owes, where that is a matter of one part; else every order is explored.
    graph: Graph[int, Action] = Graph()
    independence = packed.independence(reduction.pcpu, reduction.local(scenario))
    exploration = explore(packed, [*asked, *sometimes], independence=independence, tick=tick, graph=graph)
    responses = [claim for claim in asked if claim.kind == "response"]
    if exploration.complete and any(
        (claim.name == "L1" and design.family == VLBR) or any(map(known_by_key(claim), graph.states))
        for claim in responses
    ):
        return _judged(design, scenario, packed, asked, sometimes, tick)
    again = [claim for claim in (*asked, *sometimes) if claim.name in exploration.found]
    shortest = explore(packed, again, until_found=True, tick=tick).found
    found = {claim.name: shortest[claim.name] for claim in asked if claim.name in shortest}
    witnessed = {name: path for name, path in shortest.items() if name in WITNESSES}
    return Outcome(design.name, scenario.name, exploration, found, {}, witnessed)


def replay_line(design: Sharing, scenario: Scenario, outcome: Outcome, claim: str) -> str:
    """Return the line that replays what breaks a property."""
    host: HostModel = designs.model(design, scenario)
    path, loop = outcome.found[claim], outcome.loops.get(claim)
    choices = replay.choices_of(host, [*path, *(loop or ())])
    # A response that fails where the system may stay has a loop of no step.
    at_step = len(path) if loop is not None else None
    return replay.encode(replay.Line(f"{design.name}/{scenario.name}", claim, choices, at_step))
