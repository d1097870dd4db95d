"""The programs whose every branch is compared with the native single-stepper's, whichever engine ran them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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


def traced(program: Path, out: Path, status: int, *words: str) -> Trace:
    """Return the trace of a program that ends with a status and of which nothing is said."""
    ended = run(archlbr("trace", *words, "-o", out, "--", program), extra=ENVIRONMENT)
    assert (ended.status, ended.err) == (status, b"")
    return read_trace(out)


def assert_as_stepped(case: Case, guests: Guests, oracle: Oracle, out: Path, *words: str) -> None:
    """Compare a program's trace with the branches that the processor took, thread by thread."""
    program: Path = getattr(guests, case.name)
    start = None if case.name in WITHOUT_MAIN else "main"
    theirs = oracle.trace([program], start=start, follow=case.name == "forks", status=case.status).edges()
    ours = traced(program, out, case.status, *words).edges()
    if start:
        ours[0] = from_function(ours[0], program, "main")
    if case.scope == "own":
        inside = own_code(program, case.generated)
        theirs, ours = ([within(thread, inside) for thread in trace] for trace in (theirs, ours))
    assert len(ours) == len(theirs), "threads"
    for number, (mine, native) in enumerate(zip(ours, theirs, strict=True)):
        assert_equal(mine, native, f"{case.name}, thread {number}")
