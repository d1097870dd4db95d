"""The named scenarios: each a bound small enough to be explored completely, and what it is for.

`verdicts` explores every design in every scenario that it belongs to. The whole product is out of reach; what a verdict
says, it says over these, and `features` computes that each pair of features is together in one. `everything` has every
feature at once, for the designs in which the registers have an owner: their states are few enough.
"""

from __future__ import annotations

from archlbr.contract.world import Scenario
from archlbr.errors import InputError
from archlbr.perf.events import Opened

GUEST = frozenset({"lbr_on", "lbr_off", "read"})
KEEPS_ON = frozenset({"lbr_on", "read"})
TOGGLE = frozenset({"enable", "disable"})
OPEN = frozenset({"install", "remove"})
NMI = frozenset({"nmi"})
FLEXIBLE, PINNED, OF_GUEST, OF_TASK = Opened(), Opened(pinned=1), Opened(exclude_guest=0), Opened(task=1)
CALLSTACK, ONLY_GUEST = Opened(task=1, callstack=1), Opened(exclude_guest=0, exclude_host=1)
PINNED_OF_GUEST = Opened(pinned=1, exclude_guest=0)
FAILS = frozenset({"lbr_on_fails", "lose_slot"})
ALL = (
    GUEST | TOGGLE | OPEN | NMI
    | {"hole", "xsaves", "xrstors", "depth", "nest", "unnest", "smi", "rsm", "migrate", "to_user", "to_kernel"}
    | {"get_msrs", "reenter"}
)  # fmt: skip

