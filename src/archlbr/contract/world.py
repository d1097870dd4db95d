"""The state that is explored: the host, and what each guest may expect to read; the bounds of one exploration.

`host.step` moves the host, `actors` puts it into the hands of `check`. Ghosts only judge and never decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from archlbr.host import Cpu, Host, Setting, initial
from archlbr.lbr.tagged import reset

if TYPE_CHECKING:
    from archlbr.perf.events import Opened
    from archlbr.perf.schedule import TaskPerf
    from archlbr.vpmu.designs.sharing import Vcpu


# The most saves of one perf context where its address is used again: more would only repeat the first.
LOGS = 2


class Ghost(NamedTuple):
    """What a guest must read. expect: the stack if it had the LBRs alone. moved: 1 after a change of pCPU, 2 after
    save and restore. cpu: the pCPU it ran on last, plus 1.
    """

    expect: tuple[int, ...]
    moved: int
    cpu: int


class World(NamedTuple):
    """Everything; seen: the properties that the last step broke, as bits."""

    host: Host
    ghosts: tuple[Ghost, ...]
    seen: int

    @property
    def cpus(self) -> tuple[Cpu, ...]:
        """Return the pCPUs."""
        return self.host.cpus

    @property
    def tasks(self) -> tuple[TaskPerf, ...]:
        """Return what perf keeps of each thread."""
        return self.host.tasks

    @property
    def vcpus(self) -> tuple[Vcpu, ...]:
        """Return what KVM keeps of each vCPU."""
        return self.host.vcpus


class Scenario(NamedTuple):
    """What may happen: the bounds of one exploration.

    cpus, vcpus: how many; each vCPU is a VM of its own. depth: records a stack. events: how the host event of each pCPU
    was opened, None where there is none. active: the events start ACTIVE. may: the names of what may happen beside
    what always may (see `menu`). host_task: 1 with a host task beside the vCPU threads. roams: vCPUs change pCPUs.
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


def setting(scenario: Scenario) -> Setting:
    """Return the host's setting in a scenario."""
    return Setting(scenario.events, int("overflow" in scenario.may), LOGS if "reborn" in scenario.may else 0)


def start(scenario: Scenario) -> World:
    """Return the world before anything has happened."""
    empty = reset(scenario.depth)
    host = initial((empty,) * scenario.cpus, scenario.vcpus)
    ghosts = tuple(Ghost(empty.stack, 0, c + 1 if c < scenario.cpus else 0) for c in range(scenario.vcpus))
    return World(host, ghosts, 0)
