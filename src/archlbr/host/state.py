"""The host as one state: pCPUs, what perf keeps of each thread, what KVM keeps of each vCPU.

`step` moves it. `contract` explores it over tags, a machine runs it over the facility's registers (`lbr.bank`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from archlbr.lbr.bank import NOBODY, Bank
from archlbr.perf.events import OFF, Opened
from archlbr.perf.schedule import CpuPerf, TaskPerf
from archlbr.vpmu.designs.sharing import Vcpu

if TYPE_CHECKING:
    from archlbr.perf.samples import Sample

# Where a pCPU is. ENTRY_*: interrupts off before VM entry; EXIT_*: interrupts off after VM exit, and the steps of a
# hand-over between them; CLAIM: inside an IPI of perf's, where only an NMI cuts in. CHECKED: after the look at KVM's
# requests, interrupts still on. USER: out of KVM_RUN.
HOST_ON, ENTRY, GUEST, EXIT, USER, CHECKED, ENTRY_STOPPED, ENTRY_LOADED, EXIT_SAVED, EXIT_DONE, CLAIM = range(11)
PHASES = (
    "host", "entry", "guest", "exit", "user", "checked", "entry: host stopped", "entry: guest loaded",
    "exit: guest saved", "exit: host started", "claim",
)  # fmt: skip

# An action: its name (`step.ACTIONS`), the pCPU it happens on, and a thread or a vCPU where it needs one, else 0.
Action: TypeAlias = tuple[str, int, int]


class Cpu(NamedTuple):
    """One pCPU. thread: 0 a host task or idle, else vCPU + 1. lbr: its registers. snapshot: host_debugctl; in a claim,
    the phase to go back to. owner: whose the registers are where a design says so: NOBODY, HOST, VM + vCPU.
    """

    thread: int
    phase: int
    lbr: Bank
    perf: CpuPerf
    snapshot: int
    owner: int


class Host(NamedTuple):
    """The state. tasks: of the vCPU threads, then of each pCPU's host task."""

    cpus: tuple[Cpu, ...]
    tasks: tuple[TaskPerf, ...]
    vcpus: tuple[Vcpu, ...]


class Setting(NamedTuple):
    """What does not change. events: how each pCPU's host event is opened, None where there is none. freezes: 1 where an
    overflow freezes the LBRs until its NMI is handled (perfmon versions 2 and 3). logs: 0, or the most saves of one
    context where log_id is counted rather than stood for.
    """

    events: tuple[Opened | None, ...]
    freezes: int = 0
    logs: int = 0


class Told(NamedTuple):
    """What came of an action, beside the state. left: the pCPU as a VM exit left it, before KVM handled the exit. read:
    records that the guest, or user space, was given. wrote: records that the guest wrote, itself or by XRSTORS or
    DEPTH. sample: what an NMI took, in_guest: 1 where its PMI came in the guest.
    """

    left: Cpu | None = None
    read: tuple[Any, ...] | None = None
    wrote: tuple[Any, ...] | None = None
    sample: Sample | None = None
    in_guest: int = 0


QUIET = Told()
Moved: TypeAlias = tuple[Host, Told]


def initial(banks: tuple[Bank, ...], vcpus: int) -> Host:
    """Return the host before anything has happened: each pCPU runs its vCPU if it has one, in the host."""
    cpus = tuple(
        Cpu(c + 1 if c < vcpus else 0, HOST_ON, bank, CpuPerf(event=OFF), 0, NOBODY) for c, bank in enumerate(banks)
    )
    return Host(cpus, (TaskPerf(),) * (vcpus + len(banks)), (Vcpu(),) * vcpus)


def put(pairs: tuple[Any, ...], at: int, value: object) -> tuple[Any, ...]:
    """Return a tuple with one place changed."""
    return (*pairs[:at], value, *pairs[at + 1 :])
