"""What a case expects of an answer: predicates that can say themselves in words.

`cases` are written with them, `run` holds answers against them. Some look back at the answers of earlier steps.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from archlbr.arch.outcomes import Done, Image, Value
from archlbr.conformance.answers import Answer, Indices, Registers, spelled


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


class Agrees(NamedTuple):
    """Some bit of `mask` in register `register` is 1 just when one of `bits` in an earlier step's `other` is."""

    register: int
    mask: int
    step: int
    other: int
    bits: int


class ListedIf(NamedTuple):
    """The list has this register just when in an earlier step's register `other` some bit of `bits` is 1."""

    msr: int
    step: int
    other: int
    bits: int


class Savable(NamedTuple):
    """The write was refused, or the register is in the save list that an earlier step answered."""

    msr: int
    step: int


Expectation: TypeAlias = (
    Is | OneOf | Not | Bits | Holds | Stored | Lacks | LikeStep | LargerThan | Agrees | ListedIf | Savable
)


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
        case Agrees(register, mask, step, other, bits):
            now, before = _register(answer, register), _register(earlier[step], other)
            return now is not None and before is not None and bool(now & mask) == bool(before & bits)
        case ListedIf(msr, step, other, bits):
            before = _register(earlier[step], other)
            return isinstance(answer, Indices) and before is not None and (msr in answer.msrs) == bool(before & bits)
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
        case Agrees(register, mask, step, other, bits):
            return (
                f"{_NAMES[register]} & {mask:#x} as {_NAMES[other]} & {bits:#x} of step {step + 1}: both 0 or neither"
            )
        case ListedIf(msr, step, other, bits):
            return f"{msr:#x} listed just if {_NAMES[other]} & {bits:#x} of step {step + 1}"
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