ALONE: tuple[Scenario, ...] = (
    Scenario(
        "lend", "one VM and a flexible host event that comes and goes", GUEST | TOGGLE | OPEN | NMI, events=(FLEXIBLE,)
    ),
    Scenario("lend-pinned", "the same with a pinned host event", GUEST | TOGGLE | OPEN | NMI, events=(PINNED,)),
    Scenario("lend-task", "the same with an event of the host task", GUEST | TOGGLE | OPEN | NMI, events=(OF_TASK,)),
    Scenario("steady", "a flexible event that stays; no task switch", GUEST, events=(FLEXIBLE,), active=1, host_task=0),
    Scenario("steady-pinned", "a pinned event that stays", KEEPS_ON | NMI, events=(PINNED,), active=1, host_task=0),
    Scenario("opened", "an event is opened; no task switch", KEEPS_ON | OPEN, events=(FLEXIBLE,), host_task=0),
    Scenario(
        "opened-pinned",
        "a pinned event is opened; no task switch",
        KEEPS_ON | OPEN | NMI,
        events=(PINNED,),
        host_task=0,
    ),
    Scenario(
        "toggled",
        "an event comes and goes, the guest keeps its LBRs on",
        KEEPS_ON | TOGGLE | NMI,
        events=(FLEXIBLE,),
        active=1,
    ),
    Scenario("alone", "one VM, a host task, no host event", GUEST),
    Scenario("neighbours", "two VMs on one pCPU and nobody else", GUEST, vcpus=2, host_task=0),
    Scenario(
        "neighbours-traced",
        "two VMs under a flexible event that stays",
        GUEST,
        vcpus=2,
        host_task=0,
        events=(FLEXIBLE,),
        active=1,
    ),
    Scenario(
        "neighbours-toggled",
        "two VMs under a flexible event that comes and goes",
        KEEPS_ON | TOGGLE,
        vcpus=2,
        host_task=0,
        events=(FLEXIBLE,),
        active=1,
    ),
    Scenario("failing", "two VMs; perf may refuse the vLBR event", KEEPS_ON | {"lbr_on_fails"}, vcpus=2, host_task=0),
    Scenario(
        "failing-traced",
        "one VM; perf may refuse; a host event stays",
        KEEPS_ON | NMI | {"lbr_on_fails"},
        events=(FLEXIBLE,),
        active=1,
    ),
    Scenario("denied", "the vLBR event may lose its counter", KEEPS_ON | {"lose_slot"}),
    Scenario(
        "freeze",
        "perfmon v2 or v3: an overflow freezes the LBRs",
        KEEPS_ON | {"overflow", "nmi"},
        events=(FLEXIBLE,),
        active=1,
        host_task=0,
    ),
    Scenario(
        "freeze-guest",
        "the same with an event that counts in the guest",
        KEEPS_ON | {"overflow", "nmi"},
        events=(OF_GUEST,),
        active=1,
        host_task=0,
    ),
    Scenario("guest-sampled", "an event that counts in the guest", GUEST | NMI | TOGGLE, events=(OF_GUEST,), active=1),
    Scenario(
        "ioctl",
        "another thread reads the vCPU's registers; a host event on its pCPU",
        KEEPS_ON | {"get_msrs", "to_user", "to_kernel"},
        cpus=2,
        events=(None, FLEXIBLE),
        active=1,
    ),
    Scenario("nested", "L1 runs L2, and keeps its LBRs on", KEEPS_ON | {"nest", "unnest"}),
    Scenario(
        "nested-traced",
        "L1 runs L2 under a host event that comes and goes",
        KEEPS_ON | NMI | TOGGLE | {"nest", "unnest"},
        events=(FLEXIBLE,),
        active=1,
        host_task=0,
    ),
    Scenario("hole", "two records a stack; the guest writes a sparse one", KEEPS_ON | {"hole"}, depth=2),
    Scenario("live", "save and restore of the VM", KEEPS_ON | {"migrate"}),
    Scenario("roam", "two pCPUs, one VM that changes between them", KEEPS_ON, cpus=2, events=(None, None), roams=1),
    Scenario(
        "roam-traced",
        "the same under a host event that is opened and closed",
        KEEPS_ON | OPEN,
        cpus=2,
        events=(FLEXIBLE, None),
        roams=1,
    ),
    Scenario("smm", "the guest enters SMM and resumes", GUEST | {"smi", "rsm"}),
    Scenario(
        "xsaves",
        "the guest uses XSAVES and XRSTORS under a host event",
        KEEPS_ON | {"xsaves", "xrstors"},
        events=(FLEXIBLE,),
        active=1,
    ),
    Scenario("depth", "the guest writes DEPTH under a host event", frozenset({"depth"}), events=(FLEXIBLE,), active=1),
    Scenario(
        "user",
        "KVM_RUN returns to user space; an event is opened and closed",
        KEEPS_ON | OPEN | {"to_user", "to_kernel"},
        events=(FLEXIBLE,),
        host_task=0,
    ),
    Scenario(
        "fastpath",
        "VM entry again with interrupts still off",
        GUEST | TOGGLE | NMI | {"reenter"},
        events=(FLEXIBLE,),
        active=1,
        host_task=0,
    ),
    Scenario(
        "callstack",
        "a call-stack event of the host task that comes and goes",
        GUEST | TOGGLE | OPEN | NMI,
        events=(CALLSTACK,),
    ),
    Scenario(
        "multiplexed", "two flexible events take turns", KEEPS_ON | NMI | {"rotate"}, events=(FLEXIBLE,), active=1
    ),
    Scenario("guest-only", "an event that counts in guests alone", GUEST | NMI, events=(ONLY_GUEST,), active=1),
    Scenario(
        "recycled",
        "two pCPUs; a VM is closed, and a new one's perf context gets the old one's address",
        KEEPS_ON | {"reborn"},
        cpus=2,
        events=(None, None),
        roams=1,
    ),
    Scenario("everything", "two VMs on one pCPU with all of it", ALL, vcpus=2, events=(FLEXIBLE,)),
    Scenario(
        "everything-of-guest",
        "the same with an event that counts in the guest",
        ALL | {"overflow"},
        vcpus=2,
        events=(OF_GUEST,),
    ),
    Scenario("everything-task", "the same with an event of the host task", ALL, vcpus=2, events=(OF_TASK,)),
    Scenario(
        "everything-roam",
        "one VM on two pCPUs, two host events, with all of it",
        ALL,
        cpus=2,
        events=(FLEXIBLE, PINNED),
        roams=1,
    ),
)

