"""`archlbr trace` of programs that are installed, stripped, against the single-stepper: all of their own text."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.cli.recording import archlbr, environment, run
from tests.oracle.stepper import ENVIRONMENT, Oracle
from tests.oracle.traces import assert_equal, entry_point, own_code, read_trace, within

LINES = "".join(f"{i * 7919 % 1000} word{i % 13}\n" for i in range(40))

# Programs whose branches do not depend on where they lie: no hashing of pointers (grep, diff and find do).
COMMANDS = [
    ("dash", "-c", "for i in 1 2 3; do case $i in 2) continue;; esac; echo $((i * i)); done; exit 4"),
    ("sort", "-S1M", "-n", "lines"),  # a buffer of its own choice depends on how much memory is free
    ("factor", "123456789", "1000003"),
    ("date", "-u", "-d@1234567890", "+%A %d %B %Y %j %H:%M"),
    ("tac", "lines"),
    ("bash", "-c", "declare -a x=(5 3 9); for i in ${x[@]}; do s=$((s + i)); done; printf '%03d\\n' $s"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_every_branch_of_the_program_s_own_text(command: tuple[str, ...], oracle: Oracle, tmp_path: Path) -> None:
    found = shutil.which(command[0], path=ENVIRONMENT["PATH"])
    if found is None:
        pytest.skip(f"{command[0]} is not installed")
    program = Path(os.path.realpath(found))
    lines = tmp_path / "lines"
    lines.write_text(LINES)
    words = [str(program), *(str(lines) if word == "lines" else word for word in command[1:])]
    # One processor for both, as the stepper has no more; the same variables, for a shell reads them all.
    extra = {**ENVIRONMENT, "OMP_NUM_THREADS": "1"}
    status = 4 if command[0] == "dash" else 0
    native = oracle.trace(words, start=entry_point(program), environment=environment(extra), status=status)
    ended = run(archlbr("trace", "-o", tmp_path / "trace", "--", *words), extra=extra)
    assert (ended.status, ended.err) == (status, b"")
    assert ended.out == run(words, extra=extra).out
    inside = own_code(program)
    (theirs,) = (within(thread, inside) for thread in native.edges())
    (ours,) = (within(thread, inside) for thread in read_trace(tmp_path / "trace").edges())
    assert len(theirs) > 200
    assert_equal(ours[1:], theirs, command[0])  # the first is the loader's jump to the program
