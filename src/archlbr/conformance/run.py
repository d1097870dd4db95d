"""Ask a target the cases and judge its answers: pass, differs as known, fail, skip.

Fed by the tables of `cases` and a target; the forms in `output` print what comes out. Asking and judging are apart, so
that a recording is judged as its target was.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from archlbr.arch.outcomes import DONE
from archlbr.conformance.answers import Answer, spelled
from archlbr.conformance.case import ANY_STEP
from archlbr.conformance.expectations import Is, meets, wanted
from archlbr.conformance.questions import asked_as
from archlbr.conformance.target import Target, ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from archlbr.conformance.case import Case, Known

STARTED = Is(DONE)


class Verdict(StrEnum):
    """What came of a case on a target."""

    PASS = "pass"  # noqa: S105 a verdict, no password
    DIFFERS = "differs"
    FAIL = "fail"
    SKIP = "skip"


class Result(NamedTuple):
    """One cell of the table. `why`: the known difference's reason, the failed step, or what the target lacks."""

    case: Case
    target: str
    verdict: Verdict
    why: str = ""


def run(target: Target, cases: Iterable[Case]) -> Iterator[Result]:
    """Yield the result of each case, in order."""
    for case in cases:
        yield run_case(target, case)


def run_case(target: Target, case: Case) -> Result:
    """Ask one case and judge it."""
    lacking = target.lacks(case.setup, tuple(step.question for step in case.steps))
    if lacking:
        return Result(case, target.name, Verdict.SKIP, lacking)
    started = target.start(case.setup)
    return judge(case, target, started, tuple(ask(target, step.question) for step in case.steps))


def judge(case: Case, target: Target, started: Answer, answers: tuple[Answer, ...]) -> Result:
    """Return the verdict on a target's answers to a case's steps and to its start."""
    where = target.known_as
    reasons: list[str] = []
    for at, answer in enumerate((started, *answers), -1):
        expected = STARTED if at < 0 else case.steps[at].expected
        earlier = answers[: max(at, 0)]
        if meets(expected, answer, earlier):
            continue
        excuse = next((known for known in case.known if _excuses(known, where, at, answer, earlier)), None)
        if excuse is None:
            asked = "KVM_SET_CPUID2" if at < 0 else asked_as(case.steps[at].question)
            said = f"step {at + 1}, {asked}: {spelled(answer)}, not {wanted(expected)}"
            return Result(case, target.name, Verdict.FAIL, said)
        reasons.append(excuse.reason)
    if reasons:
        return Result(case, target.name, Verdict.DIFFERS, "; ".join(dict.fromkeys(reasons)))
    return Result(case, target.name, Verdict.PASS)


def _excuses(known: Known, where: tuple[str, ...], at: int, answer: Answer, earlier: tuple[Answer, ...]) -> bool:
    return known.where in where and known.step in (at, ANY_STEP) and meets(known.instead, answer, earlier)


def strict(results: Iterable[Result]) -> Iterator[Result]:
    """Turn skips into failures."""
    for result in results:
        if result.verdict is Verdict.SKIP:
            yield result._replace(verdict=Verdict.FAIL, why=f"required, but: {result.why}")
        else:
            yield result


def holds(results: Iterable[Result]) -> bool:
    """Say whether something was asked and nothing failed."""
    verdicts = [result.verdict for result in results]
    return Verdict.FAIL not in verdicts and any(verdict is not Verdict.SKIP for verdict in verdicts)
