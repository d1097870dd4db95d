"""Periods drawn at random: the generator against plain integers, and what it does to a loop the period divides."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from archlbr.machine import hooks
from archlbr.recording.sampling import JITTER_SEED
from tests.cli.recording import archlbr, run, script_edges

if TYPE_CHECKING:
    from pathlib import Path

MASK = (1 << 64) - 1
ROUNDS = 2000
# A round takes ten branches: nine jumps to the next instruction and the loop's own.
LOOP = f"""
.globl _start
_start: mov ${ROUNDS}, %ecx
round:
{"".join(f"  jmp 1f{chr(10)}1:{chr(10)}" for _ in range(9))}
  dec %ecx
  jnz round
  xor %edi, %edi
  mov $60, %eax
  syscall
"""


def test_the_jitter_is_marsaglia_s_xorshift_in_its_range() -> None:
    words = np.zeros(hooks.SAMPLING_WORDS, np.uint64)
    words[hooks.JITTER], words[hooks.JITTER_STATE] = 200, JITTER_SEED
    state, expected = JITTER_SEED, []
    for _ in range(2000):
        state ^= state << 13 & MASK
        state ^= state >> 7
        state ^= state << 17 & MASK
        expected.append(state % 201)
    drawn = [int(hooks.next_jitter(words)) for _ in range(2000)]
    assert drawn == expected
    assert (min(drawn), max(drawn)) == (0, 200)


def test_without_jitter_nothing_is_drawn() -> None:
    words = np.zeros(hooks.SAMPLING_WORDS, np.uint64)
    words[hooks.JITTER_STATE] = JITTER_SEED
    assert int(hooks.next_jitter(words)) == 0
    assert int(words[hooks.JITTER_STATE]) == JITTER_SEED


def edges(program: Path, out: Path, *options: str) -> dict[tuple[int, int], int]:
    """Return the newest branch of each sample, counted: what a stack of depth 1 sees."""
    ended = run(archlbr("record", "--engine", "unicorn", *options, "--format", "script", "-o", out, "--", program))
    assert ended.status == 0, ended.err
    newest = "\n".join(" ".join(line.split()[:2]) for line in out.read_text().splitlines() if "PERF_" not in line)
    return script_edges(newest)


@pytest.mark.parametrize("event", ["branches", "instructions"])
def test_a_period_that_divides_a_loop_sees_one_branch_and_with_jitter_all(event: str, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: no loop to record")
    (tmp_path / "loop.s").write_text(LOOP)
    program = tmp_path / "loop"
    subprocess.run(["gcc", "-nostdlib", "-static-pie", "-o", program, tmp_path / "loop.s"], check=True)
    # Ten branches a round, eleven instructions.
    period = {"branches": "100", "instructions": "110"}[event]
    fixed = edges(program, tmp_path / "out", "-e", event, "-c", period)
    drawn = edges(program, tmp_path / "out", "-e", event, "-c", period, "--period-jitter", "40")
    # The first instructions stand before the loop, so that the first sample may be another.
    assert max(fixed.values()) >= 199
    assert 199 <= sum(fixed.values()) <= 200
    assert len(drawn) == 10
    # The mean is the period: 200 samples, to within four deviations of a sum of 200 uniform draws of 41 numbers.
    assert abs(sum(drawn.values()) - 200) <= 7
    again = edges(program, tmp_path / "again", "-e", event, "-c", period, "--period-jitter", "40")
    assert sorted(again.values()) == sorted(drawn.values())


def test_a_jitter_that_reaches_0_is_refused(tmp_path: Path) -> None:
    ended = run(archlbr("record", "-c", "10", "--period-jitter", "20", "-o", tmp_path / "out", "--", "true"))
    assert (ended.status, ended.err) == (
        2,
        b"archlbr: a jitter of 20 around a period of 10 reaches 0: take at most 19\n",
    )
