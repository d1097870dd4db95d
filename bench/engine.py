"""What recording costs on top of the engine: the same program with the hooks and without, in one process tree.

    python -m bench engine

Each run is a fork of this process, in which all compiled code is loaded already. Only the emulation is timed: from the
first guest instruction to exit_group. The rounds alternate between the forms, and ratios are taken round by round.
"""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tests.guests.build import Guests

from archlbr.cpu import words as at
from archlbr.cpu.unicorn import shortcuts
from archlbr.machine.launch import start
from archlbr.machine.recorder import Recorder
from archlbr.perf.filters import parse_filter
from archlbr.profile.perfdata.attr import branch_attr
from archlbr.recording.events import TAKEN, Event
from archlbr.recording.sampling import Sampler
from archlbr.recording.tracing import Tracer
from bench.figures import median, ratio, table

if TYPE_CHECKING:
    from collections.abc import Callable

PERIOD = 10007
ENABLE = 1


class Bare(Recorder):
    """A recorder that has no hook and notes nothing: the engine alone."""

    shortcuts = shortcuts.NONE
    on_block = 0

    def __init__(self) -> None:
        self.words = np.zeros(at.WORDS, np.uint64)


class Straight(Bare):
    """The engine alone, with those of a recording's shortcuts that do without a hook to leave by."""

    shortcuts = shortcuts.ACCESSES | shortcuts.STORES


class Run(NamedTuple):
    """One emulation: seconds, taken branches and instructions, the status of the program."""

    seconds: float
    branches: int
    instructions: int
    status: int


def sampler(folder: str, name: str) -> Sampler:
    """Return the recorder behind `archlbr record -j NAME`."""
    wanted = parse_filter(name)
    attr = branch_attr("branches", PERIOD, wanted.sample_type)
    return Sampler(folder, attr, Event(TAKEN, PERIOD, wanted.lbr_ctl | ENABLE))


FORMS: dict[str, Callable[[str], Recorder]] = {
    "bare engine": lambda _: Bare(),
    "bare engine, its detours left out": lambda _: Straight(),
    f"record -j any -c {PERIOD}": lambda folder: sampler(folder, "any"),
    f"record -j stack -c {PERIOD}": lambda folder: sampler(folder, "stack"),
    "trace": Tracer,
}


def emulate(program: Path, arguments: list[str], make: Callable[[str], Recorder]) -> Run:
    """Run a program in a fork of this process, its output thrown away."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            with TemporaryDirectory() as folder:
                argv = tuple(os.fsencode(word) for word in (str(program), *arguments))
                recorder = make(folder)
                process, thread = start(str(program), argv, (b"LC_ALL=C",), recorder)
                if isinstance(recorder, Straight):
                    process.engine.shortcuts = recorder.shortcuts
                    recorder.words[at.LEAVE] = shortcuts.leaving()
                begin = time.perf_counter()
                status = process.run(thread)
                seconds = time.perf_counter() - begin
                words = recorder.words
                os.write(writer, pickle.dumps(Run(seconds, int(words[at.TAKEN]), int(words[at.RETIRED]), status)))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    os.waitpid(pid, 0)
    found: Run = pickle.loads(content)
    return found


def measure(rounds: int = 7, size: int = 32) -> list[str]:
    """Return the section: `size` rounds of tests/guests/kernel.c, 10^6 taken branches each."""
    with TemporaryDirectory() as folder:
        program = Guests(Path(folder)).kernel
        runs: dict[str, list[Run]] = {form: [] for form in FORMS}
        for make in FORMS.values():  # warms the caches
            emulate(program, ["1"], make)
        for _ in range(rounds):
            for form, make in FORMS.items():
                runs[form].append(emulate(program, [str(size)], make))
    assert len({run.status for form in runs.values() for run in form}) == 1
    (counts,) = {(run.branches, run.instructions) for form in list(FORMS)[2:] for run in runs[form]}
    base = [run.seconds for run in runs["bare engine"]]
    rows = []
    for form, found in runs.items():
        seconds = [run.seconds for run in found]
        rate = [counts[0] / 1e6 / value for value in seconds]
        rows.append([form, median(seconds), ratio(seconds, base), median(rate, "M/s", 1)])
    return [
        f"`tests/guests/kernel.c` with argument {size}: {counts[0]:,} taken branches, {counts[1]:,} instructions. "
        f"Emulation alone, {rounds} alternating rounds.",
        "",
        *table(["form", "time", "to the bare engine", "taken branches"], rows),
    ]
