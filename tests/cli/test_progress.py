"""What a long run tells on a terminal, and that nobody else hears of it."""

from __future__ import annotations

import importlib.util
import os
import pty
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from archlbr.cli.progress import ProgressLine, progress_line
from archlbr.machine.progress import Counted
from tests.cli.recording import ARCHLBR, archlbr, environment, run, stats

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests

LINE = re.compile(
    r"\r\x1b\[K\[ (\d+) s, ([\d.,]+(?: [GMk])?) instructions, ([\d.,]+(?: [GMk])?) branches, "
    r"(?:(\S+(?: [GMk])?) samples, )?"
)
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


def number(text: str) -> float:
    digits, _, unit = text.partition(" ")
    return float(digits.replace(",", "")) * UNITS[unit]


def on_a_terminal(*words: str | os.PathLike[str]) -> str:
    """Run a verb with a terminal for stderr and return what that showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*ARCHLBR, *words],
        env=environment({"TERM": "xterm"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            more = os.read(ours, 4096)
        except OSError:  # the last one to hold the other end is gone
            break
        if not more:
            break
        said += more
    os.close(ours)
    process.wait(60)
    return said.decode()


@pytest.mark.parametrize("shell", [False, True], ids=["itself", "in a child"])
def test_the_line_tells_what_the_run_has_done_so_far(shell: bool, guests: Guests, tmp_path: Path) -> None:
    command = ["sh", "-c", f"{guests.kernel} 200; true"] if shell else [guests.kernel, "200"]
    said = on_a_terminal(
        "record", "--engine", "unicorn", "--stats", "-c", "10007", "-o", tmp_path / "out", "--", *command
    )
    lines = LINE.findall(said)
    assert len(lines) >= 2
    whole = stats(said.encode())
    counts = [(number(instructions), number(branches)) for _, instructions, branches, _ in lines]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    # What was read from outside is on its way to what the run itself counted at its end.
    assert 10**6 < counts[-1][1] <= int(whole["branches"])
    assert counts[-1][0] <= int(whole["instructions"])
    assert number(lines[-1][3]) == pytest.approx(counts[-1][1] / 10007, rel=0.06)
    # Wiped before the last words.
    assert said.rindex("\r\x1b[K") < said.index("[ archlbr record: wrote")
    assert "branches/s ]" not in said[said.rindex("\r\x1b[K") :]


@pytest.mark.parametrize("engine", ["qemu", "stalker"])
def test_engines_that_write_streams_tell_it_too(engine: str, guests: Guests, tmp_path: Path) -> None:
    if engine == "qemu" and shutil.which("qemu-x86_64") is None:
        pytest.skip("qemu-x86_64 is not installed")
    if engine == "stalker" and importlib.util.find_spec("frida") is None:
        pytest.skip("frida is not installed")  # imported here, its threads would stay: other tests fork
    said = on_a_terminal("record", "--engine", engine, "--stats", "-o", tmp_path / "out", "--", guests.kernel, "400")
    counts = [(number(instructions), number(branches)) for _, instructions, branches, _ in LINE.findall(said)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    assert 10**6 < counts[-1][1] <= 1.001 * int(stats(said.encode())["branches"])  # the line is rounded
    assert said.rindex("\r\x1b[K") < said.index("[ archlbr record: wrote")


def test_a_pipe_sees_no_line(guests: Guests, tmp_path: Path) -> None:
    ended = run(archlbr("record", "--engine", "unicorn", "-o", tmp_path / "out", "--", guests.kernel, "20"))
    assert b"branches/s" not in ended.err
    assert b"\r" not in ended.err


def test_a_terminal_without_cursor_sees_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert progress_line() is None
    monkeypatch.setenv("TERM", "xterm")
    assert progress_line() is not None


def test_a_short_run_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine(100)
    line.show(Counted(10**9, 10**8))
    line.wipe()
    assert capsys.readouterr().err == ""


def test_a_child_s_counts_are_its_own(tmp_path: Path) -> None:
    def instructions(script: str) -> int:
        ended = run(
            archlbr("record", "--engine", "unicorn", "--stats", "-o", tmp_path / "out", "--", "sh", "-c", script)
        )
        return int(stats(ended.err)["instructions"])

    alone, forking = instructions(":"), instructions("(:); (:); (:)")
    # Three forks run little; counted with what their parent had done before, they would be three times as much more.
    assert alone < forking < 2 * alone
