"""A case as a value: a setup, questions with what each must be answered, the requirement, who says so.

The tables of `cases` are made of these, `run` judges answers by them. A known difference is a row too: which target,
which step, what it answers instead, why. Authority: each case carries its own citation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from archlbr.conformance.expectations import Expectation
    from archlbr.conformance.questions import Question, Setup


class Step(NamedTuple):
    """One question and its expected answer."""

    question: Question
    expected: Expectation


ANY_STEP = -2


class Known(NamedTuple):
    """A difference by design: where (a target's kind or variant), what it answers at which step, and why.

    step counts the case's steps from 0; -1 is the setup's own KVM_SET_CPUID2, ANY_STEP each step.
    """

    where: str
    step: int
    instead: Expectation
    reason: str


class Case(NamedTuple):
    """One row of the conformance table; `row` is its number in reference kvm-series.md D, 0 where it has none."""

    name: str
    requirement: str
    cite: str
    setup: Setup
    steps: tuple[Step, ...]
    row: int = 0
    known: tuple[Known, ...] = ()
