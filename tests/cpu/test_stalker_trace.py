"""Frida's Stalker against the native single-stepper and QEMU: every branch from main to exit.

What is compared is the program's own text: Frida has used the C library's heap before main, and malloc goes other ways.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.cli.recording import archlbr, run
from tests.oracle.stepper import ENVIRONMENT
from tests.oracle.traces import Edge, Place, Trace, assert_equal, from_function, own_code, read_trace, within

if TYPE_CHECKING:
    from tests.guests.build import Guests
    from tests.oracle.stepper import Oracle

pytestmark = pytest.mark.skipif(importlib.util.find_spec("frida") is None, reason="frida is not installed")

_FLAGS = frozenset(
    next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
)


class Case(NamedTuple):
    """A guest, its arguments, its exit status, and the processor's features that it needs."""

    name: str
    status: int
    arguments: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset()
    threads: int = 1


CASES = [
    Case("hello", 7),
    Case("hello_fixed", 7),
    Case("jumps", 62),
    Case("exceptions", 60),
    Case("threads", 9, threads=4),
    Case("kernel", 1, ("0",)),
    Case("bodies", 17, ("1", "40")),
    Case("steps", 4, ("counter",)),
    Case("steps", 4, ("loop",)),
    Case("steps", 5, ("exit",)),
    Case("vectors_avx2", 23, ("1", "16"), frozenset({"avx2", "fma"})),
    Case("vectors_avx512", 23, ("1", "16"), frozenset({"avx512f", "avx512bw"})),
]


def traced(engine: str, program: Path, case: Case, out: Path) -> Trace:
    words = archlbr("trace", "--engine", engine, "-o", out, "--", program, *case.arguments)
    ended = run(words, extra=ENVIRONMENT)
    assert (ended.status, ended.err) == (case.status, b"")
    assert ended.out == run([program, *case.arguments]).out
    return read_trace(out)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "_".join((case.name, *case.arguments)))
def test_every_branch_is_the_one_the_processor_took(case: Case, guests: Guests, oracle: Oracle, tmp_path: Path) -> None:
    missing = case.needs - _FLAGS
    if missing:
        pytest.skip(f"this processor has no {', '.join(sorted(missing))}")
    program: Path = getattr(guests, case.name)
    command = [program, *case.arguments]
    theirs = oracle.trace(command, start="main", status=case.status).edges()
    ours = traced("stalker", program, case, tmp_path / "trace").edges()
    assert len(ours) == len(theirs) == case.threads
    assert ours[0] == up_to_exit(ours[0])
    theirs[0] = up_to_exit(theirs[0])
    inside = own_code(program)
    assert_same([within(thread, inside) for thread in ours], [within(thread, inside) for thread in theirs], case.name)


# The word that the script has run comes a second late: on a busy machine a short program could end before it came.
LATE = """
import sys
from pathlib import Path
from archlbr.cli.app import main
from archlbr.cpu.stalker import agent
folder = Path(sys.argv[1])
for file in agent._FOLDER.glob("*.[cj]*"):
    (folder / file.name).write_text(file.read_text() + "Thread.sleep(1);" * (file.name == "agent.js"))
agent._FOLDER = folder
sys.exit(main(sys.argv[2:]))
"""


def test_a_program_does_not_run_before_frida_has_said_that_it_is_ready(guests: Guests, tmp_path: Path) -> None:
    late = [sys.executable, "-c", LATE, tmp_path, "trace", "--engine", "stalker", "-o", tmp_path / "trace", "--"]
    assert run([*late, guests.hello]) == run([guests.hello])


def up_to_exit(edges: list[Edge]) -> list[Edge]:
    """Keep the branches up to the one that enters exit; behind it run destructors, and what atexit was given."""
    libc = next(edge.target.file for edge in edges if Path(edge.target.file).name == "libc.so.6")
    listing = subprocess.run(["nm", "-D", "--defined-only", libc], capture_output=True, text=True, check=True).stdout
    address = next(int(line.split()[0], 16) for line in listing.splitlines() if line.split()[2].startswith("exit@"))
    at = edges.index(next(edge for edge in edges if edge.target == Place(libc, address)))
    return edges[: at + 1]


def assert_same(ours: list[list[Edge]], theirs: list[list[Edge]], what: str) -> None:
    assert_equal(ours[0], theirs[0], f"{what}, main")
    for number, (mine, native) in enumerate(zip(ours[1:], theirs[1:], strict=True)):
        assert_equal(mine, native[1:], f"{what}, thread {number + 1}")  # the first is the call of its function


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-x86_64 is not installed")
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name in ("exceptions", "threads")], ids=lambda case: case.name
)
def test_qemu_sees_the_same(case: Case, guests: Guests, tmp_path: Path) -> None:
    program: Path = getattr(guests, case.name)
    inside = own_code(program)
    theirs = traced("qemu", program, case, tmp_path / "qemu").edges()
    ours = traced("stalker", program, case, tmp_path / "stalker").edges()
    theirs[0] = up_to_exit(from_function(theirs[0], program, "main"))
    theirs, ours = ([within(thread, inside) for thread in trace] for trace in (theirs, ours))
    assert_same(ours, theirs, case.name)
