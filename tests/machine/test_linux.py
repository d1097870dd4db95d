"""Debian's unmodified kernel on the board: it finds Architectural LBR, and its own perf samples the branch stack."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.guests.linux import FOLDER

if TYPE_CHECKING:
    from pathlib import Path

needs_guest = pytest.mark.skipif(
    not (FOLDER / "guest.cpio").exists(), reason="needs build/guest: make guest fetches a kernel and busybox with apt"
)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The console of one boot up to the shell and two commands typed at it, and what came out of the second port."""
    out = tmp_path_factory.mktemp("guest") / "perf.data"
    command = [
        sys.executable,
        "-m",
        "archlbr",
        "run",
        "--kernel",
        FOLDER / "vmlinuz",
        "--initrd",
        FOLDER / "guest.cpio",
    ]
    command += ["--append", "console=ttyS0 mitigations=off rdinit=/init quiet", "-o", out, "--timeout", "600"]
    typed = b"echo typed $((6*7))\npoweroff -f\n"
    ended = subprocess.run(command, input=typed, capture_output=True, timeout=700, check=False)
    return ended.stdout.decode(errors="replace"), out


@needs_guest
def test_the_kernel_finds_the_lbrs_and_time_passes(session: tuple[str, Path]) -> None:
    console, _ = session
    assert re.findall(r"^\[(depth|flag|slept)\] (\S+)", console, re.MULTILINE) == [
        ("depth", "32"),
        ("flag", "arch_lbr"),
        ("slept", "1"),
    ]


@needs_guest
def test_commands_typed_at_the_console_run(session: tuple[str, Path]) -> None:
    assert "typed 42" in session[0]


@needs_guest
def test_perf_in_the_guest_records_the_programs_own_branches(session: tuple[str, Path], tmp_path: Path) -> None:
    console, data = session
    if "[recorded]" not in console:
        pytest.skip("needs perf in the guest: install linux-perf and make guest again")
    script = subprocess.run(
        ["perf", "script", "-i", data, "-F", "brstack"], capture_output=True, text=True, check=True, timeout=120
    )
    sampled = Counter(tuple(entry.split("/")[:2]) for line in script.stdout.splitlines() for entry in line.split())
    trace = tmp_path / "trace"
    command = [sys.executable, "-m", "archlbr", "trace", "-o", trace, "--", FOLDER / "program", "8"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False, timeout=300)
    lines = [line.split() for line in trace.read_text().splitlines() if not line.startswith("#")]
    exact = Counter((source, target) for _, source, target, _ in lines)
    ours, theirs = sum(sampled.values()), sum(exact.values())
    assert ours > 20_000
    overlap = sum(min(sampled[edge] / ours, exact[edge] / theirs) for edge in sampled)
    assert overlap >= 0.98, overlap
