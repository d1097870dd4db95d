"""`report` on files that perf itself wrote: what it shows is what it shows of the recording they came from."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.cli.shell import archlbr
from tests.foreign.tools import need, run
from tests.report.turn import TURN, compiled, profile

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.foreign


def test_a_file_that_perf_wrote_anew_shows_the_same(tmp_path: Path) -> None:
    perf = need("perf")
    need("gcc")
    ours = profile(tmp_path, compiled(tmp_path, "-g"), [TURN] * 50)
    theirs = str(tmp_path / "injected.data")
    run([perf, "inject", "-b", "-i", ours, "-o", theirs], tmp_path)
    for words in (("--by", "branch"), ("--by", "line"), ("--annotate", "inner")):
        mine, other = archlbr("report", *words, ours), archlbr("report", *words, theirs)
        assert mine.status == other.status == 0
        # The command line may be perf's.
        assert [row for row in mine.out.splitlines() if not row.startswith("recorded by")] == [
            row for row in other.out.splitlines() if not row.startswith("recorded by")
        ]
    assert archlbr("diff", ours, theirs).out.splitlines()[0] == "overlap 1.0000"


def test_a_recording_of_perf_without_branches_is_one_line(tmp_path: Path) -> None:
    perf = need("perf")
    name = tmp_path / "perf.data"
    run([perf, "record", "-e", "dummy:u", "-o", name, shutil.which("true") or "true"], tmp_path)
    for verb in ("report", "diff"):
        ran = archlbr(verb, *[str(name)] * (2 if verb == "diff" else 1))
        assert ran == (
            2,
            "",
            f"archlbr: {name} has no branch stacks: record with archlbr record, or perf record -b\n",
        )
    assert "the profile has no branch stacks" in archlbr("validate", str(name)).out