SAMPLED, MOVED = frozenset({"nmi", "overflow", "rotate"}), frozenset({"migrate", "get_msrs", "to_user", "to_kernel"})
# Each pair of features in at least one scenario, for the designs too whose states are too many for `everything`:
# `features` says which pairs there are. One VM with all of it under an event of each kind, and two VMs, two pCPUs and
# two host events with a few features at a time.
PAIRED: tuple[Scenario, ...] = (
    Scenario(
        "mixed-guest",
        "one VM with all of it, an event that counts in guests alone",
        ALL | FAILS | {"overflow", "rotate"},
        events=(ONLY_GUEST,),
    ),
    Scenario(
        "mixed-pinned",
        "one VM with all of it, a pinned event that counts in the guest",
        ALL | FAILS | {"overflow"},
        events=(PINNED_OF_GUEST,),
    ),
    Scenario(
        "mixed-callstack", "one VM with all of it, a call-stack event", ALL | FAILS | {"overflow"}, events=(CALLSTACK,)
    ),
    Scenario(
        "neighbours-nested",
        "two VMs that run L2, enter SMM and write a sparse stack",
        KEEPS_ON | {"nest", "unnest", "smi", "rsm", "hole"},
        vcpus=2,
        host_task=0,
    ),
    Scenario(
        "neighbours-moved",
        "two VMs that are saved and restored, read from outside and return to user space",
        KEEPS_ON | MOVED | {"reenter", "lose_slot"},
        vcpus=2,
    ),
    Scenario(
        "neighbours-xsaves",
        "two VMs that use XSAVES and write DEPTH",
        KEEPS_ON | {"xsaves", "xrstors", "depth", "lbr_on_fails"},
        vcpus=2,
        host_task=0,
    ),
    Scenario(
        "neighbours-sampled",
        "two VMs under an event that counts in guests alone and takes turns",
        SAMPLED | {"lbr_on"},
        vcpus=2,
        host_task=0,
        events=(ONLY_GUEST,),
        active=1,
    ),
    Scenario(
        "neighbours-opened",
        "two VMs, a pinned event that counts in the guest is opened and closed",
        OPEN | {"lbr_on"},
        vcpus=2,
        host_task=0,
        events=(PINNED_OF_GUEST,),
    ),
    Scenario(
        "neighbours-callstack",
        "two VMs and a host task with a call-stack event",
        TOGGLE | OPEN | {"lbr_on"},
        vcpus=2,
        events=(CALLSTACK,),
    ),
    Scenario(
        "roam-nested",
        "two pCPUs with an event each, one VM that runs L2, enters SMM and writes a sparse stack",
        KEEPS_ON | {"nest", "unnest", "smi", "rsm", "hole"},
        cpus=2,
        events=(FLEXIBLE, PINNED),
        active=1,
        roams=1,
    ),
    Scenario(
        "roam-moved",
        "two pCPUs with an event each, one VM that is saved and restored and returns to user space",
        KEEPS_ON | MOVED | {"reenter", "lose_slot"},
        cpus=2,
        events=(FLEXIBLE, PINNED),
        active=1,
        roams=1,
    ),
    Scenario(
        "roam-xsaves",
        "two pCPUs with an event each, one VM that uses XSAVES and writes DEPTH",
        KEEPS_ON | {"xsaves", "xrstors", "depth", "lbr_on_fails"},
        cpus=2,
        events=(FLEXIBLE, PINNED),
        active=1,
        roams=1,
    ),
    Scenario(
        "roam-sampled",
        "one VM on two pCPUs under two events that count in the guest",
        SAMPLED | {"lbr_on"},
        cpus=2,
        events=(ONLY_GUEST, PINNED_OF_GUEST),
        active=1,
        roams=1,
    ),
    Scenario(
        "roam-opened",
        "one VM on two pCPUs, two events that are opened and closed",
        OPEN | {"lbr_on"},
        cpus=2,
        events=(PINNED_OF_GUEST, ONLY_GUEST),
        roams=1,
    ),
    Scenario(
        "roam-callstack",
        "one VM on two pCPUs, a call-stack event and a pinned one come and go",
        TOGGLE | {"lbr_on"},
        cpus=2,
        events=(CALLSTACK, PINNED_OF_GUEST),
        active=1,
        roams=1,
    ),
    Scenario(
        "roam-callstack-guest",
        "one VM on two pCPUs, a call-stack event and one of guests alone that takes turns",
        frozenset({"lbr_on", "rotate"}),
        cpus=2,
        events=(CALLSTACK, ONLY_GUEST),
        active=1,
        roams=1,
    ),
    Scenario(
        "two-by-two",
        "two VMs on two pCPUs with an event each",
        frozenset({"lbr_on"}),
        cpus=2,
        vcpus=2,
        events=(FLEXIBLE, PINNED),
        active=1,
        roams=1,
    ),
)
SCENARIOS = (*ALONE, *PAIRED)
# Two pCPUs, two VMs, two host events and all of it: beyond any exhaustive search, walked at random only.
WHOLE = Scenario(
    "whole",
    "two VMs on two pCPUs, two host events, with all of it",
    ALL,
    cpus=2,
    vcpus=2,
    events=(FLEXIBLE, PINNED),
    roams=1,
)
BY_NAME = {scenario.name: scenario for scenario in (*SCENARIOS, WHOLE)}


