"""What can be asked of a target, as closed values: setups, questions of the VMM and of the guest, events, looks.

The tables in `cases` are made of these; `target.ask` sends each to one call of the protocol; recordings hold them.
Authority: Documentation/virt/kvm/api.rst for the VMM's questions; reference kvm-series.md D for the rest.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, TypeAlias

from archlbr.arch.cpuid import GOLDEN_COVE, LBR_COMPONENT, Leaf1C

# What the host's own session leaves in the LBRs when Event.HOST_BRANCH happens, and the CTL it runs with: LBREn, OS,
# and every kind of branch. Nothing of these may be seen by a guest.
HOST_CTL = 0x7F0003
HOST_FROM = 0xFFFFFFFF81000010
HOST_TO = 0xFFFFFFFF81000020


class Host(NamedTuple):
    """The processor under the hypervisor, and how its KVM is loaded.

    vendor: "intel" or "amd". arch_lbr: CPUID.7.0:EDX[19]. leaf: CPUID.1CH. entry_control, exit_control: VMX "load" and
    "clear IA32_LBR_CTL". pmu_version: CPUID.0AH:EAX[7:0]. pmu: KVM's parameter enable_pmu.
    """

    vendor: str = "intel"
    arch_lbr: int = 1
    leaf: Leaf1C = GOLDEN_COVE
    entry_control: int = 1
    exit_control: int = 1
    pmu_version: int = 5
    pmu: int = 1


class Guest(NamedTuple):
    """What the VMM gives to KVM_SET_CPUID2 and, for lbr_format, to IA32_PERF_CAPABILITIES.

    arch_lbr: CPUID.7.0:EDX[19]. leaf: CPUID.1CH, None when the VMM gives no such leaf. xsaves: CPUID.0DH.1:EAX[3].
    component: CPUID.0DH.1:ECX[15]. component_size: CPUID.0DH.15:EAX, 0 for no such leaf. pmu_version:
    CPUID.0AH:EAX[7:0]. long_mode: CPUID.80000001H:EDX[29]. lbr_format: IA32_PERF_CAPABILITIES[5:0], where the host
    has it. model: CPUID.1:EAX, 0 for the host's. vmx: nested VMX is offered. lbr_controls: to L1 the two LBR controls
    are offered too.
    """

    arch_lbr: int = 1
    leaf: Leaf1C | None = GOLDEN_COVE._replace(eax=8)
    xsaves: int = 1
    component: int = 1
    component_size: int = LBR_COMPONENT.size
    pmu_version: int = 2
    long_mode: int = 1
    lbr_format: int = 0x3F
    model: int = 0
    vmx: int = 0
    lbr_controls: int = 0


class Setup(NamedTuple):
    """Where a case starts: a host, and a VM of one vCPU, or two on one thread, after KVM_SET_CPUID2.

    host None: whatever the host is; the answer does not depend on it.
    """

    host: Host | None
    guest: Guest
    vcpus: int = 1


# The VMM's questions -------------------------------------------------------------------------------------------------


class Offered(NamedTuple):
    """KVM_GET_SUPPORTED_CPUID: the registers of a leaf."""

    leaf: int
    subleaf: int = 0


class SaveList(NamedTuple):
    """KVM_GET_MSR_INDEX_LIST."""


class FeatureMsr(NamedTuple):
    """KVM_GET_MSRS on the system's descriptor."""

    msr: int


class SetCpuid(NamedTuple):
    """KVM_SET_CPUID2."""

    guest: Guest


class GetMsr(NamedTuple):
    """KVM_GET_MSRS of one register; `other_thread`: from a thread that is not the vCPU's."""

    msr: int
    other_thread: int = 0


class SetMsr(NamedTuple):
    """KVM_SET_MSRS of one register."""

    msr: int
    value: int
    other_thread: int = 0


class NewVm(NamedTuple):
    """Start over in a new VM, on another host if the setup says so: what a migration's target is."""

    setup: Setup


# The guest's instructions --------------------------------------------------------------------------------------------


class Rdmsr(NamedTuple):
    """RDMSR in ring 0."""

    msr: int


class Wrmsr(NamedTuple):
    """WRMSR in ring 0."""

    msr: int
    value: int


class Cpuid(NamedTuple):
    """CPUID."""

    leaf: int
    subleaf: int = 0


