"""What a target answers, and what a case expects of it: values, and predicates that can say themselves in words.

`run` compares the two; `cases` are written with the predicates. A fault of the guest and a failed ioctl are answers.
The answers to guest instructions are `arch.outcomes`; those to ioctls are added here.
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
    Done | Value | Image | GeneralProtection | UndefinedOpcode | Failed | VmFail | Reflected | Registers | Indices
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
        case Registers():
            return " ".join(f"{register:08x}" for register in answer)
        case Image(content):
            return f"{len(content)} bytes"
        case Indices(msrs):
            return f"{len(msrs)} registers"


# Expectations --------------------------------------------------------------------------------------------------------


class Is(NamedTuple):
    """The answer is this one."""

    answer: Answer


class OneOf(NamedTuple):
    """The answer is one of these."""

    answers: tuple[Answer, ...]


class Not(NamedTuple):
    """The answer is anything but this; for a secret that must not show."""

    answer: Answer


class Bits(NamedTuple):
    """In the answer (a Value, or register `register` of a leaf) the bits of `mask` have the value `value`."""

    mask: int
    value: int
    register: int = 0


class Holds(NamedTuple):
    """The list of registers has all of these and none of those."""

    present: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()


class Stored(NamedTuple):
    """The image holds these (offset, 64-bit value) pairs."""

    words: tuple[tuple[int, int], ...]


class Lacks(NamedTuple):
    """The image holds this 64-bit value nowhere, at whole words; for a secret that must not be written."""

    value: int


class LikeStep(NamedTuple):
    """The answer is that of an earlier step, counted from 0."""

    step: int


class LargerThan(NamedTuple):
    """Register `register` of the leaf is `by` or more above that of an earlier step, counted from 0."""

    step: int
    register: int
    by: int


class Savable(NamedTuple):
    """The write was refused, or the register is in the save list that an earlier step answered."""

    msr: int
    step: int


Expectation: TypeAlias = Is | OneOf | Not | Bits | Holds | Stored | Lacks | LikeStep | LargerThan | Savable


def meets(expectation: Expectation, answer: Answer, earlier: tuple[Answer, ...]) -> bool:
    """Say whether an answer meets an expectation, given the answers of the steps before it."""
    match expectation:
        case Is(wanted):
            return answer == wanted and type(answer) is type(wanted)
        case OneOf(wanted):
            return any(meets(Is(one), answer, earlier) for one in wanted)
        case Not(unwanted):
            return not meets(Is(unwanted), answer, earlier)
        case Bits(mask, value, register):
            return (found := _register(answer, register)) is not None and found & mask == value
        case Holds(present, absent):
            return (
                isinstance(answer, Indices) and set(present) <= set(answer.msrs) and not set(absent) & set(answer.msrs)
            )
        case Stored(words):
            return isinstance(answer, Image) and all(
                int.from_bytes(answer.content[at : at + 8], "little") == value for at, value in words
            )
        case Lacks(value):
            return isinstance(answer, Image) and all(
                answer.content[at : at + 8] != value.to_bytes(8, "little") for at in range(0, len(answer.content), 8)
            )
        case LikeStep(step):
            return meets(Is(earlier[step]), answer, earlier)
        case LargerThan(step, register, by):
            now, before = _register(answer, register), _register(earlier[step], register)
            return now is not None and before is not None and now >= before + by
        case Savable(msr, step):
            listed = earlier[step]
            return not isinstance(answer, Done) or (isinstance(listed, Indices) and msr in listed.msrs)


_NAMES = ("EAX", "EBX", "ECX", "EDX")


def wanted(expectation: Expectation) -> str:
    """Return an expectation in words."""
    match expectation:
        case Is(answer):
            return spelled(answer)
        case OneOf(answers):
            return " or ".join(map(spelled, answers))
        case Not(answer):
            return f"anything but {spelled(answer)}"
        case Bits(mask, value, register):
            return f"{_NAMES[register]} & {mask:#x} = {value:#x}"
        case Holds(present, absent):
            named = [f"{msr:#x}" for msr in present] + [f"no {msr:#x}" for msr in absent]
            return f"a list with {', '.join(named)}"
        case Stored(words):
            return ", ".join(f"[{at}] = {value:#x}" for at, value in words)
        case Lacks(value):
            return f"no {value:#x} anywhere"
        case LikeStep(step):
            return f"as step {step + 1} said"
        case LargerThan(step, _, by):
            return f"at least {by} more than step {step + 1} said"
        case Savable(msr, step):
            return f"refused, or {msr:#x} in the list of step {step + 1}"


def _register(answer: Answer, register: int) -> int | None:
    match answer:
        case Value(value):
            return value
        case Registers():
            return answer[register]
        case _:
            return None
