"""Runs ended from outside: Ctrl-C keeps what was recorded, a kill leaves no half file under the output's name."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.recording import archlbr, run, start, wait_for_work, worked

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests


def wait_for_guest(program: Path, session: int, seconds: float = 180) -> list[int]:
    """Wait until a process maps the program's file and its session is busy with it; return those that map it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = mapping(program)
        if found:
            wait_for_work(session, worked(session) + 1)  # long enough for samples
            return found
        time.sleep(0.05)
    raise AssertionError(f"{program} never ran")


def mapping(program: Path) -> list[int]:
    """Return the processes whose memory shows the program's file."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/maps") as maps:
                    if any(line.rstrip().endswith(str(program)) for line in maps):
                        found.append(int(name))
            except OSError:
                continue
    return found


def gone(program: Path, seconds: float = 60) -> bool:
    """Return whether no process runs the program any more, within some seconds."""
    end = time.monotonic() + seconds
    while mapping(program):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("whole_group", [True, False], ids=["from the keyboard", "to archlbr alone"])
def test_ctrl_c_ends_the_guest_and_writes_the_profile(whole_group: bool, guests: Guests, tmp_path: Path) -> None:
    profile = tmp_path / "perf.data"
    running = start(archlbr("record", "-c", "100003", "-o", profile, "--", guests.endless))
    wait_for_guest(guests.endless, running.pid)
    assert not profile.exists()
    if whole_group:
        os.killpg(running.pid, signal.SIGINT)
    else:
        running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, b"")
    assert b"Traceback" not in err
    assert gone(guests.endless)
    assert run(archlbr("validate", profile)).status == 0
    assert profile.stat().st_size > 10_000
    assert os.listdir(tmp_path) == ["perf.data"]


@pytest.mark.parametrize("verb", ["record", "trace"])
def test_a_killed_run_leaves_nothing_under_the_output_s_name(verb: str, guests: Guests, tmp_path: Path) -> None:
    profile = tmp_path / "perf.data"
    running = start(archlbr(verb, "-o", profile, "--", guests.endless))
    wait_for_guest(guests.endless, running.pid)
    running.kill()
    running.wait(timeout=60)
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    running.stderr.close()
    try:
        assert not profile.exists()
        assert gone(guests.endless), "the guest outlives its recorder"
    finally:
        for pid in mapping(guests.endless):
            os.kill(pid, signal.SIGKILL)


def test_a_killed_run_keeps_the_older_file(guests: Guests, tmp_path: Path) -> None:
    profile = tmp_path / "perf.data"
    profile.write_bytes(b"an older profile")
    running = start(archlbr("record", "-o", profile, "--", guests.endless))
    wait_for_guest(guests.endless, running.pid)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate(timeout=60)
    assert profile.read_bytes() == b"an older profile"


def test_a_guest_that_handles_ctrl_c_ends_as_it_likes(tmp_path: Path) -> None:
    profile = tmp_path / "perf.data"
    script = "trap 'echo caught; exit 5' INT; echo ready; while :; do :; done"
    running = start(archlbr("record", "-c", "100003", "-o", profile, "--", "bash", "-c", script))
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    os.killpg(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, b"Traceback" in err) == (5, b"caught\n", False)
    assert profile.exists()


@pytest.mark.parametrize("engine", ["unicorn", "qemu"])
def test_a_run_that_was_stopped_goes_on(engine: str, tmp_path: Path) -> None:
    if engine == "qemu" and shutil.which("qemu-x86_64") is None:
        pytest.skip("qemu-x86_64 is not installed")
    script = "echo ready; sleep 2; exit 5"
    running = start(archlbr("record", "--engine", engine, "-o", tmp_path / "perf.data", "--", "bash", "-c", script))
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(signal.SIGSTOP)
    time.sleep(0.8)  # longer than it waits between two looks
    running.send_signal(signal.SIGCONT)
    _, err = running.communicate(timeout=60)
    assert (running.returncode, b"Traceback" in err) == (5, False)


@pytest.mark.parametrize("engine", ["unicorn", "qemu"])
def test_what_was_ignored_is_ignored(engine: str, tmp_path: Path) -> None:
    """As in the background of a script; bash tells of the signals that were ignored as it was started."""
    if engine == "qemu" and shutil.which("qemu-x86_64") is None:
        pytest.skip("qemu-x86_64 is not installed")
    words = archlbr("record", "--engine", engine, "-o", tmp_path / "out", "--", "/bin/bash", "-c", "trap")
    quoted = " ".join(shlex.quote(str(word)) for word in words)
    for ignored in ("INT QUIT", "INT", ""):
        before = f"trap '' {ignored}; " if ignored else ""
        told = run(["/bin/bash", "-c", f"trap - INT QUIT; {before}{quoted}"]).out
        assert [name for name in ("INT", "QUIT") if f"'' SIG{name}\n".encode() in told] == ignored.split()