# What `NAME,bound=VALUE` may change in a scenario, and how far: what the tables of actions and names are made for.
BOUNDS: dict[str, tuple[str, int, int]] = {"cpus": ("cpus", 1, 2), "vcpus": ("vcpus", 1, 3), "records": ("depth", 1, 4)}


def named(name: str) -> Scenario:
    """Return a scenario by its name, with other bounds after commas (`lend,records=2`); InputError for what is none."""
    base, *bounds = name.split(",")
    found = BY_NAME.get(base)
    if found is None:
        raise InputError(f"unknown scenario {base!r}: use one of {', '.join(BY_NAME)}")
    for bound in bounds:
        found = bounded(found, *bound.partition("=")[::2])
    return found


def bounded(scenario: Scenario, bound: str, value: str) -> Scenario:
    """Return a scenario with one bound changed, and its name with it; InputError where that is out of range."""
    if bound not in BOUNDS:
        raise InputError(f"unknown bound {bound!r}: use one of {', '.join(BOUNDS)}, as in records=2")
    field, least, most = BOUNDS[bound]
    number = int(value) if value.isascii() and value.isdecimal() else -1
    if not least <= number <= most:
        raise InputError(f"bound {bound}={value} is out of range: {bound} is {least} to {most}")
    if getattr(scenario, field) == number:
        return scenario
    changed = scenario._replace(name=f"{scenario.name},{bound}={number}")
    if field == "cpus":
        return changed._replace(cpus=number, events=(*scenario.events, None)[:number])  # an added pCPU has no event
    return changed._replace(vcpus=number) if field == "vcpus" else changed._replace(depth=number)


def belongs(family: str, scenario: Scenario) -> bool:
    """Say whether a family of designs is explored in a scenario: the largest are for `handover` alone."""
    return family == "handover" or not scenario.name.startswith("everything")


def large(scenario: Scenario) -> bool:
    """Say whether a scenario is left out where only the small ones are asked for: `everything`, and the pairs."""
    return scenario.name.startswith("everything") or scenario in PAIRED
