"""perf reads what `archlbr record` writes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cli.recording import archlbr, record, script_edges
from tests.cli.recording import run as run_recorder
from tests.foreign.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests

pytestmark = pytest.mark.foreign


@pytest.fixture(scope="module")
def profile(guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One round of the kernel, recorded at a period of 1009."""
    data = tmp_path_factory.mktemp("recorded") / "perf.data"
    ended = record("-c", "1009", "-o", data, "--", guests.kernel, "1")
    assert ended == run_recorder([guests.kernel, "1"])
    return data


def test_perf_script_prints_the_branches_the_text_format_has(profile: Path, guests: Guests, tmp_path: Path) -> None:
    text = tmp_path / "script"
    run_recorder(archlbr("record", "-c", "1009", "--format", "script", "-o", text, "--", guests.kernel, "1"))
    printed = run([need("perf"), "script", "-i", profile, "-F", "ip,brstack"], tmp_path).stdout
    edges = script_edges(printed)
    assert sum(edges.values()) > 30_000
    assert edges == script_edges(text.read_text())


def test_every_sample_is_in_the_recorded_process(profile: Path, tmp_path: Path) -> None:
    printed = run(
        [need("perf"), "script", "-i", profile, "-F", "comm,pid,tid,time,event,ip,sym,brstack"], tmp_path
    ).stdout
    lines = printed.splitlines()
    assert len(lines) > 900
    assert {line.split()[0] for line in lines} == {"kernel"}
    times = [float(time) for line in lines for time in re.findall(r" (\d+\.\d+): ", line)[:1]]
    assert len(times) == len(lines)
    assert times == sorted(times)
    # A return from the kernel takes an entry and is not shown; code that makes no system call has all thirty-two.
    # The program computes from its first sample in main to its last, but for what led into main and prints at the end.
    computing = [line for line in lines if re.search(r" (main|quicksort|fib) ", line)][10:-10]
    assert len(computing) > 400
    assert {line.count("/P/") + line.count("/M/") for line in computing} == {32}


def test_perf_report_finds_the_functions(profile: Path, tmp_path: Path) -> None:
    printed = run([need("perf"), "report", "-b", "--stdio", "-i", profile], tmp_path).stdout
    for name in ("quicksort", "fib", "main"):
        assert name in printed
    assert "COND" in printed


def test_the_whole_event_log_is_understood(profile: Path, tmp_path: Path) -> None:
    raw = run([need("perf"), "report", "-D", "-i", profile], tmp_path).stdout
    assert "PERF_RECORD_COMM" in raw
    assert re.search(r"PERF_RECORD_MMAP2 .* r-xp .*/kernel\n", raw)
    told = run([need("perf"), "report", "--header-only", "-i", profile], tmp_path).stdout
    assert "kernel 1" in told
    builds = run([need("perf"), "buildid-list", "-i", profile], tmp_path).stdout
    assert re.search(r"^[0-9a-f]{40} .*/kernel$", builds, re.MULTILINE)
