"""The branch predictor: says which taken branches the core had mispredicted, so that INFO[63] has a source.

A stand-in for the hardware's, deterministic and small (ours, docs/decisions/011): two-bit counters for conditional
branches, the last target for indirect ones, a return stack for RET; relative jumps and calls never miss. `blocks` feeds
it each terminator; the LBR recorder takes its verdict. `Predictor` and
`step` are the pure form, the two `predict_` functions the compiled one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numba import uint64

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.native import native_inline

if TYPE_CHECKING:
    from archlbr.cpu.address import Word
    from archlbr.cpu.words import Words

_TARGETS_AT: Final = at.PREDICTOR + at.COUNTERS
_RETURNS_AT: Final = _TARGETS_AT + at.TARGETS
TOP: Final = _RETURNS_AT + at.RETURNS  # where the return stack stands

_COND = int(BranchKind.COND)
_IND_JMP = int(BranchKind.IND_JMP)
_REL_CALL = int(BranchKind.REL_CALL)
_IND_CALL = int(BranchKind.IND_CALL)
_RET = int(BranchKind.RET)
_MASK64: Final = (1 << 64) - 1
# 2^64 / golden ratio: spreads neighbouring addresses over the table (Knuth, TAOCP vol. 3, 6.4).
_MIX: Final = 0x9E3779B97F4A7C15


class Predictor(NamedTuple):
    """The predictor's state: counters 0..3 by hashed address, last targets by hashed address, return addresses."""

    counters: bytes = bytes(at.COUNTERS)
    targets: tuple[int, ...] = (0,) * at.TARGETS
    returns: tuple[int, ...] = (0,) * at.RETURNS
    top: int = 0


def _index(address: int, entries: int) -> int:
    return ((address * _MIX & _MASK64) >> 40) % entries


def step(state: Predictor, kind: int, source: int, target: int, successor: int, taken: int) -> tuple[Predictor, int]:
    """Resolve one branch: return the next state and 1 when the prediction was wrong.

    `successor` is the address after the branch instruction; a call pushes it.
    """
    counters, targets, returns, top = state
    missed = 0
    if kind == _COND:
        index = _index(source, at.COUNTERS)
        count = counters[index]
        missed = int((count >= 2) != bool(taken))
        count = min(3, count + 1) if taken else max(0, count - 1)
        counters = counters[:index] + bytes((count,)) + counters[index + 1 :]
    elif kind in (_IND_JMP, _IND_CALL):
        index = _index(source, at.TARGETS)
        missed = int(targets[index] != target)
        targets = (*targets[:index], target, *targets[index + 1 :])
    elif kind == _RET:
        top = (top - 1) % at.RETURNS
        missed = int(returns[top] != target)
    if kind in (_REL_CALL, _IND_CALL):
        returns = (*returns[:top], successor, *returns[top + 1 :])
        top = (top + 1) % at.RETURNS
    return Predictor(counters, targets, returns, top), missed


# What a counter becomes, two bits each: 0 not taken, 0 taken, 1 not taken, and so on.
_NEXT_COUNTS: Final = sum(
    max(0, min(3, count + (1 if taken else -1))) << (4 * count + 2 * taken) for count in range(4) for taken in (0, 1)
)


@native_inline
def spread(address: Word) -> Word:
    """Return the 24 bits that a branch's address is known by in the tables; kept with a decoded block."""
    return (address * uint64(_MIX)) >> uint64(40)


def is_possible(words: Words) -> bool:
    """Return whether the shared words hold a predictor: its counters and its return stack's top are looked up by."""
    counters = words[at.PREDICTOR : at.PREDICTOR + at.COUNTERS]
    return bool((counters <= 3).all() and words[TOP] < at.RETURNS)


@native_inline
def predict_direction(words: Words, place: Word, taken: Word) -> Word:
    """Resolve a conditional branch in the shared words, `place` being `spread` of its address; without a branch."""
    at_counter = uint64(at.PREDICTOR) + (place & uint64(at.COUNTERS - 1))
    count = words[at_counter]
    words[at_counter] = uint64(_NEXT_COUNTS) >> (count << uint64(2) | taken << uint64(1)) & uint64(3)
    return count >> uint64(1) ^ taken


@native_inline
def predict_target(words: Words, kind: Word, place: Word, target: Word, successor: Word) -> Word:
    """Resolve any other branch in the shared words."""
    missed = uint64(0)
    if kind == _RET:
        top = (words[TOP] - uint64(1)) & uint64(at.RETURNS - 1)
        words[TOP] = top
        return uint64(words[uint64(_RETURNS_AT) + top] != target)
    if kind == _IND_JMP or kind == _IND_CALL:
        slot = uint64(_TARGETS_AT) + (place & uint64(at.TARGETS - 1))
        missed = uint64(words[slot] != target)
        words[slot] = target
    if kind == _REL_CALL or kind == _IND_CALL:
        top = words[TOP]
        words[uint64(_RETURNS_AT) + top] = successor
        words[TOP] = (top + uint64(1)) & uint64(at.RETURNS - 1)
    return missed


def state_of(words: Words) -> Predictor:
    """Return the predictor's pure state out of the shared words."""
    counters = words[at.PREDICTOR : at.PREDICTOR + at.COUNTERS].astype(np.uint8)
    targets = tuple(int(word) for word in words[_TARGETS_AT : _TARGETS_AT + at.TARGETS])
    returns = tuple(int(word) for word in words[_RETURNS_AT : _RETURNS_AT + at.RETURNS])
    return Predictor(counters.tobytes(), targets, returns, int(words[TOP]))
