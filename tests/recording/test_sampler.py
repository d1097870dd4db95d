"""The sampler's counters, buffer and files, block by block: the hook is called as an engine calls it."""

from __future__ import annotations

import ctypes
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from archlbr.arch import msrs
from archlbr.cpu import words as at
from archlbr.cpu.decode import Decoder
from archlbr.machine import hooks, journal
from archlbr.profile.perfdata.attr import branch_attr
from archlbr.recording.events import RETIRED, TAKEN, Event
from archlbr.recording.sampling import Sampler
from archlbr.recording.tracing import Tracer
from tests.machine.apart import apart

if TYPE_CHECKING:
    from pathlib import Path

ANY = 0x7F0005
STACK = 0x38000D
# Two blocks that jump to each other and one that calls: jmp +9; nine NOPs and jmp -20; call +0x10.
CODE = bytes.fromhex("eb09" + "90" * 9 + "90" * 9 + "ebea" + "e810000000")
A, B, CALL = (0, 2), (11, 11), (22, 5)
TID, OTHER = 4242, 4243


class Machine:
    """A sampler whose words see this code, and a hook to call."""

    def __init__(self, folder: Path, event: Event) -> None:
        self.sampler = Sampler(str(folder), branch_attr("branches", event.period), event)
        self.words = self.sampler.words
        self._code = np.frombuffer(bytearray(CODE + b"\x90" * 16), np.uint8)
        self.address = int(self._code.ctypes.data)
        self._decoder = Decoder()
        self._decoder.install(self.words)
        self.stops = 0
        self._stop = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(self._count_stop)
        self.words[at.EMU_STOP] = ctypes.cast(self._stop, ctypes.c_void_p).value
        self.words[at.DEADLINE] = 1 << 62
        self.words[at.LIMIT] = 0

    def _count_stop(self, _engine: int) -> int:
        self.stops += 1
        return 0

    def run(self, *blocks: tuple[int, int]) -> None:
        """Run blocks, then let the engine stop."""
        self.note(*blocks)
        self.sampler.settle()

    def note(self, *blocks: tuple[int, int]) -> None:
        """Run blocks; the engine goes on behind them."""
        for offset, size in blocks:
            journal.sampling.ctypes(
                0, self.address + offset, size, self.words.ctypes.data_as(ctypes.POINTER(ctypes.c_uint64))
            )

    @property
    def samples(self) -> list[tuple[int, int, int]]:
        """IP, time and number of entries of each sample in the buffer."""
        used = int(self.words[hooks.SAMPLES_USED])
        rows = self.words[hooks.SAMPLES_AT : hooks.SAMPLES_AT + used].reshape(-1, hooks.SAMPLE_ROW)
        return [(int(row[0]) - self.address, int(row[1]), int(row[2])) for row in rows]

    def __getitem__(self, name: int) -> int:
        return int(self.words[name])


def test_the_counter_of_branches(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Event(TAKEN, 5, ANY))
    assert (machine[hooks.NEXT_TAKEN], machine[hooks.NEXT_RETIRED]) == (5, hooks.NEVER)
    machine.run(*[A, B] * 13)  # A retires 1 instruction, B 10; a branch between two blocks
    assert (machine[at.TAKEN], machine[at.RETIRED]) == (25, 13 + 120)
    # The fifth branch is A's third: 3 x 1 + 2 x 10 instructions. Then every five more.
    assert machine.samples == [
        (B[0], 23, 5), (A[0], 55, 10), (B[0], 78, 15), (A[0], 110, 20), (B[0], 133, 25)
    ]  # fmt: skip
    assert machine[hooks.NEXT_TAKEN] == 30
    assert machine.stops == 0


@pytest.mark.parametrize(
    ("period", "times", "following"),
    [
        (7, [11, 22, 33, 44], 49),  # a block of ten is longer than the period: one sample a block at most
        (4, [11, 12, 22, 33, 44], 48),
        (11, [11, 22, 33, 44], 55),
        (25, [33], 50),
        (100, [], 100),
    ],
)
def test_the_counter_of_instructions(period: int, times: list[int], following: int, tmp_path: Path) -> None:
    machine = Machine(tmp_path, Event(RETIRED, period, ANY))
    assert (machine[hooks.NEXT_TAKEN], machine[hooks.NEXT_RETIRED]) == (hooks.NEVER, period)
    machine.run(*[A, B] * 4, A)  # the clock at the starts of blocks: 0 1 11 12 22 23 33 34 44
    assert machine[at.RETIRED] == 44
    assert [time for _, time, _ in machine.samples] == times
    assert machine[hooks.NEXT_RETIRED] == following


