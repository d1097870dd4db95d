"""What Stalker cannot record exactly is named before it happens, in one line, and nothing is written."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import MagicMock

import pytest

from archlbr.cpu.stalker import agent
from archlbr.errors import InputError
from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.stack import Comm
from tests.cli.recording import archlbr, record, run

if TYPE_CHECKING:
    from tests.guests.build import Guests

pytestmark = pytest.mark.skipif(importlib.util.find_spec("frida") is None, reason="frida is not installed")

# What steps.c does, and what is said of it; in each case it has printed `begun` before, except where nothing ran.
REFUSED = {
    "prefixed": "the program has a LOOP instruction with a prefix, no branch to Stalker (at 0x",
    "fork": "the program forks, and Stalker does not live in the child",
    "exec": "the program executes another, which Stalker does not follow",
    "handler": "the program calls a function that Frida has changed, ssignal",
    "bare": "the program has a signal handler, which Stalker does not see (at 0x",
    "code": "the program makes code as it runs, or changes it",
    "gs": "the program uses GS, which the recorder needs",
    "gsbase": "the program uses GS, which the recorder needs (at 0x",
    "readgs": "the program uses GS, which the recorder needs (at 0x",
    "segment": "the program uses GS, which the recorder needs (at 0x",
    "fsbase": "the program moves FS, which Frida needs (at 0x",
    "fs": "the program moves FS, which Frida needs",
    "transaction": "the program begins a hardware transaction (at 0x",
    "user": "the program cancels a thread or changes its user, by a signal that Stalker does not see",
    "unmap": "the program unloads code",
    "clone": "the program starts a thread without pthread_create",
    "vfork": "the program forks, and Stalker does not live in the child",
    "confine": "the program confines itself to some system calls, and the recorder makes others",
    "abort": "the program calls a function that Frida has changed, abort",
    "library": "the program loads a library as it runs, which Frida takes part in",
    "exception": "the program has a far transfer or a software interrupt (at 0x",
    "early": "the program starts a thread before main",
}
WAY_OUT = "; it was stopped there: use --engine qemu or --engine unicorn\n"


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_named_before_it_happens(what: str, guests: Guests, tmp_path: Path) -> None:
    out = tmp_path / "trace"
    ended = run(archlbr("trace", "--engine", "stalker", "-o", out, "--", guests.steps, what))
    assert (ended.status, ended.out) == (2, b"" if what == "early" else b"begun\n")
    said = ended.err.decode()
    assert said.startswith(f"archlbr: --engine stalker: {REFUSED[what]}")
    assert said.endswith(WAY_OUT)
    assert said.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("name", ["signals", "faults", "jit", "forks"])
def test_the_guests_that_need_it_are_refused(name: str, guests: Guests, tmp_path: Path) -> None:
    ended = run(archlbr("trace", "--engine", "stalker", "-o", tmp_path / "trace", "--", getattr(guests, name)))
    assert ended.status == 2
    assert ended.err.decode().endswith(WAY_OUT)


def test_a_static_program_is_refused_before_it_starts(guests: Guests, tmp_path: Path) -> None:
    program = guests.hello_static
    ended = run(archlbr("trace", "--engine", "stalker", "-o", tmp_path / "trace", "--", program))
    expected = f"archlbr: --engine stalker cannot record the static program {program}: use --engine qemu or unicorn\n"
    assert (ended.status, ended.out, ended.err) == (2, b"", expected.encode())


def test_a_program_without_main_is_refused_before_it_starts(guests: Guests, tmp_path: Path) -> None:
    source, program = tmp_path / "bare.S", tmp_path / "bare"
    source.write_text(".globl _start\n_start: mov $60, %eax\n xor %edi, %edi\n syscall\n")
    run(["gcc", "-nostdlib", "-pie", "-Wl,-dynamic-linker,/lib64/ld-linux-x86-64.so.2", "-o", program, source, "-lc"])
    ended = run(archlbr("trace", "--engine", "stalker", "-o", tmp_path / "trace", "--", program))
    expected = (
        f"archlbr: --engine stalker: {program} has no main that a C library calls: use --engine qemu or unicorn\n"
    )
    assert (ended.status, ended.out, ended.err) == (2, b"", expected.encode())


@pytest.mark.parametrize(("what", "status"), [("exit", 5), ("fork", 2)])
def test_nothing_of_frida_stays_behind(what: str, status: int, guests: Guests, tmp_path: Path) -> None:
    words = archlbr("trace", "--engine", "stalker", "-o", tmp_path / "trace", "--", guests.steps, what)
    ended = run(words, extra={"TMPDIR": str(tmp_path)})
    assert ended.status == status
    running = []
    for process in Path("/proc").glob("[0-9]*/exe"):
        with contextlib.suppress(OSError):
            running.append(os.readlink(process))
    assert [file for file in running if file.startswith(str(tmp_path))] == []


@pytest.mark.parametrize("before", [None, "/elsewhere"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_folder_for_temporary_files_is_put_back(
    before: str | None, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def attach(_pid: int) -> MagicMock:
        seen.append(os.environ.get("TMPDIR"))
        if fails:
            raise PermissionError
        session = MagicMock()
        ready = {"type": "send", "payload": {"changed": []}}
        session.create_script.return_value.on.side_effect = lambda _what, told: told(ready, None)
        return session

    errors = dict.fromkeys(agent._FAILURES, PermissionError)
    # Not Frida itself, whose threads would stay in this process.
    monkeypatch.setitem(sys.modules, "frida", SimpleNamespace(attach=attach, **errors))
    monkeypatch.setattr(agent, "_wide", lambda: False)
    monkeypatch.delenv("TMPDIR", raising=False)
    if before is not None:
        monkeypatch.setenv("TMPDIR", before)
    with pytest.raises(InputError) if fails else contextlib.nullcontext():
        agent.Agent(1, str(tmp_path / "ring.1.0"), 0, 0)
    assert seen == [str(tmp_path)]
    assert os.environ.get("TMPDIR") == before


def test_a_process_that_is_killed_is_named(guests: Guests, tmp_path: Path) -> None:
    profile = tmp_path / "perf.data"
    ended = record("--engine", "stalker", "-c", "7", "-o", profile, "--", guests.steps, "crash")
    assert (ended.status, ended.out) == (139, b"begun\n")
    assert b"was killed: the block it was in is not recorded" in ended.err


# Frida may have taken the status of a program that is killed while it takes hold of it.
REAPED = """
import os, sys
from archlbr.cli.app import command
from archlbr.machine import supervise
wait = supervise._wait
def twice(pid, *rest):
    wait(pid, *rest)
    os.waitpid(pid, 0)
supervise._wait = twice
sys.exit(command())
"""


def test_a_program_whose_status_nobody_has_is_refused(guests: Guests, tmp_path: Path) -> None:
    words = [sys.executable, "-c", REAPED, "trace", "--engine", "stalker", "-o", tmp_path / "trace", "--", guests.hello]
    ended = run(words, seconds=60)
    assert ended.status == 2
    assert ended.err == b"archlbr: --engine stalker: the program was killed while Frida took hold of it\n"


def test_threads_and_names_are_in_the_profile(guests: Guests, tmp_path: Path) -> None:
    profile = tmp_path / "perf.data"
    ended = record("--engine", "stalker", "-c", "7", "-o", profile, "--", guests.steps, "name")
    assert (ended.status, ended.out, ended.err) == (4, b"begun\n", b"")
    with Reader(profile) as reader:
        names = [event.name for event in reader.sideband() if isinstance(event, Comm)]
        threads = {int(tid) for chunk in reader.samples() for tid in chunk.tid}
    assert names == ["steps", "another"]
    assert len(threads) == 2
