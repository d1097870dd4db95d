"""What a target answers, as closed values: a fault of the guest and a failed ioctl are answers too.

Every target gives them, `expectations` are about them, recordings hold them. The answers to guest instructions are
`arch.outcomes`; those to ioctls are added here.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from archlbr.arch.outcomes import Done, GeneralProtection, Image, UndefinedOpcode, Value


class Failed(NamedTuple):
    """The ioctl failed, or KVM_GET_MSRS and KVM_SET_MSRS processed no register."""


class VmFail(NamedTuple):
    """VMLAUNCH failed: 7 for invalid control fields, 33 for invalid guest state (SDM vol. 3C, 31.4 and 27.8)."""

    error: int


class Reflected(NamedTuple):
    """L2's instruction exited to L1, as L1 asked for."""


class Stopped(NamedTuple):
    """The vCPU left for userspace instead, with this exit reason of struct kvm_run; 17 is KVM's internal error."""

    reason: int


class Registers(NamedTuple):
    """The four registers of a CPUID leaf."""

    eax: int
    ebx: int
    ecx: int
    edx: int


class Indices(NamedTuple):
    """MSR indices, ascending."""

    msrs: tuple[int, ...]


Answer: TypeAlias = (
    Done
    | Value
    | Image
    | GeneralProtection
    | UndefinedOpcode
    | Failed
    | VmFail
    | Reflected
    | Stopped
    | Registers
    | Indices
)

FAILED = Failed()


def spelled(answer: Answer) -> str:
    """Return an answer in words."""
    match answer:
        case Done():
            return "done"
        case Value(value):
            return f"{value:#x}"
        case GeneralProtection():
            return "#GP"
        case UndefinedOpcode():
            return "#UD"
        case Failed():
            return "refused"
        case VmFail(error):
            return f"VM-fail {error}"
        case Reflected():
            return "an exit to L1"
        case Stopped(reason):
            return f"an exit to userspace, reason {reason}"
        case Registers():
            return " ".join(f"{register:08x}" for register in answer)
        case Image(content):
            return f"{len(content)} bytes"
        case Indices(msrs):
            return f"{len(msrs)} registers"
