"""llvm-profgen turns a recorded profile into one that clang builds a program by."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cli.recording import archlbr
from tests.cli.recording import run as run_recorder
from tests.foreign.tools import need, run, tools, versions
from tests.guests.build import SOURCES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.foreign

FLAGS = ["-O2", "-gline-tables-only", "-fdebug-info-for-profiling"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel as clang makes it, with line tables."""
    folder = tmp_path_factory.mktemp("clang")
    compiler = next(iter(tools("clang")), None) or need("clang")
    run([compiler, *FLAGS, "-o", folder / "kernel", SOURCES / "kernel.c"], folder)
    return folder / "kernel"


@pytest.mark.parametrize("profgen", versions("llvm-profgen"))
@pytest.mark.parametrize("form", ["perf.data", "script"])
def test_clang_builds_by_a_recorded_profile(profgen: Path, form: str, program: Path, tmp_path: Path) -> None:
    if form == "perf.data":
        need("perf")
    compiler = next(iter(tools("clang")), None) or need("clang")
    data = tmp_path / "profile"
    run_recorder(archlbr("record", "-c", "1009", "--format", form, "-o", data, "--", program, "1"))
    option = "--perfdata" if form == "perf.data" else "--perfscript"
    done = run([profgen, f"{option}={data}", f"--binary={program}", "--format=text", "-o", "kernel.prof"], tmp_path)
    # It may wish for more samples; of ranges that are none, or of addresses it does not know, it must say nothing.
    warnings = [line for line in (done.stdout + done.stderr).splitlines() if "warning" in line.lower()]
    assert [line for line in warnings if "with" not in line or "more samples" not in line] == []
    text = (tmp_path / "kernel.prof").read_text()
    heads = {name: int(total) for name, total in re.findall(r"^(\w+):(\d+):\d+$", text, re.MULTILINE)}
    assert heads["quicksort"] > 1000
    assert heads["fib"] > 1000
    source = SOURCES / "kernel.c"
    run([compiler, *FLAGS, "-fprofile-sample-use=kernel.prof", "-o", "tuned", source], tmp_path)
    assert run_recorder([tmp_path / "tuned", "2"]) == run_recorder([program, "2"])
