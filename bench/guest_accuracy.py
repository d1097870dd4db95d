"""What the event of the period does to a profile that a guest's own perf records.

    python -m bench.guest_accuracy [--write]

perf runs in the Linux guest while the board traces the same run from outside (`tests/machine/guest_session.py`). A
counter of taken branches draws every taken branch alike; one of all branches draws those more often that stand among
many that are not taken. How often follows from the trace and the program's own code: the last column but one is the
profile that the event must give, and the last how near the guest's came to it. `--write` puts the table into
docs/accuracy.md.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import capstone
import numpy as np
from elftools.elf.elffile import ELFFile
from tests.guests.linux import FOLDER
from tests.machine.guest_session import boot

from archlbr.arch.branches import BranchKind
from archlbr.profile.edges import count_edges
from archlbr.profile.overlap import overlap
from archlbr.profile.perfdata.reader import Reader
from bench.figures import put

if TYPE_CHECKING:
    from archlbr.profile.edges import EdgeTable
    from archlbr.profile.stack import Words

DOCUMENT = Path(__file__).parent.parent / "docs" / "accuracy.md"
MARKS = ("<!-- guest: begin -->", "<!-- guest: end -->")
PERIOD, DEPTH = 10007, 32
TAKEN, ALL = "r20c4:u", "branches:u"
JOBS = {
    "mixed": (f"-b -e {ALL} -c {PERIOD}", "interpreter 8"),
    "mixedtaken": (f"-b -e {TAKEN} -c {PERIOD}", "interpreter 8"),
    "phases": (f"-b -e {ALL} -c {PERIOD}", "program 8"),
    "phasestaken": (f"-b -e {TAKEN} -c {PERIOD}", "program 8"),
}
SOURCES = {"interpreter": "tests/guests/interpreter.c", "program": "tests/guests/kernel.c"}


def untaken(program: Path, rows: Words) -> Words:
    """Return how many conditional branches fell through between each taken branch and the next."""
    code = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    stretches, which = np.unique(np.stack([rows[:-1, 1], rows[1:, 0]], axis=1), axis=0, return_inverse=True)
    with program.open("rb") as file:
        text = ELFFile(file).get_section_by_name(".text")
        start, content = text["sh_addr"], text.data()
    counts = []
    for low, high in stretches.tolist():
        inside = start <= low <= high < start + len(content)
        found = code.disasm_lite(content[low - start : high - start + 15], low) if inside else ()
        names = [name for address, _, name, _ in found if address < high]
        counts.append(sum(name[0] == "j" and name != "jmp" for name in names))
    return np.append(np.array(counts, dtype=np.uint64)[which.reshape(-1)], np.uint64(0))


def expected(program: Path, rows: Words) -> EdgeTable:
    """Return the edges that samples drawn by every branch, taken or not, must show."""
    # A taken branch is in the stacks of all samples that fall before the DEPTHth taken branch behind it.
    events = untaken(program, rows) + np.uint64(1)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(events)])
    ends = np.minimum(np.arange(len(rows)) + DEPTH, len(rows))
    weights = sums[ends] - sums[:-1]
    table = count_edges(rows[:, 0], rows[:, 1])
    keys = {edge: index for index, edge in enumerate(zip(table["from"].tolist(), table["to"].tolist(), strict=True))}
    edges, which = np.unique(rows[:, :2], axis=0, return_inverse=True)
    totals = np.bincount(which.reshape(-1), weights=weights.astype(np.float64))
    for (source, target), total in zip(edges.tolist(), totals.tolist(), strict=True):
        table["count"][keys[source, target]] = round(total)
    return table


def sampled(path: Path) -> tuple[int, EdgeTable]:
    """Return a profile's samples and its edges."""
    sources, targets, samples = [], [], 0
    with Reader(path) as profile:
        for batch in profile.samples():
            samples += len(batch)
            sources.append(batch.entries["from"].copy())
            targets.append(batch.entries["to"].copy())
    return samples, count_edges(np.concatenate(sources), np.concatenate(targets))


def table() -> str:
    """Record, compare, and return the table."""
    lines = [
        "| program | event | branches taken | not taken, a taken one | samples | overlap | the event's own | to that |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(prefix="archlbr-accuracy-") as name:
        guest = boot(Path(name), JOBS)
        for job, (words, command) in JOBS.items():
            program = command.split()[0]
            event = TAKEN if TAKEN in words else ALL
            rows = np.concatenate(guest.traces[job])
            rows = rows[rows[:, 2] != int(BranchKind.OTHER)]
            exact = count_edges(rows[:, 0], rows[:, 1])
            samples, found = sampled(guest.folder / f"{job}.data")
            own = expected(FOLDER / program, rows) if event == ALL else exact
            share = untaken(FOLDER / program, rows).mean()
            lines.append(
                f"| `{SOURCES[program]}` | `{event}` | {len(rows):,} | {share:.2f} | {samples:,} "
                f"| {overlap(exact, found):.3f} | {overlap(exact, own):.3f} | {overlap(own, found):.3f} |"
            )
    return "\n".join(lines)


def main(words: list[str]) -> None:
    """Measure and print, or write the table into the document."""
    measured = table()
    if "--write" not in words:
        print(measured)
        return
    put(DOCUMENT, MARKS, measured)


if __name__ == "__main__":
    main(sys.argv[1:])
