"""What can happen to a vCPU's LBRs, as values: the closed set of inputs `step` takes, and the outcomes it adds.

The guest's instructions and the processor's events are those of `lbr.actions` (Rdmsr, Wrmsr, Xsaves, Xrstors, Branch,
DebugException, Smi, Rsm, Init, WarmReset, ColdReset, DeepCState): here they happen to a guest. This module adds what
only a guest can do, what userspace does by ioctl, and what the scheduler and perf do. `machine` and `conformance`
feed them. Authority: reference kvm-series.md, sections A and B.

A guest's instruction while the vCPU is out is one KVM_RUN: enter, execute, exit. A step of the host's (ioctl, perf,
scheduler, injection) takes a running vCPU out first. VmEntry and VmExit bracket longer runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from archlbr.arch import outcomes
from archlbr.lbr import actions as lbr

if TYPE_CHECKING:
    from archlbr.vpmu.cpuid import Cpuid

# The guest ----------------------------------------------------------------------------------------------------------


class CpuidInstruction(NamedTuple):
    """CPUID; the outcome is Registers."""

    leaf: int
    subleaf: int = 0


class Rdpmc(NamedTuple):
    """RDPMC: counter n, or 40000000H + n for a fixed one."""

    counter: int
    cpl: int = 0


class Xsetbv(NamedTuple):
    """XSETBV of XCR0."""

    value: int
    cpl: int = 0


class Count(NamedTuple):
    """The guest retired instructions and branches in some cycles, all in one ring; counters may overflow.

    branches: all, taken or not; taken: near branches taken; mispredicted: of all. The outcome is Overflow with the
    GLOBAL_STATUS bits that became 1 and want a PMI, or Done.
    """

    instructions: int = 0
    branches: int = 0
    cycles: int = 0
    cpl: int = 3
    taken: int = 0
    mispredicted: int = 0


class ReadSmram(NamedTuple):
    """The SMI handler reads the 8 bytes at SMRAM FF10H, where KVM keeps IA32_LBR_CTL (P13)."""


class VmEntry(NamedTuple):
    """KVM enters the guest: interception is decided, the VMCS is loaded. VmFail when the processor refuses."""


class VmExit(NamedTuple):
    """The processor leaves the guest: the VMCS takes the guest's values, the host gets its own back."""


class NestedEntry(NamedTuple):
    """L1 executes VMLAUNCH with these vmcs12 fields; VmFail when they are refused.

    entry_controls, exit_controls: of vmcs12. lbr_ctl, debugctl: the guest-state fields. passthrough: 1 when L1's MSR
    bitmap lets L2 at every LBR register.
    """

    entry_controls: int = 0
    exit_controls: int = 0
    lbr_ctl: int = 0
    debugctl: int = 0
    passthrough: int = 0


class NestedExit(NamedTuple):
    """L2 exits to L1; the outcome is Fields, what vmcs12 then holds."""


# KVM ----------------------------------------------------------------------------------------------------------------


class InjectDebug(NamedTuple):
    """KVM injects #DB: single-step, ICEBP, a data breakpoint. A #DB that hardware delivers is DebugException."""


class InjectVector(NamedTuple):
    """KVM injects another exception or an interrupt."""

    vector: int


class InjectNmi(NamedTuple):
    """KVM injects an NMI; `stale` is the vector that the queue's exception slot still holds from before."""

    stale: int = 0


class DeliverPmi(NamedTuple):
    """A guest counter overflowed and KVM delivers the PMI; Count does the same by itself where it overflows."""


# Userspace ----------------------------------------------------------------------------------------------------------


class HostRead(NamedTuple):
    """KVM_GET_MSRS of one register; Refused when the ioctl does not return it."""

    msr: int


class HostWrite(NamedTuple):
    """KVM_SET_MSRS of one register; Refused when the ioctl does not take it."""

    msr: int
    value: int


class SetCpuid(NamedTuple):
    """KVM_SET_CPUID2; Refused for -EINVAL."""

    cpuid: Cpuid


class SupportedCpuid(NamedTuple):
    """KVM_GET_SUPPORTED_CPUID; the outcome is Leaves."""


