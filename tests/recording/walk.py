"""What a recording must hold, worked out from an exact trace alone: one instruction after the other, in pure Python.

The trace gives every taken branch; the program's file gives the instructions between two of them. Each goes into the
pure predictor and the pure facility, so that at any clock the branch stack is known. Shares no code with the compiled
hooks, the table of blocks or the decoder in front of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import capstone
from capstone import x86_const as x86
from elftools.elf.elffile import ELFFile

from archlbr.arch.branches import BranchKind as Kind
from archlbr.arch.cpuid import GOLDEN_COVE
from archlbr.cpu import predictor
from archlbr.lbr.actions import Branch, Pmi, Thaw, Wrmsr
from archlbr.lbr.state import architectural, initial
from archlbr.lbr.step import step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.oracle.traces import Trace

KERNEL = 0xFFFFFFFF81000000
CTL, DEPTH, DEBUGCTL = 0x14CE, 0x14CF, 0x1D9
FREEZE_LBRS_ON_PMI = 1 << 11
# IA32_LBR_x_INFO[59:56] to PERF_BR_*: COND, IND, UNCOND, IND_CALL, CALL, RET; far ones are UNKNOWN
# (architecture.md 6.3).
PERF_TYPE = {0: 1, 1: 3, 2: 2, 3: 5, 4: 4, 5: 6}


class Instruction(NamedTuple):
    """What an instruction is for the walk."""

    size: int
    conditional: bool
    syscall: bool


class Program:
    """A static program's code."""

    def __init__(self, path: Path) -> None:
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._decoder.detail = True
        self._known: dict[int, Instruction] = {}
        with path.open("rb") as file:
            elf = ELFFile(file)
            self.entry: int = elf["e_entry"]
            self._code = [
                (segment["p_vaddr"], segment.data())
                for segment in elf.iter_segments()
                if segment["p_type"] == "PT_LOAD" and segment["p_flags"] & 1
            ]

    def at(self, address: int) -> Instruction:
        if address not in self._known:
            base, data = next(row for row in self._code if row[0] <= address < row[0] + len(row[1]))
            code = data[address - base : address - base + 16]
            instruction = next(self._decoder.disasm(code, address, 1))
            relative = capstone.CS_GRP_BRANCH_RELATIVE in instruction.groups
            jumps = capstone.CS_GRP_JUMP in instruction.groups and relative
            plain = instruction.id in (x86.X86_INS_JMP, x86.X86_INS_CALL, x86.X86_INS_XBEGIN)
            self._known[address] = Instruction(
                instruction.size, jumps and not plain, instruction.id == x86.X86_INS_SYSCALL
            )
        return self._known[address]


class Event(NamedTuple):
    """What the facility is told: a branch, and whether the counter of taken branches counts it."""

    branch: Branch
    counted: int


def events(program: Program, trace: Trace) -> Iterator[Event]:
    """Yield the branches with their clocks and mispredictions, the kernel's returns between them."""
    (records,) = trace.threads
    core = predictor.Predictor()
    clock, pc = 0, program.entry
    for source, target, name in records:
        while True:
            clock += 1
            instruction = program.at(pc)
            after = pc + instruction.size
            if pc == source:
                break
            assert pc < source, f"{pc:#x} lies after the branch at {source:#x}"
            if instruction.conditional:
                core, _ = predictor.step(core, Kind.COND, pc, after, after, 0)
            if instruction.syscall:
                yield Event(Branch(KERNEL, after, Kind.OTHER, 0, 3, clock), 0)
            pc = after
        kind = Kind[name]
        core, missed = predictor.step(core, kind, source, target, after, 1)
        yield Event(Branch(source, target, kind, 3, 3, clock, missed), int(kind != Kind.OTHER))
        pc = target


class Stack(NamedTuple):
    """An entry of a sample as perf has it: struct perf_branch_entry."""

    source: int
    target: int
    flags: int


def perf_entry(source: int, target: int, info: int) -> Stack:
    """Return what the kernel makes of a record (intel_pmu_store_lbr in arch/x86/events/intel/lbr.c)."""
    missed = info >> 63
    cycles = info & 0xFFFF if info >> 60 & 1 else 0
    kind = PERF_TYPE.get(info >> 56 & 15, 0)
    return Stack(source, target, missed | (1 - missed) << 1 | cycles << 4 | kind << 20)


class Recomputed:
    """The facility as `record` programs it, fed by a walk; samples are taken where they are asked for."""

    def __init__(self, program: Program, trace: Trace, ctl: int) -> None:
        self._program, self._trace = program, trace
        self._facility = architectural(GOLDEN_COVE, 5)
        self._state = initial(self._facility)
        for msr, value in ((DEPTH, 32), (DEBUGCTL, FREEZE_LBRS_ON_PMI), (CTL, ctl)):
            self._act(Wrmsr(msr, value))
        self._events = events(program, trace)
        self._next = next(self._events, None)
        self.taken = 0
        self.clock = 0

    def _act(self, action: object) -> None:
        self._state, _ = step(self._facility, self._state, action)

    def advance(self, clock: int) -> None:
        """Let everything happen up to a clock."""
        while self._next is not None and self._next.branch.clock <= clock:
            self._one()

    def advance_to_count(self, taken: int) -> None:
        """Let everything happen up to a number of taken branches."""
        while self._next is not None and self.taken < taken:
            self._one()

    @property
    def total(self) -> int:
        """The instructions of the whole run: after the last branch, straight on to the call that ends the program."""
        whole = list(events(self._program, self._trace))
        count, pc = whole[-1].branch.clock, whole[-1].branch.target
        while True:
            count += 1
            instruction = self._program.at(pc)
            if instruction.syscall:
                return count
            pc += instruction.size

    def _one(self) -> None:
        assert self._next is not None
        self._act(self._next.branch)
        self.taken += self._next.counted
        self.clock = self._next.branch.clock
        self._next = next(self._events, None)

    def sample(self) -> list[Stack]:
        """Freeze, read, thaw; entries that touch the kernel are not the user's to see."""
        self._act(Pmi())
        entries = []
        for entry in self._state.stack:
            if entry.source == 0:
                break
            if not (entry.source | entry.target) >> 63:
                entries.append(perf_entry(*entry))
        self._act(Thaw())
        return entries
