"""What every design's composition has in common: the table of actions, and how a state is changed.

`vlbr`, `handover` and `request` compose perf's steps and KVM's for their families of designs; `step` chooses. An
action that cannot happen, or would do nothing, gives None.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from archlbr.host.state import GUEST, QUIET, Cpu, Host, Moved, Setting, put
from archlbr.lbr.bank import HOST, VM
from archlbr.perf.events import Opened
from archlbr.perf.schedule import TaskPerf
from archlbr.vpmu.designs.sharing import Vcpu

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.vpmu.designs.sharing import Sharing

UNOPENED = Opened()


class Composed(ABC):
    """One design on one setting. steps: the actions that are this family's alone. absent: those of its base's it lacks.

    Immutable: each `on_ACTION` is a pure function of the state, the pCPU and the action's argument.
    """

    steps: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()

    def __init__(self, sharing: Sharing, setting: Setting) -> None:
        """Prepare the table of actions."""
        self.sharing = sharing
        self.setting = setting
        self.opened = tuple(event or UNOPENED for event in setting.events)
        self.moves: dict[str, Callable[[Host, int, int], Moved | None]] = {
            name[3:]: getattr(self, name)
            for name in dir(self)
            if name.startswith("on_") and name[3:] not in self.absent
        }

    def settled(self, host: Host) -> Host:
        """Return the host after the steps that an installation leaves open."""
        return host

    @abstractmethod
    def view(self, cpu: Cpu) -> int:
        """Return perf's view of a pCPU's enable bit while host code runs; -1 where hardware has frozen it."""

    @abstractmethod
    def reads(self, host: Host, c: int) -> tuple[object, ...]:
        """Return the records that the guest on a pCPU would read."""

    # What the families share

    def counts_here(self, cpu: Cpu, c: int) -> bool:
        """Say whether a pCPU's host event counts where the pCPU is: in the guest, or in the host."""
        opened = self.opened[c]
        return not (opened.exclude_guest if cpu.phase == GUEST else opened.exclude_host)

    # Branches: a machine's own processor records them, in the guest and in host code

    def on_branch(self, h: Host, c: int, _: int) -> Moved | None:
        """Branch in the guest."""
        cpu = h.cpus[c]
        return self.changed(h, c, cpu._replace(lbr=cpu.lbr.recorded(VM + cpu.thread - 1))), QUIET

    def on_host_branch(self, h: Host, c: int, _: int) -> Moved | None:
        """Host code branches, enough to fill the registers."""
        cpu = h.cpus[c]
        if not cpu.lbr.enable:
            return None
        return self.changed(h, c, cpu._replace(lbr=cpu.lbr.filled(HOST))), QUIET

    def on_rotate(self, h: Host, c: int, _: int) -> Moved | None:
        """Rotate, in the hrtimer: the event goes and another flexible one comes, in one interrupt.

        perf_rotate_context() (kernel/events/core.c). Both ask for the LBRs, with filters that cannot be on together
        (__intel_shared_reg_get_constraints()), and both have run before.
        """
        if self.opened[c].pinned or self.opened[c].task:
            return None
        gone = self.moves["disable"](h, c, 0)
        return None if gone is None else self.moves["enable"](gone[0], c, 0)

    def on_reborn(self, h: Host, c: int, v: int) -> Moved:
        """Free a vCPU and its thread, and make new ones, whose perf context gets the old one's address."""
        return Host(h.cpus, put(h.tasks, v, TaskPerf()), put(h.vcpus, v, Vcpu())), QUIET

    def changed(self, host: Host, c: int, cpu: Cpu) -> Host:
        """Return the host with one pCPU changed."""
        return Host(put(host.cpus, c, cpu), host.tasks, host.vcpus)

    def moved(self, host: Host, c: int, cpu: Cpu) -> Moved:
        """Return the host with one pCPU changed, and nothing told."""
        return Host(put(host.cpus, c, cpu), host.tasks, host.vcpus), QUIET

    def with_vcpu(self, host: Host, c: int, cpu: Cpu, v: int, vcpu: Vcpu, task: TaskPerf | None = None) -> Host:
        """Return the host with one pCPU and what belongs to one vCPU changed."""
        tasks = host.tasks if task is None else put(host.tasks, v, task)
        return Host(put(host.cpus, c, cpu), tasks, put(host.vcpus, v, vcpu))
