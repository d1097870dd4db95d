"""The state that is explored: pCPUs, vCPU threads, vCPUs, and what each guest may expect to read.

`actors` moves it. It is made of the layers' own states (`lbr.tagged`, `perf.schedule`, `vpmu.designs`) and of ghosts,
which only judge and never decide.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from archlbr.lbr.tagged import NOBODY, Lbrs, reset
from archlbr.perf.events import OFF, Opened
from archlbr.perf.schedule import CpuPerf, TaskPerf
from archlbr.vpmu.designs.sharing import Vcpu

# Where a pCPU is. ENTRY_*: interrupts off before VM entry; EXIT_*: interrupts off after VM exit, and the steps of a
# hand-over between them; CLAIM: inside an IPI of perf's, where only an NMI cuts in. CHECKED: after the look at KVM's
# requests, interrupts still on. USER: out of KVM_RUN.
HOST_ON, ENTRY, GUEST, EXIT, USER, CHECKED, ENTRY_STOPPED, ENTRY_LOADED, EXIT_SAVED, EXIT_DONE, CLAIM = range(11)
PHASES = (
    "host", "entry", "guest", "exit", "user", "checked", "entry: host stopped", "entry: guest loaded",
    "exit: guest saved", "exit: host started", "claim",
)  # fmt: skip


class Cpu(NamedTuple):
    """One pCPU. thread: 0 a host task or idle, else vCPU + 1. snapshot: host_debugctl. owner: whose the registers are
    where a design says so: NOBODY, HOST, VM + vCPU.
    """

    thread: int
    phase: int
    lbr: Lbrs
    perf: CpuPerf
    snapshot: int
    owner: int


class Ghost(NamedTuple):
    """What a guest must read. expect: the stack if it had the LBRs alone. moved: 1 after a change of pCPU, 2 after
    save and restore. cpu: the pCPU it ran on last, plus 1.
    """

    expect: tuple[int, ...]
    moved: int
    cpu: int


class World(NamedTuple):
    """Everything; seen: the properties that the last step broke, as bits."""

    cpus: tuple[Cpu, ...]
    tasks: tuple[TaskPerf, ...]
    vcpus: tuple[Vcpu, ...]
    ghosts: tuple[Ghost, ...]
    seen: int


class Scenario(NamedTuple):
    """What may happen: the bounds of one exploration.

    cpus, vcpus: how many; each vCPU is a VM of its own. depth: records a stack. events: how the host event of each pCPU
    was opened, None where there is none. active: the events start ACTIVE. may: the names of what may happen beside
    what always may (see `menu`). threads: 1 with a host task beside the vCPU threads. roams: vCPUs change pCPUs.
    """

    name: str
    says: str
    may: frozenset[str]
    cpus: int = 1
    vcpus: int = 1
    depth: int = 1
    events: tuple[Opened | None, ...] = (None,)
    active: int = 0
    host_task: int = 1
    roams: int = 0


def start(scenario: Scenario) -> World:
    """Return the world before anything has happened: each pCPU runs its vCPU if it has one, in the host."""
    empty = reset(scenario.depth)
    cpus = tuple(
        Cpu(c + 1 if c < scenario.vcpus else 0, HOST_ON, empty, CpuPerf(event=OFF), 0, NOBODY)
        for c in range(scenario.cpus)
    )
    ghosts = tuple(Ghost(empty.stack, 0, c + 1 if c < scenario.cpus else 0) for c in range(scenario.vcpus))
    return World(cpus, (TaskPerf(),) * scenario.vcpus, (Vcpu(),) * scenario.vcpus, ghosts, 0)


def put(pairs: tuple[Any, ...], at: int, value: object) -> tuple[Any, ...]:
    """Return a tuple with one place changed."""
    return (*pairs[:at], value, *pairs[at + 1 :])
