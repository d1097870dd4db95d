"""`archlbr record` on programs that ask much of an operating system: the same output and exit status as natively."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.recording import archlbr, record, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests

NAMES = [
    "known", "zoo", "rewrite", "far", "wild", "kmini", "kmini_pie", "hello", "hello_fixed", "hello_static",
    "hello_static_pie", "jumps", "signals", "faults", "exceptions", "pair", "threads", "talkers", "jit", "forks",
    "processes", "timers", "memory", "over_itself",
]  # fmt: skip


# The kernel enters and leaves a handler without a branch, so a stack that spans one is not straight; real LBRs that
# leave out ring 0 show the same. Code that rewrites itself does not fit the instructions of its file.
INTERRUPTED = ("signals", "faults", "timers", "wild")
REWRITTEN = ("rewrite",)


@pytest.mark.parametrize("name", NAMES)
def test_a_guest_behaves_as_it_does_alone(name: str, guests: Guests, tmp_path: Path) -> None:
    program: Path = getattr(guests, name)
    natively = run([program], cwd=tmp_path)
    profile = tmp_path / "perf.data"
    recorded = record("-c", "101", "-o", profile, "--", program, cwd=tmp_path, interrupted=name in INTERRUPTED)
    assert recorded == natively
    validated = run(archlbr("validate", profile))
    assert validated.err == b""
    if name not in INTERRUPTED + REWRITTEN:
        assert validated.status == 0, validated.out


@pytest.mark.parametrize(("how", "status"), [("store", 139), ("call", 139), ("abort", 134), ("term", 143), ("none", 3)])
def test_the_status_is_the_one_a_shell_gives_and_the_profile_is_written(
    how: str, status: int, guests: Guests, tmp_path: Path
) -> None:
    profile = tmp_path / "perf.data"
    recorded = record("-c", "1009", "-o", profile, "--", guests.crash, how)
    assert (recorded.status, recorded.out, recorded.err) == (status, b"1312625791\n", b"")
    assert profile.stat().st_size > 10_000
    assert run(archlbr("validate", profile)).status == 0


def test_a_child_gets_the_signal_that_comes_as_it_is_forked(guests: Guests, tmp_path: Path) -> None:
    recorded = record("-o", tmp_path / "perf.data", "--", guests.signalled, interrupted=True)
    assert (recorded.status, recorded.out) == (0, b"0 lost\n")


def test_arguments_environment_directory_and_input_are_passed_on(guests: Guests, tmp_path: Path) -> None:
    words = [guests.surroundings, "one", "", "two words", "--help", "-c"]
    extra, stdin = {"GUEST_WORD": "ein Wort"}, b"standard input\n" * 1000
    natively = run(words, cwd=tmp_path, extra=extra, stdin=stdin)
    recorded = record("-o", tmp_path / "perf.data", "--", *words, cwd=tmp_path, extra=extra, stdin=stdin)
    assert recorded == natively
    assert b"word ein Wort\n" in recorded.out


def test_a_program_is_found_on_the_path_and_named_as_called(guests: Guests, tmp_path: Path) -> None:
    extra = {"PATH": f"{guests.surroundings.parent}:/usr/bin:/bin"}
    natively = run(["surroundings"], cwd=tmp_path, extra=extra)
    recorded = record("-o", tmp_path / "perf.data", "surroundings", cwd=tmp_path, extra=extra)
    assert b"argv[0] surroundings\n" in natively.out
    assert recorded == natively


def test_a_script_runs_by_its_first_line(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('#!/bin/sh -e\necho "$0" "$@"\nexit 6\n')
    script.chmod(0o755)
    natively = run([script, "a", "b"])
    assert record("-o", tmp_path / "perf.data", "--", script, "a", "b") == natively
    assert natively.status == 6
