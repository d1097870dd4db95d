"""Expectations: each kind on an answer that meets it and on one that does not."""

from __future__ import annotations

import pytest

from archlbr.arch.outcomes import DONE, GP, UD, Image, Value
from archlbr.conformance.answers import FAILED, Answer, Failed, Indices, Reflected, Registers, Stopped, VmFail, spelled
from archlbr.conformance.expectations import (
    Agrees,
    Bits,
    Expectation,
    Holds,
    Is,
    Lacks,
    LargerThan,
    LikeStep,
    ListedIf,
    Not,
    OneOf,
    Savable,
    Stored,
    meets,
    wanted,
)

LEAF = Registers(1, 2, 3, 4)
LIST = Indices((0x14CE, 0x14CF))
IMAGE = Image((7).to_bytes(8, "little") + (9).to_bytes(8, "little"))


@pytest.mark.parametrize(
    ("expectation", "answer", "earlier", "held"),
    [
        (Is(Value(1)), Value(1), (), True),
        (Is(Value(1)), Value(2), (), False),
        (Is(DONE), FAILED, (), False),  # two tuples without fields
        (Is(GP), VmFail(13), (), False),  # two tuples of one number
        (Is(Value(6)), UD, (), False),
        (OneOf((DONE, GP)), GP, (), True),
        (OneOf((DONE, GP)), UD, (), False),
        (Not(Value(5)), Value(6), (), True),
        (Not(Value(5)), Value(5), (), False),
        (Bits(0xF0, 0x10), Value(0x1F), (), True),
        (Bits(0xF0, 0x10), Value(0x2F), (), False),
        (Bits(3, 3, 2), LEAF, (), True),
        (Bits(3, 3, 1), LEAF, (), False),
        (Bits(0, 0), GP, (), False),  # a fault has no bits
        (Holds((0x14CE,), (0x1500,)), LIST, (), True),
        (Holds((0x1500,)), LIST, (), False),
        (Holds((), (0x14CF,)), LIST, (), False),
        (Holds(), FAILED, (), False),
        (Stored(((8, 9),)), IMAGE, (), True),
        (Stored(((0, 9),)), IMAGE, (), False),
        (Stored(()), GP, (), False),
        (Lacks(8), IMAGE, (), True),
        (Lacks(9), IMAGE, (), False),
        (LikeStep(1), Value(4), (GP, Value(4)), True),
        (LikeStep(0), Value(4), (GP, Value(4)), False),
        (LargerThan(0, 1, 8), Registers(0, 10, 0, 0), (LEAF,), True),
        (LargerThan(0, 1, 9), Registers(0, 10, 0, 0), (LEAF,), False),
        (LargerThan(0, 1, 9), GP, (LEAF,), False),
        (Agrees(2, 3, 0, 3, 4), LEAF, (LEAF,), True),  # ECX = 3, EDX = 4
        (Agrees(2, 4, 0, 3, 3), LEAF, (LEAF,), True),  # neither
        (Agrees(2, 3, 0, 3, 3), LEAF, (LEAF,), False),
        (Agrees(2, 4, 0, 3, 4), LEAF, (LEAF,), False),
        (Agrees(2, 4, 0, 3, 3), GP, (LEAF,), False),
        (ListedIf(0x14CE, 0, 3, 4), LIST, (LEAF,), True),
        (ListedIf(0x14CE, 0, 3, 3), LIST, (LEAF,), False),
        (ListedIf(0x1500, 0, 3, 3), LIST, (LEAF,), True),
        (ListedIf(0x1500, 0, 3, 4), LIST, (LEAF,), False),
        (ListedIf(0x1500, 0, 3, 3), FAILED, (LEAF,), False),
        (Savable(0xDA0, 0), DONE, (LIST,), False),
        (Savable(0xDA0, 0), GP, (LIST,), True),
        (Savable(0xDA0, 0), FAILED, (FAILED,), True),
        (Savable(0x14CE, 0), DONE, (LIST,), True),
        (Savable(0x14CE, 0), DONE, (FAILED,), False),
    ],
)
def test_an_answer_meets_an_expectation_or_not(
    expectation: Expectation, answer: Answer, earlier: tuple[Answer, ...], held: bool
) -> None:
    assert meets(expectation, answer, earlier) is held


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (DONE, "done"),
        (Value(0x14CE), "0x14ce"),
        (GP, "#GP"),
        (UD, "#UD"),
        (Failed(), "refused"),
        (VmFail(7), "VM-fail 7"),
        (Reflected(), "an exit to L1"),
        (Stopped(17), "an exit to userspace, reason 17"),
        (LEAF, "00000001 00000002 00000003 00000004"),
        (IMAGE, "16 bytes"),
        (LIST, "2 registers"),
    ],
)
def test_an_answer_in_words(answer: Answer, words: str) -> None:
    assert spelled(answer) == words


@pytest.mark.parametrize(
    ("expectation", "words"),
    [
        (Is(GP), "#GP"),
        (OneOf((DONE, GP)), "done or #GP"),
        (Not(Value(1)), "anything but 0x1"),
        (Bits(0xF, 1, 2), "ECX & 0xf = 0x1"),
        (Holds((1,), (2,)), "a list with 0x1, no 0x2"),
        (Stored(((8, 9),)), "[8] = 0x9"),
        (Lacks(9), "no 0x9 anywhere"),
        (LikeStep(0), "as step 1 said"),
        (LargerThan(1, 0, 8), "at least 8 more than step 2 said"),
        (Agrees(2, 3, 0, 3, 4), "ECX & 0x3 as EDX & 0x4 of step 1: both 0 or neither"),
        (ListedIf(0x14CE, 0, 3, 4), "0x14ce listed just if EDX & 0x4 of step 1"),
        (Savable(1, 0), "refused, or 0x1 in the list of step 1"),
    ],
)
def test_an_expectation_in_words(expectation: Expectation, words: str) -> None:
    assert wanted(expectation) == words
