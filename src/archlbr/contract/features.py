"""What a scenario has at once: its features, their pairs, and why a feature or a pair is nothing to a design.

The tests compute that each pair is in one scenario of each design, and that what is said to be nothing leads nowhere.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from archlbr.vpmu.designs.sharing import VLBR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from archlbr.contract.world import Scenario
    from archlbr.perf.events import Opened
    from archlbr.vpmu.designs.sharing import Sharing

# feature -> the actions that it is made of
BY_ACTION: dict[str, frozenset[str]] = {
    "event opened and closed": frozenset({"install", "remove"}),
    "event enabled and disabled": frozenset({"enable", "disable"}),
    "multiplexing": frozenset({"rotate"}),
    "NMI": frozenset({"nmi"}),
    "freeze by hardware": frozenset({"overflow"}),
    "SMI": frozenset({"smi", "rsm"}),
    "nested exits": frozenset({"nest", "unnest"}),
    "XSAVES": frozenset({"xsaves", "xrstors"}),
    "DEPTH": frozenset({"depth"}),
    "sparse stack": frozenset({"hole"}),
    "save and restore": frozenset({"migrate"}),
    "ioctl": frozenset({"get_msrs"}),
    "user space": frozenset({"to_user", "to_kernel"}),
    "fast path": frozenset({"reenter"}),
    "creation fails": frozenset({"lbr_on_fails"}),
    "counter lost": frozenset({"lose_slot"}),
}
BY_EVENT: dict[str, Callable[[Opened], bool]] = {
    "flexible event": lambda event: not event.pinned,
    "pinned event": lambda event: bool(event.pinned),
    "event that counts in the guest": lambda event: not event.exclude_guest,
    "event of guests alone": lambda event: bool(event.exclude_host),
    "task's event": lambda event: bool(event.task),
    "call-stack event": lambda event: bool(event.callstack),
}
BY_BOUND: dict[str, Callable[[Scenario], bool]] = {
    "second VM": lambda scenario: scenario.vcpus > 1,
    "second pCPU": lambda scenario: scenario.cpus > 1,
    "vCPU migration": lambda scenario: bool(scenario.roams),
    "two host events": lambda scenario: sum(event is not None for event in scenario.events) > 1,
}
FEATURES = (*BY_ACTION, *BY_EVENT, *BY_BOUND)

_NO_LBREN = "LBREn, DEPTH and component 15 are Architectural LBR's; the legacy facility has none of them"
_NO_LBRS = "the guest has no LBRs"
_NO_EVENT = "no event of perf's stands for the guest"


def pointless(design: Sharing) -> dict[str, str]:
    """Return feature -> why it is nothing to a design."""
    found: dict[str, str] = {}
    if design.family == VLBR:
        found["user space"] = "KVM does nothing on the return to user space: perf's event follows the thread"
        if not design.architectural:
            found |= dict.fromkeys(("SMI", "XSAVES", "DEPTH"), _NO_LBREN)
    else:
        found |= dict.fromkeys(("creation fails", "counter lost"), _NO_EVENT)
    if not design.exposes:
        found |= dict.fromkeys(("SMI", "XSAVES", "DEPTH", "sparse stack"), _NO_LBRS)
    return found


def features(scenario: Scenario) -> frozenset[str]:
    """Return the features of a scenario; an event counts where it runs from the start or can be opened."""
    found = {name for name, actions in BY_ACTION.items() if actions <= scenario.may}
    events = [event for event in scenario.events if event is not None]
    if scenario.active or "install" in scenario.may:
        found |= {name for name, has in BY_EVENT.items() if any(map(has, events))}
    else:
        events = []
    if not any(not event.pinned and not event.task for event in events):
        found.discard("multiplexing")  # a pCPU's flexible events take turns, and no others
    found |= {name for name, has in BY_BOUND.items() if has(scenario) and (events or name != "two host events")}
    return frozenset(found)


def pairs(design: Sharing) -> set[frozenset[str]]:
    """Return the pairs of features that mean something to a design."""
    left = [feature for feature in FEATURES if feature not in pointless(design)]
    return {frozenset(pair) for pair in combinations(left, 2)}


def covered(scenarios: Iterable[Scenario]) -> set[frozenset[str]]:
    """Return the pairs that are together in one of the scenarios."""
    return {frozenset(pair) for scenario in scenarios for pair in combinations(features(scenario), 2)}
