"""QEMU with our plugin against the native single-stepper: the cases of `tests.cli.test_trace`, branch by branch."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.cli.recording import archlbr, run
from tests.cli.test_trace import CASES, WITHOUT_MAIN, Case
from tests.oracle.stepper import ENVIRONMENT
from tests.oracle.traces import Trace, assert_equal, from_function, own_code, read_trace, within

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests
    from tests.oracle.stepper import Oracle

pytestmark = pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-x86_64 is not installed")


def traced(program: Path, out: Path, status: int) -> Trace:
    ended = run(archlbr("trace", "--engine", "qemu", "-o", out, "--", program), extra=ENVIRONMENT)
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
