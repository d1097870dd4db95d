"""`archlbr trace` against the native single-stepper: every taken branch, in order, of programs compiled here."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.cli.recording import archlbr, run
from tests.oracle.stepper import ENVIRONMENT
from tests.oracle.traces import Trace, assert_equal, from_function, own_code, read_trace, within

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests
    from tests.oracle.stepper import Oracle


class Case(NamedTuple):
    """A guest, its exit status, and how much of the two traces is comparable."""

    name: str
    status: int
    scope: str
    generated: range = range(0)


# whole: all of it, there is no C library. main: from the first instruction of main to the end, the C library included
# (before it, the C library looks at the processor, and the two processors differ). own: the program's own text, the
# libraries around it being one place; the loader and the string functions may take other ways there.
CASES = [
    Case("known", 0, "whole"),
    Case("zoo", 80, "whole"),
    Case("rewrite", 21, "whole"),
    Case("far", 4, "whole"),
    Case("wild", 6, "whole"),
    Case("kmini", 119, "whole"),
    Case("kmini_pie", 119, "own"),
    Case("hello_static", 7, "main"),
    Case("hello_static_pie", 7, "main"),
    Case("hello", 7, "own"),
    Case("hello_fixed", 7, "own"),
    Case("jumps", 62, "own"),
    Case("signals", 57, "own"),
    Case("faults", 41, "own"),
    Case("exceptions", 60, "own"),
    Case("threads", 9, "own"),
    Case("forks", 15, "own"),
    Case("jit", 59, "own", range(0x30000000, 0x32000000)),
]
WITHOUT_MAIN = ("known", "zoo", "rewrite", "far", "wild", "kmini", "kmini_pie")


def traced(program: Path, out: Path, status: int) -> Trace:
    ended = run(archlbr("trace", "-o", out, "--", program), extra=ENVIRONMENT)
    assert (ended.status, ended.err) == (status, b"")
    return read_trace(out)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_branch_is_the_one_the_processor_took(case: Case, guests: Guests, oracle: Oracle, tmp_path: Path) -> None:
    program: Path = getattr(guests, case.name)
    start = None if case.name in WITHOUT_MAIN else "main"
    theirs = oracle.trace([program], start=start, follow=case.name == "forks", status=case.status).edges()
    ours = traced(program, tmp_path / "trace", case.status).edges()
    if start:
        ours[0] = from_function(ours[0], program, "main")
    if case.scope == "own":
        inside = own_code(program, case.generated)
        theirs, ours = ([within(thread, inside) for thread in trace] for trace in (theirs, ours))
    assert len(ours) == len(theirs), "threads"
    for number, (mine, native) in enumerate(zip(ours, theirs, strict=True)):
        assert_equal(mine, native, f"{case.name}, thread {number}")


def test_a_trace_to_stdout_is_the_trace_in_the_file(guests: Guests, tmp_path: Path) -> None:
    run(archlbr("trace", "-o", tmp_path / "trace", "--", guests.known))
    ended = run(archlbr("trace", "--", guests.known))
    records = [line.split(None, 1)[1] for line in ended.out.decode().splitlines() if not line.startswith("#")]
    filed = [
        line.split(None, 1)[1] for line in (tmp_path / "trace").read_text().splitlines() if not line.startswith("#")
    ]
    assert len(records) == 9
    assert records == filed


def test_two_runs_give_the_same_trace(guests: Guests, tmp_path: Path) -> None:
    one, two = (traced(guests.kmini, tmp_path / name, 119) for name in ("one", "two"))
    assert one == two
    assert len(one.threads[0]) == 15141