class SaveList(NamedTuple):
    """KVM_GET_MSR_INDEX_LIST; the outcome is Indices: what a VMM saves and restores."""


class FeatureMsr(NamedTuple):
    """KVM_GET_MSRS of a feature MSR on the system's descriptor: PERF_CAPABILITIES as KVM can offer it."""

    msr: int


class DumpVmcs(NamedTuple):
    """dump_vmcs(); the outcome is Text, one line a field."""


class Close(NamedTuple):
    """The vCPU is freed."""


# The scheduler and perf ---------------------------------------------------------------------------------------------


class SchedOut(NamedTuple):
    """The vCPU's thread leaves its processor. `state.lbr` then goes to whoever comes in."""


class SchedIn(NamedTuple):
    """The vCPU's thread comes in, on the processor whose registers `state.lbr` now holds."""


class VcpuPut(NamedTuple):
    """KVM's vcpu_put() without a change of thread: the thread that runs this vCPU turns to another of its vCPUs."""


class VcpuLoad(NamedTuple):
    """KVM's vcpu_load() on the same thread and processor, with the registers that `state.lbr` now holds."""


class HostControl(NamedTuple):
    """Perf writes the processor's IA32_LBR_CTL for a session of the host's, 0 to end it."""

    ctl: int


class HostBranch(NamedTuple):
    """The host's own code takes a branch: recorded if the processor's IA32_LBR_CTL says so."""

    branch: lbr.Branch


class Grant(NamedTuple):
    """Perf lets this vCPU have the LBRs: at once if it has asked, else when it asks."""


class Release(NamedTuple):
    """Perf takes the LBRs for the host; the vCPU gets them back with Grant."""


class Deny(NamedTuple):
    """Perf answers the next request with an error (-EBUSY, -ENOMEM)."""


# What comes of it, beside `arch.outcomes` ---------------------------------------------------------------------------


class Refused(NamedTuple):
    """An ioctl failed; nothing changed."""

    reason: str


class Registers(NamedTuple):
    """CPUID came to these."""

    eax: int
    ebx: int
    ecx: int
    edx: int


class Leaves(NamedTuple):
    """What KVM_GET_SUPPORTED_CPUID offers."""

    cpuid: Cpuid


class Indices(NamedTuple):
    """MSR indices, in KVM's order."""

    msrs: tuple[int, ...]


class Fields(NamedTuple):
    """The vmcs12 fields after an exit from L2."""

    lbr_ctl: int
    debugctl: int


class Overflow(NamedTuple):
    """GLOBAL_STATUS bits of counters that overflowed and asked for a PMI; it was delivered, and froze what it may."""

    status: int


class VmFail(NamedTuple):
    """VM entry failed: `error` 7 (invalid control fields) or exit reason 33 (invalid guest state)."""

    error: int


class Reflected(NamedTuple):
    """L2's instruction exits to L1: its MSR bitmap says so."""


class Text(NamedTuple):
    """Words for a person."""

    text: str


INVALID_CONTROLS = 7
INVALID_GUEST_STATE = 33

Action: TypeAlias = (
    lbr.Rdmsr | lbr.Wrmsr | lbr.Xsaves | lbr.Xrstors | lbr.Branch | lbr.DebugException | lbr.Smi | lbr.Rsm | lbr.Init
    | lbr.WarmReset | lbr.ColdReset | lbr.DeepCState
    | CpuidInstruction | Rdpmc | Xsetbv | Count | ReadSmram | VmEntry | VmExit | NestedEntry | NestedExit
    | InjectDebug | InjectVector | InjectNmi | DeliverPmi
    | HostRead | HostWrite | SetCpuid | SupportedCpuid | SaveList | FeatureMsr | DumpVmcs | Close
    | SchedOut | SchedIn | VcpuPut | VcpuLoad | HostControl | HostBranch | Grant | Release | Deny
)  # fmt: skip
Outcome: TypeAlias = (
    outcomes.Outcome | Refused | Registers | Leaves | Indices | Fields | Overflow | VmFail | Reflected | Text
)  # fmt: skip
