"""How near sampled profiles come to the truth, on five Debian programs.

    python -m bench.accuracy [--quick] [--write]

Each program runs once under `trace`, which lists every branch, and once a period under `record`; both are counted as
(file, offset) edges and compared. A shallower stack is the newest entries of a deeper one, so that one recording
serves all depths. Call stacks come from a run in call-stack mode, and the truth from the calls and returns of the
trace, at the same branch. Prints the tables of docs/accuracy.md; `--write` puts them into that file.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from bench.accuracy_programs import PERIODS, PROGRAMS, Program, alias_program, lay_out_inputs
from bench.accuracy_truth import StackComparison, Truth, compare, compare_stacks, record, trace
from bench.figures import put

DEPTHS = (1, 8, 32)
STACK_PERIOD = 10007
_ATTEMPTS = 3
MARKS = ("<!-- measured: begin -->", "<!-- measured: end -->")
DOCUMENT = Path(__file__).parent.parent / "docs" / "accuracy.md"


class Row(NamedTuple):
    """One line of the table of edges."""

    program: str
    branches: int
    edges: int
    period: int
    samples: int
    depth: int
    overlap: float
    error: float
    coverage: float
    seen: int


def edge_rows(program: Program, truth: Truth, folder: Path, periods: tuple[int, ...]) -> list[Row]:
    """Return the comparison of one program at each period and depth."""
    rows = []
    for period in periods:
        data = record(program.words, folder / "perf.data", period)
        for depth in DEPTHS:
            found = compare(truth, data, depth)
            rows.append(
                Row(
                    program.name,
                    truth.branches,
                    len(truth.edges),
                    period,
                    found.samples,
                    depth,
                    found.overlap,
                    2 * (1 - found.overlap),
                    found.coverage,
                    found.seen,
                )
            )
    return rows


def stack_run(program: Program, folder: Path) -> tuple[Truth, StackComparison]:
    """Return a program's trace, and how its call stacks compare with it at the same branches.

    A program that hashes addresses takes other branches when code of ours was compiled in between, as the first run of
    a new version does, and has moved its memory: then it is run again.
    """
    for _ in range(_ATTEMPTS):
        truth = trace(program.words, folder, stacks_every=STACK_PERIOD)
        data = record(program.words, folder / "perf.data", STACK_PERIOD, branches="stack")
        found = compare_stacks(truth, data)
        if found.aligned == 1:
            break
    return truth, found


def alias_rows(folder: Path) -> list[tuple[str, int, float, float, int, int]]:
    """Return, for a loop of a thousand branches a round, what a period that divides it sees, and what others see."""
    program = alias_program(folder)
    truth = trace(program.words, folder)
    rows = []
    for name, period, jitter in (
        ("1000: the loop's own length", 1000, 0),
        ("1000, `--period-jitter 200`", 1000, 200),
        ("1009: a prime", 1009, 0),
    ):
        found = compare(truth, record(program.words, folder / "perf.data", period, jitter=jitter), 32)
        rows.append((name, found.samples, found.overlap, found.coverage, found.seen, len(truth.edges)))
    return rows


def tables(quick: bool) -> str:
    """Measure everything and return the Markdown of the three tables."""
    edges: list[Row] = []
    stacks: list[tuple[str, int, float, float, float, float]] = []
    with tempfile.TemporaryDirectory(prefix="archlbr-accuracy-") as name:
        folder = Path(name)
        inputs = lay_out_inputs(folder, quick)
        for template in PROGRAMS:
            if shutil.which(template.words[0]) is None:
                print(f"left out: {template.words[0]} is not installed", file=sys.stderr)
                continue
            program = template.filled(inputs)
            print(f"{program.name}: the exact trace and {len(PERIODS) + 1} recordings", file=sys.stderr)
            truth, found = stack_run(program, folder)
            edges += edge_rows(program, truth, folder, PERIODS)
            stacks.append((program.name, found.samples, found.aligned, found.precision, found.recall, found.whole))
        print("aliasing: a trace and three recordings", file=sys.stderr)
        aliases = alias_rows(folder)
    return "\n".join([*_edge_table(edges), "", *_stack_table(stacks), "", *_alias_table(aliases)])


def _edge_table(rows: list[Row]) -> list[str]:
    lines = [
        "| program | branches | period | samples | depth | overlap | edge error | coverage | edges seen |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.program} | {row.branches:,} | {row.period} | {row.samples:,} | {row.depth} | {row.overlap:.3f} "
        f"| {row.error:.3f} | {row.coverage:.1%} | {row.seen:,} of {row.edges:,} |"
        for row in rows
    ]
    return lines


def _stack_table(rows: list[tuple[str, int, float, float, float, float]]) -> list[str]:
    lines = [
        "| program | samples | at the same branch | of its frames right | of true frames seen | whole stacks right |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {samples:,} | {aligned:.1%} | {precision:.1%} | {recall:.1%} | {whole:.1%} |"
        for name, samples, aligned, precision, recall, whole in rows
    ]
    return lines


def _alias_table(rows: list[tuple[str, int, float, float, int, int]]) -> list[str]:
    lines = ["| period | samples | overlap | coverage | edges seen |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {samples:,} | {overlap:.3f} | {coverage:.1%} | {seen:,} of {edges:,} |"
        for name, samples, overlap, coverage, seen, edges in rows
    ]
    return lines


def main(words: list[str]) -> None:
    """Measure and print, or write the tables into the document."""
    measured = tables("--quick" in words)
    if "--write" not in words:
        print(measured)
        return
    put(DOCUMENT, MARKS, measured)


if __name__ == "__main__":
    main(sys.argv[1:])
