"""BOLT reads our files, finds nothing wrong in them, and the program it makes of them still works."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from archlbr.profile import text
from archlbr.profile.perfdata.attr import branch_attr
from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.perfdata.spool import Spool, merge
from archlbr.profile.perfdata.writer import Writer
from tests.foreign.conftest import PERIOD, ROUNDS
from tests.foreign.tools import need, run, versions
from tests.foreign.truth import PID, Snapshots, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.foreign.conftest import Profiled

pytestmark = pytest.mark.foreign


def aggregate(perf2bolt: Path, profiled: Profiled, *words: str | Path) -> tuple[list[str], str]:
    """Return the lines of the .fdata file perf2bolt writes, and what it said."""
    out = profiled.folder / "hot.fdata"
    done = run([perf2bolt, profiled.program, *words, "-o", out], profiled.folder)
    raw = out.read_bytes()
    # A driver under the wrong name writes an ELF file here and reports success.
    assert not raw.startswith(b"\x7fELF")
    return raw.decode("ascii").splitlines(), done.stdout + done.stderr


def traces(said: str, kind: str) -> int:
    """Return the number of traces that perf2bolt counted as `kind`."""
    return int(re.search(kind + r"[^:]*: (\d+) \(", said, re.IGNORECASE).group(1))


def foreign_pairs(profiled: Profiled) -> int:
    """Return how many straight lines of the snapshots lie outside the program's own file."""
    image = next(row for row in profiled.trace.mappings if row.path == str(profiled.program))
    low, high = np.uint64(image.start), np.uint64(image.start + image.length)
    targets = profiled.shots.stacks[:, 1:, 1]
    outside = (targets < low) | (targets >= high)
    return int((outside & (targets != 0)).sum())


@pytest.mark.parametrize("perf2bolt", versions("perf2bolt"))
def test_no_trace_contradicts_the_program(fresh: Profiled, perf2bolt: Path) -> None:
    need("perf")
    _, said = aggregate(perf2bolt, fresh, "-p", fresh.data)
    assert f"read {len(fresh.shots.at)} samples and {int(fresh.shots.counts.sum())} LBR entries" in said
    assert "input binary is associated with 1 PID(s)" in said
    assert "misprediction bit is missing" not in said
    assert "build-id will not be checked" not in said
    assert traces(said, "traces mismatching") == 0
    # What ran in the C library is out of the program's range, and nothing else is.
    assert traces(said, "out of range traces") == foreign_pairs(fresh)


@pytest.mark.parametrize("perf2bolt", versions("perf2bolt"))
def test_the_optimised_program_prints_the_same(fresh: Profiled, perf2bolt: Path) -> None:
    need("perf")
    lines, _ = aggregate(perf2bolt, fresh, "-p", fresh.data)
    assert lines
    optimised = fresh.folder / "hot.bolt"
    options = ["-reorder-blocks=ext-tsp", "-reorder-functions=hfsort", "-split-functions", "-dyno-stats"]
    done = run(
        [
            perf2bolt.with_name("llvm-bolt"),
            fresh.program,
            "-o",
            optimised,
            "-data",
            fresh.folder / "hot.fdata",
            *options,
        ],
        fresh.folder,
    )
    assert re.search(r"basic block reordering modified layout of [1-9]\d* functions", done.stdout + done.stderr)
    assert run([optimised, ROUNDS], fresh.folder).stdout == fresh.trace.output
    assert run([optimised, "5000"], fresh.folder).stdout == run([fresh.program, "5000"], fresh.folder).stdout


@pytest.mark.parametrize("perf2bolt", versions("perf2bolt"))
def test_preaggregated_text_says_the_same_as_the_file(fresh: Profiled, perf2bolt: Path) -> None:
    need("perf")
    lines, _ = aggregate(perf2bolt, fresh, "-p", fresh.data)
    with Reader(fresh.data) as profile:
        rows = list(text.preaggregated(profile, str(fresh.program)))
    (fresh.folder / "hot.preagg").write_text("".join(rows))
    ours, said = aggregate(perf2bolt, fresh, "-pa", "-p", fresh.folder / "hot.preagg")
    assert sorted(ours) == sorted(lines)
    # The stubs of the procedure linkage table have no control flow of their own for BOLT.
    with fresh.program.open("rb") as file:
        stubs = [
            range(part["sh_addr"], part["sh_addr"] + part["sh_size"])
            for part in ELFFile(file).iter_sections()
            if part.name.startswith(".plt")
        ]
    ranges = [row.split() for row in rows if row[0] in "Ff"]
    in_stubs = sum(int(row[3]) for row in ranges if any(int(row[1], 16) in stub for stub in stubs))
    assert traces(said, "traces mismatching") == in_stubs
    assert traces(said, "out of range traces") == 0


@pytest.mark.parametrize("perf2bolt", versions("perf2bolt"))
def test_stacks_written_oldest_first_would_be_noticed(fresh: Profiled, perf2bolt: Path) -> None:
    """perf's own totals do not change when stacks are reversed; BOLT's verdict does, so it can be trusted above."""
    need("perf")
    full = fresh.shots.counts == fresh.shots.stacks.shape[1]
    turned = Snapshots(
        np.ascontiguousarray(fresh.shots.stacks[full][:, ::-1]), fresh.shots.counts[full], fresh.shots.at[full]
    )
    write(fresh.data, fresh.trace, turned, PERIOD)
    _, said = aggregate(perf2bolt, fresh, "-p", fresh.data)
    assert traces(said, "traces mismatching") > 0.1 * int(turned.counts.sum())


@pytest.mark.parametrize("perf2bolt", versions("perf2bolt"))
def test_a_forked_child_s_samples_count_too(fresh: Profiled, perf2bolt: Path) -> None:
    """Two processes, each with a spool of its own; the child has its mappings by inheritance alone."""
    need("perf")
    attr = branch_attr("branches:u", PERIOD)
    shots, half = fresh.shots, len(fresh.shots.at) // 2
    times = (shots.at.astype(np.uint64) + np.uint64(1)) * np.uint64(5000)
    spools = [fresh.folder / "parent.spool", fresh.folder / "child.spool"]
    parent = Spool(spools[0], attr)
    parent.comm(PID, PID, 0, "hot", exec=True)
    for mapping in fresh.trace.mappings:
        parent.mmap2(PID, PID, 0, mapping)
    child = parent.forked(spools[1], PID + 1, PID + 1, PID, PID, 0)
    parent = Spool(spools[0], attr, after=parent.timeline.last)
    for spool, pid, part in ((parent, PID, slice(None, half)), (child, PID + 1, slice(half, None))):
        stacks = shots.stacks[part]
        spool.samples(pid, pid, times[part], stacks[:, 0, 1], PERIOD, stacks, shots.counts[part])
    whole, _ = aggregate(perf2bolt, fresh, "-p", fresh.data)
    with Writer(fresh.data, attr) as profile:
        merge(spools, profile)
    lines, said = aggregate(perf2bolt, fresh, "-p", fresh.data)
    assert "input binary is associated with 2 PID(s)" in said
    assert sorted(lines) == sorted(whole)