class Xsaves(NamedTuple):
    """XSAVES of component 15 into the guest's area, which starts as zeros."""


class Xrstors(NamedTuple):
    """XRSTORS of component 15 from the guest's area, after these (offset, 64-bit value) pairs were stored there."""

    stores: tuple[tuple[int, int], ...] = ()


Instruction: TypeAlias = Rdmsr | Wrmsr | Cpuid | Xsaves | Xrstors


class Branch(NamedTuple):
    """A taken branch of the guest; kind: a BranchKind; cpl: the ring it is taken in."""

    source: int
    target: int
    kind: int
    cpl: int = 0


# What happens --------------------------------------------------------------------------------------------------------


class Event(StrEnum):
    """What happens to the vCPU or to its host, in the words of the SDM and of KVM."""

    SMI = "SMI"
    RSM = "RSM"
    INIT = "INIT"
    COLD_RESET = "cold reset"
    WARM_RESET = "warm reset"
    INJECT_DB = "inject #DB"
    INJECT_BP = "inject #BP"
    INJECT_NMI = "inject NMI"
    OVERFLOW = "counter overflow"
    ENTRY = "VM entry"
    EXIT = "VM exit"
    L2_EXIT = "L2 exits to L1"
    SCHED_OUT = "scheduled out"
    SCHED_IN = "scheduled in"
    OTHER_CPU = "moves to another CPU"
    OTHER_VCPU = "the other vCPU runs"
    HOST_PINNED = "a CPU-pinned host event arrives"
    HOST_PINNED_GONE = "the CPU-pinned host event ends"
    HOST_BRANCH = "the host branches"
    HOST_FREEZES_SMM = "the host sets DEBUGCTL.FREEZE_WHILE_SMM"
    EVENT_FAILS = "the vLBR event cannot be created"
    MIGRATE = "migrates to a new VM by snapshot and restore"
    FREE = "the vCPU is freed"


class Happen(NamedTuple):
    """Let an event happen."""

    event: Event


class EnterL2(NamedTuple):
    """L1 executes VMLAUNCH with these vmcs12 fields; from then on the guest's instructions are L2's.

    passthrough: L1's MSR bitmap lets L2 at every LBR register.
    """

    entry_controls: int = 0
    exit_controls: int = 0
    lbr_ctl: int = 0
    debugctl: int = 0
    passthrough: int = 0


class Place(StrEnum):
    """What can be looked at from outside the guest."""

    HARDWARE_CTL = "IA32_LBR_CTL in hardware"
    HARDWARE_DEBUGCTL = "IA32_DEBUGCTL in hardware"
    HARDWARE_FROM = "LBR_FROM in hardware"
    VMCS_CTL = "GUEST_IA32_LBR_CTL"
    ENTRY_CONTROL = "entry control load IA32_LBR_CTL"
    EXIT_CONTROL = "exit control clear IA32_LBR_CTL"
    INTERCEPTED = "MSR bitmap"
    EVENT = "vLBR event"
    DUMP = "dump_vmcs prints LBR_CTL"
    SMRAM = "SMRAM FF10H"
    USER_XSAVE = "the area of KVM_GET_XSAVE2"
    VMCS12_CTL = "vmcs12 guest IA32_LBR_CTL"
    VMCS12_DEBUGCTL = "vmcs12 guest DEBUGCTL"


class Look(NamedTuple):
    """Look at a place; `at` is the MSR index or the entry where the place has many."""

    place: Place
    at: int = 0


Question: TypeAlias = (
    Offered
    | SaveList
    | FeatureMsr
    | SetCpuid
    | GetMsr
    | SetMsr
    | NewVm
    | Instruction
    | Branch
    | Happen
    | EnterL2
    | Look
)


def asked_as(question: Question) -> str:
    """Return a question in words."""
    match question:
        case Happen(event):
            return str(event)
        case Look(place, at):
            return f"{place} {at:#x}" if at else str(place)
        case NewVm() | SetCpuid() | Xsaves() | Xrstors() | SaveList():
            return type(question).__name__
        case Branch(source, target, _, cpl):
            return f"branch {source:#x} to {target:#x} in ring {cpl}"
        case _:
            return f"{type(question).__name__} {' '.join(f'{word:#x}' for word in question)}"
