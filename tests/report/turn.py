"""A program laid down by hand, and profiles of it whose every count, address and symbol is known."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import numpy as np

from archlbr.profile.perfdata.attr import BRANCH_ANY, BRANCH_USER, branch_attr
from archlbr.profile.perfdata.features import About
from archlbr.profile.perfdata.writer import Writer
from archlbr.profile.stack import Mapping

if TYPE_CHECKING:
    from pathlib import Path

# `inner` starts at 0x401000, `outer` at 0x401010; the text segment is mapped from file offset 0x1000. The lines are the
# assembler's own: -g gives each instruction that of its source.
SOURCE = """
.globl _start, inner
.type inner, @function
.text
inner: dec %ecx
  jnz inner
  ret
  .balign 16, 0x90
.size inner, 5
.type outer, @function
outer:
_start: mov $3, %ecx
  call inner
  jmp outer
.size outer, 12
"""
LOOP, RETURN, CALL, JUMP = 0x401002, 0x401004, 0x401015, 0x40101A
COND, REL_JMP, REL_CALL, RET = 0x0 << 56, 0x2 << 56, 0x4 << 56, 0x5 << 56
MISPREDICTED = 1 << 63
TIMED = 1 << 60
# One turn, newest first: the jump back, the return, two turns of the loop, the call.
TURN = [
    (JUMP, 0x401010, REL_JMP),
    (RETURN, 0x40101A, RET | MISPREDICTED),
    (LOOP, 0x401000, COND),
    (LOOP, 0x401000, COND | MISPREDICTED),
    (CALL, 0x401000, REL_CALL),
]


def compiled(folder: Path, *flags: str) -> Path:
    """Build the program."""
    source, program = folder / "turn.s", folder / "turn"
    source.write_text(SOURCE)
    subprocess.run(
        [
            "gcc",
            "-nostdlib",
            "-static",
            "-no-pie",
            "-Wl,-Ttext=0x401000,--build-id=none",
            *flags,
            "-o",
            program,
            source,
        ],
        check=True,
    )
    return program


def profile(
    folder: Path,
    program: Path,
    stacks: list[list[tuple[int, int, int]]],
    *,
    branches: int = BRANCH_USER | BRANCH_ANY,
    name: str = "perf.data",
    ip: int = 0x401010,
    build_id: bytes = b"",
) -> str:
    """Write a profile of samples with these stacks and return its name."""
    out = str(folder / name)
    with Writer(out, branch_attr("branches", 5, branches), About(command_line=("archlbr", "record", "turn"))) as writer:
        writer.comm(7, 7, 1, "turn", exec=True)
        writer.mmap2(7, 7, 2, Mapping(0x401000, 0x1000, 0x1000, str(program), build_id))
        deepest = max(map(len, stacks))
        rows = np.zeros((len(stacks), deepest, 3), dtype=np.uint64)
        for index, stack in enumerate(stacks):
            rows[index, : len(stack)] = np.array(stack, dtype=np.uint64).reshape(-1, 3)
        times = np.arange(10, 10 + len(stacks), dtype=np.uint64)
        writer.samples(
            7, 7, times, np.full(len(stacks), ip, np.uint64), 5, rows, np.array([len(stack) for stack in stacks])
        )
    return out