def test_a_full_buffer_stops_the_engine_and_loses_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Event(TAKEN, 1, ANY))
    rows = at.JOURNAL_ROWS
    room = hooks.SAMPLE_ROWS - rows  # what the buffer may hold and still take a sample for each row of a journal
    machine.note(A)
    assert (machine[at.LIMIT], machine.samples) == (rows, [])
    machine.note(*[B, A] * (room // 2))
    assert (len(machine.samples), machine.stops) == (room - room % rows, 0)
    machine.note(*[B, A] * (rows // 2))
    assert (len(machine.samples), machine.stops, machine[at.REASON]) == (room + rows, 1, at.REASON_FLUSH)
    assert machine[at.UNUSUAL] & at.UNUSUAL_REPEATED
    spool = tmp_path / "0.spool"
    before = spool.stat().st_size
    machine.sampler.flush()
    # Each record: header, IP, task, time, period and number of entries; up to 32 entries of 3 words.
    assert spool.stat().st_size - before == sum(8 * (6 + 3 * min(32, count)) for count in range(1, room + rows + 1))
    assert machine.samples == []
    taken = machine[at.TAKEN]
    machine.words[at.REASON] = machine.words[at.LIMIT] = 0  # as a run begins
    machine.note(A)  # the engine calls the hook again for the block that it stopped before
    assert (machine[at.TAKEN], machine.samples, machine[at.UNUSUAL]) == (taken, [], 0)
    machine.run(B)
    assert (machine[at.TAKEN], len(machine.samples)) == (taken + 1, 1)


def test_a_signal_and_the_end_of_a_slice_stop_the_engine(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Event(TAKEN, 1000, ANY))
    machine.note(A, B)
    assert (machine[at.LIMIT], machine[at.RETIRED]) == (at.JOURNAL_ROWS, 0)
    machine.words[at.SIGNALLED], machine.words[at.LIMIT] = 1, 0  # as the signal's handler does
    machine.note(A)
    assert (machine.stops, machine[at.REASON], machine[at.RETIRED]) == (1, at.REASON_SIGNAL, 11)
    machine.words[at.SIGNALLED] = machine.words[at.REASON] = 0
    machine.words[at.DEADLINE], machine.words[at.LIMIT] = 30, 0
    machine.note(A, B, A, B)  # the first is the one that was stopped
    assert (machine.stops, machine[at.LIMIT]) == (1, at.JOURNAL_ROWS)
    machine.note(*[A, B] * (at.JOURNAL_ROWS // 2))  # a slice ends where the journal is full
    assert (machine.stops, machine[at.REASON]) == (2, at.REASON_SLICE)
    assert machine[at.RETIRED] > 30


def test_writable_code_is_accounted_for_block_by_block(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Event(TAKEN, 1000, ANY))
    machine.words[at.UNUSUAL] = at.UNUSUAL_VOLATILE
    machine.note(A, B, A)
    assert (machine[at.LIMIT], machine[at.JOURNAL_USED], machine[at.RETIRED], machine[at.TAKEN]) == (0, 0, 11, 2)


def stack(machine: Machine) -> list[int]:
    """Return the FROM registers that hold something, through RDMSR, as offsets in the code."""
    from archlbr.lbr import compiled

    found = []
    for entry in range(32):
        _, value = compiled.rdmsr(machine.words[hooks.LBR_AT : hooks.LBR_END], np.uint64(0x1500 + entry))
        if value:
            found.append(int(value) - machine.address)
    return found


@pytest.mark.parametrize(("position", "counter"), [(TAKEN, hooks.NEXT_TAKEN), (RETIRED, hooks.NEXT_RETIRED)])
def test_each_thread_has_a_counter_of_its_own(position: int, counter: int, tmp_path: Path) -> None:
    machine = Machine(tmp_path, Event(position, 100, ANY))
    sampler = machine.sampler
    main = sampler._tid
    machine.run(A, B, A, B)  # three branches, twelve instructions
    so_far = 3 if position == TAKEN else 12
    sampler.switch_out(main)
    machine.words[at.CURRENT] = 0
    sampler.thread_started(TID, main)
    sampler.switch_in(TID)
    assert stack(machine) == []
    assert machine[counter] == so_far + 100
    machine.run(A, B)  # one branch, one instruction
    sampler.switch_out(TID)
    machine.words[at.CURRENT] = 0
    sampler.switch_in(main)
    # The first thread goes on where it was: 100 less what it had counted, from now on.
    assert machine[counter] == so_far + 1 + 100 - so_far
    sampler.switch_out(main)
    sampler.switch_in(TID)
    assert machine[counter] == so_far + 1 + 99
    sampler.switch_in(TID)  # no switch at all
    assert machine[counter] == so_far + 1 + 99
    sampler.switch_out(TID)
    sampler.thread_ended(TID)
    sampler.switch_in(OTHER)
    assert machine[counter] == so_far + 1 + 100


@pytest.mark.parametrize(("ctl", "kept"), [(STACK, [CALL[0]]), (ANY, [])])
def test_only_a_call_stack_outlives_a_switch(ctl: int, kept: list[int], tmp_path: Path) -> None:
    """intel_pmu_lbr_sched_task(): the registers are saved in call-stack mode and reset otherwise."""
    machine = Machine(tmp_path, Event(TAKEN, 100, ctl))
    main = machine.sampler._tid
    machine.run(CALL, A)
    assert stack(machine) == [CALL[0]]
    machine.sampler.switch_out(main)
    machine.words[at.CURRENT] = 0
    machine.sampler.switch_in(TID)
    assert stack(machine) == []
    machine.sampler.switch_out(TID)
    machine.sampler.switch_in(main)
    assert stack(machine) == kept


@pytest.mark.parametrize("kind", ["spool", "trace"])
def test_files_are_named_as_the_processes_descend(kind: str, tmp_path: Path) -> None:
    def start() -> Sampler | Tracer:
        if kind == "trace":
            return Tracer(str(tmp_path))
        return Sampler(str(tmp_path), branch_attr("branches", 9), Event(TAKEN, 9, ANY))

    recorder = start()

    def child(pid: int, then: int) -> None:
        recorder.forked(1000, pid)
        for grandchild in range(then):
            recorder.forking()
            apart(partial(child, pid + 10 + grandchild, 0))
        recorder.finish()

    recorder.forking()
    apart(partial(child, 2000, 2))
    recorder.forking()
    apart(partial(child, 3000, 0))
    recorder.finish()
    names = sorted(path.name for path in tmp_path.iterdir() if path.suffix == f".{kind}")
    assert names == [
        f"0.000001.000001.{kind}", f"0.000001.000002.{kind}", f"0.000001.{kind}", f"0.000002.{kind}", f"0.{kind}"
    ]  # fmt: skip


def test_a_child_starts_over(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Event(TAKEN, 10, ANY))
    machine.run(*[A, B] * 6)
    assert (machine[at.TAKEN], len(machine.samples)) == (11, 1)
    machine.sampler.forking()
    assert machine.samples == []  # the parent's own are written before
    size = (tmp_path / "0.spool").stat().st_size
    machine.run(A)

    def child() -> tuple[int, list[int], list[object]]:
        machine.sampler.forked(1000, 2000)
        machine.words[at.CURRENT] = 0
        return machine[hooks.NEXT_TAKEN], stack(machine), list(machine.samples)

    assert apart(child) == (12 + 10, [], [])
    assert machine[hooks.NEXT_TAKEN] == 20
    assert (tmp_path / "0.spool").stat().st_size == size


def test_the_registers_are_programmed_as_perf_does(tmp_path: Path) -> None:
    from archlbr.lbr import compiled

    machine = Machine(tmp_path, Event(TAKEN, 10, ANY))
    registers = machine.words[hooks.LBR_AT : hooks.LBR_END]
    read = {
        index: int(compiled.rdmsr(registers, np.uint64(index))[1])
        for index in (msrs.IA32_LBR_CTL.index, msrs.IA32_LBR_DEPTH.index, msrs.IA32_DEBUGCTL.index)
    }
    assert read == {0x14CE: ANY, 0x14CF: 32, 0x1D9: 1 << 11}
    machine.run(A, B)
    assert stack(machine) == [A[0]]
    machine.sampler.named(TID, b"other", True)  # execve: what was recorded was another program's
    assert stack(machine) == []
