"""`archlbr trace` against the native single-stepper: every taken branch, in order, of programs compiled here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.recording import archlbr, run
from tests.oracle.programs import CASES, Case, assert_as_stepped, traced

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests
    from tests.oracle.stepper import Oracle


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_branch_is_the_one_the_processor_took(case: Case, guests: Guests, oracle: Oracle, tmp_path: Path) -> None:
    assert_as_stepped(case, guests, oracle, tmp_path / "trace")


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
