"""The branch predictor: its rules on sequences worked out by hand, and its compiled form against the pure one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from archlbr.arch.branches import BranchKind as Kind
from archlbr.cpu import words as at
from archlbr.cpu.predictor import Predictor, state_of, step
from tests.cpu.driver import U, resolve

WORDS = np.zeros(at.TABLE, U)

# Few addresses, so that branches meet again; the second dozen is far apart, so that the tables' slots collide.
PLACES = [0x401000 + 3 * index for index in range(12)] + [0x7F00_0000_1000 + 0x1_0000_0001 * i for i in range(2000)]
BRANCH = st.tuples(
    st.sampled_from([Kind.COND, Kind.REL_JMP, Kind.IND_JMP, Kind.REL_CALL, Kind.IND_CALL, Kind.RET]),
    st.one_of(st.integers(0, 11), st.integers(12, len(PLACES) - 1)).map(PLACES.__getitem__),
    st.sampled_from([0x401100, 0x401200, 0x7FFF_FFFF_F000]),
    st.sampled_from([0x401005, 0x401100, 0x7FFF_FFFF_F000]),
    st.integers(0, 1),
)


def verdicts(branches: list[tuple[int, int, int, int, int]]) -> tuple[list[int], Predictor]:
    state, seen = Predictor(), []
    for kind, source, target, successor, taken in branches:
        state, missed = step(state, kind, source, target, successor, taken)
        seen.append(missed)
    return seen, state


@settings(max_examples=150, deadline=None)
@given(st.lists(BRANCH, max_size=120))
@example([(Kind.COND, place, 0x401100, 0x401200, 1) for place in PLACES])
@example([(Kind.IND_JMP, place, 0x401100 + index, 0x401200, 1) for index, place in enumerate(PLACES)])
def test_the_compiled_predictor_is_the_pure_one(branches: list[tuple[int, int, int, int, int]]) -> None:
    WORDS[:] = 0
    out = np.zeros(len(branches), U)
    columns = np.array(branches, U).reshape(-1, 5).T.copy()
    resolve(WORDS, *columns, out)
    expected, state = verdicts(branches)
    assert out.tolist() == expected
    assert state_of(WORDS) == state


def conditional(directions: str) -> list[int]:
    return verdicts([(Kind.COND, 0x401000, 0x401100, 0x401002, int(way == "T")) for way in directions])[0]


@pytest.mark.parametrize(
    ("directions", "missed"),
    [
        ("N", "0"),
        ("TTTT", "1100"),  # two bits: two taken ones turn it round
        ("TTTTNNN", "1100110"),  # and two the other way turn it back
        ("TTTNTT", "110100"),  # one exception does not
        ("TNTN", "1010"),
        ("TTNTNT", "111111"),  # between 1 and 2 every one is wrong
    ],
)
def test_a_conditional_branch_has_a_two_bit_counter(directions: str, missed: str) -> None:
    assert conditional(directions) == [int(digit) for digit in missed]


@pytest.mark.parametrize("kind", [Kind.IND_JMP, Kind.IND_CALL])
def test_an_indirect_branch_goes_where_it_went_last(kind: Kind) -> None:
    targets = [0x500000, 0x500000, 0x600000, 0x500000, 0x500000]
    assert verdicts([(kind, 0x401000, target, 0x401002, 1) for target in targets])[0] == [1, 0, 1, 1, 0]


@pytest.mark.parametrize("kind", [Kind.REL_CALL, Kind.IND_CALL])
@pytest.mark.parametrize(("depth", "lost"), [(1, 0), (16, 0), (17, 1), (20, 4)])
def test_the_return_stack_holds_sixteen_calls(kind: Kind, depth: int, lost: int) -> None:
    calls = [(kind, 0x401000 + 16 * level, 0x500000, 0x401005 + 16 * level, 1) for level in range(depth)]
    returns = [(Kind.RET, 0x500004, successor, 0x500005, 1) for _, _, _, successor, _ in reversed(calls)]
    seen = verdicts([*calls, *returns])[0][depth:]
    assert seen == [0] * (depth - lost) + [1] * lost


def test_a_return_elsewhere_is_missed() -> None:
    call = (Kind.REL_CALL, 0x401000, 0x500000, 0x401005, 1)
    assert verdicts([call, (Kind.RET, 0x500004, 0x401006, 0x500005, 1)])[0] == [0, 1]


@pytest.mark.parametrize("kind", [Kind.REL_JMP, Kind.REL_CALL])
def test_a_direct_branch_is_never_missed(kind: Kind) -> None:
    assert verdicts([(kind, 0x401000, 0x500000 + step, 0x401005, 1) for step in range(3)])[0] == [0, 0, 0]
