"""The oracle against a list written by hand, so that nothing else has to be believed."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.oracle.traces import symbols

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests
    from tests.oracle.stepper import Oracle

# What the processor does in known.S, read off the source: (FROM, TO, KIND) by label.
BY_HAND = [
    ("_start", "begin", "REL_JMP"),
    ("again", "again", "COND"),
    ("again+2", "empty", "COND"),
    ("plus0", "next", "REL_JMP"),
    ("icall", "function", "IND_CALL"),
    ("ijmp", "target", "IND_JMP"),
    ("target", "back", "RET"),
    ("hret", "restorer", "RET"),
    ("check", "good", "COND"),
]


def test_every_branch_of_a_program_known_by_heart(oracle: Oracle, guests: Guests) -> None:
    program = guests.known
    table = symbols(program)

    def address(label: str) -> int:
        name, _, plus = label.partition("+")
        return table[name] + int(plus or 0)

    expected = [(address(a), address(b), kind) for a, b, kind in BY_HAND]
    (thread,) = oracle.trace([program]).threads
    assert [(r.source, r.target, r.kind) for r in thread] == expected


def test_far_transfers_are_branches_of_the_other_kind(oracle: Oracle, guests: Guests) -> None:
    table = symbols(guests.far)
    path = [
        "lret",
        "after_lret",
        "ljmp",
        "after_ljmp",
        "lcall",
        "returns",
        "returned",
        "after_lcall",
        "iret",
        "after_iret",
    ]
    (thread,) = oracle.trace([guests.far], status=4).threads
    assert [(r.source, r.target) for r in thread] == [
        (table[a], table[b]) for a, b in zip(path[::2], path[1::2], strict=True)
    ]
    assert {r.kind for r in thread} == {"OTHER"}


def test_a_late_start_gives_the_tail_of_the_whole_trace(oracle: Oracle, guests: Guests) -> None:
    program = guests.known
    (whole,) = oracle.trace([program]).threads
    (tail,) = oracle.trace([program], start="back").threads
    assert tail == whole[7:]


def test_the_program_s_output_and_status_pass_through(oracle: Oracle, tmp_path: Path) -> None:
    out = tmp_path / "trace"
    done = subprocess.run(
        [oracle.stepper, "-o", out, "-b", "0", "--", "/bin/sh", "-c", "echo said; exit 7"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, b"said\n", b"")


def test_a_run_without_end_is_ended(oracle: Oracle, guests: Guests, tmp_path: Path) -> None:
    done = subprocess.run(
        [oracle.stepper, "-o", tmp_path / "trace", "-n", "1000", "--", guests.endless],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3, b"step: more than 1000 steps\n")
