"""Every sample of a recording against the exact trace: its clock, its place, each entry, and what INFO says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.stack import Comm, Mmap
from tests.cli.recording import archlbr, record, run, stats
from tests.oracle.traces import Trace, read_trace
from tests.recording.walk import Program, Recomputed, Stack

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests

# IA32_LBR_CTL for perf's filters, LBREn and USR always (architecture.md 2 and 6.2): COND 16, REL_JMP 17, IND_JMP 18,
# REL_CALL 19, IND_CALL 20, RET 21, OTHER 22.
CONTROLS = {
    "any": 0x7F0005,
    "cond": 0x010005,
    "any_call": 0x580005,
    "any_ret": 0x600005,
    "ind_call": 0x100005,
    "ind_jmp,call": 0x0C0005,
    "stack": 0x38000D,
}


class Sample(NamedTuple):
    ip: int
    time: int
    period: int
    entries: list[Stack]


def samples_of(path: Path) -> list[Sample]:
    found = []
    with Reader(path) as reader:
        for batch in reader.samples():
            for index in range(len(batch)):
                rows = [Stack(*(int(word) for word in row)) for row in batch.stack(index).tolist()]
                found.append(Sample(int(batch.ip[index]), int(batch.time[index]), int(batch.period[index]), rows))
    return found


def sideband_end(path: Path) -> int:
    """Return the time of the last record before the samples: a sample that would not come after it is moved on."""
    with Reader(path) as reader:
        return max(row.time for row in reader.sideband() if isinstance(row, Comm | Mmap))


class Exact(NamedTuple):
    program: Program
    trace: Trace
    path: Path


@pytest.fixture(scope="module", params=["kmini", "zoo", "hello_static"])
def exact(request: pytest.FixtureRequest, guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Exact:
    path: Path = getattr(guests, request.param)
    out = tmp_path_factory.mktemp("exact") / "trace"
    run(archlbr("trace", "-o", out, "--", path))
    return Exact(Program(path), read_trace(out), path)


def recorded(exact: Exact, out: Path, *options: str) -> list[Sample]:
    ended = record("-o", out, *options, "--", exact.path)
    assert ended.err == b""
    return samples_of(out)


@pytest.mark.parametrize(
    ("branches", "period"), [("any", 97), ("any", 1), ("cond", 53), ("any_call", 89), ("any_ret", 101),
                             ("ind_call", 61), ("ind_jmp,call", 71), ("stack", 83)]
)  # fmt: skip
def test_a_sample_every_so_many_branches(branches: str, period: int, exact: Exact, tmp_path: Path) -> None:
    (records,) = exact.trace.threads
    near = [row for row in records if row.kind != "OTHER"]
    samples = recorded(exact, tmp_path / "perf.data", "-j", branches, "-c", str(period))
    assert len(samples) == len(near) // period > 0
    facility = Recomputed(exact.program, exact.trace, CONTROLS[branches])
    last = sideband_end(tmp_path / "perf.data")
    ends = [index for index, row in enumerate(records) if row.kind != "OTHER"]
    for number, sample in enumerate(samples, 1):
        facility.advance_to_count(number * period)
        last = max(facility.clock, last + 1)
        end = ends[number * period - 1] + 1
        assert (sample.time, sample.ip, sample.period) == (last, records[end - 1].target, period)
        assert sample.entries == facility.sample(), f"sample {number}"
        if branches == "any":
            # Unfiltered, a stack is the newest records of the trace; only what the kernel took up is missing of 32.
            newest = records[max(0, end - len(sample.entries)) : end][::-1]
            assert [(entry.source, entry.target) for entry in sample.entries] == [row[:2] for row in newest]
            assert len(sample.entries) >= min(end, 32) - 8
    # Two of the programs have branches of every kind; the third is short and has few of some.
    assert exact.path.name == "zoo" or any(sample.entries for sample in samples)


@pytest.mark.parametrize("period", [1201, 2003])
def test_a_sample_every_so_many_instructions(period: int, exact: Exact, tmp_path: Path) -> None:
    samples = recorded(exact, tmp_path / "perf.data", "-e", "instructions", "-c", str(period))
    assert sideband_end(tmp_path / "perf.data") < period
    facility = Recomputed(exact.program, exact.trace, CONTROLS["any"])
    due = period
    for number, sample in enumerate(samples, 1):
        # At the first block that starts after the overflow; a block has less than 600 instructions here.
        assert due <= sample.time < due + 600
        facility.advance(sample.time)
        assert sample.entries == facility.sample(), f"sample {number}"
        due += period
    assert len(samples) == (facility.total - 1) // period


def test_every_branch_and_instruction_is_counted(exact: Exact, tmp_path: Path) -> None:
    ended = run(archlbr("record", "--stats", "-c", "1009", "-o", tmp_path / "perf.data", "--", exact.path))
    told = stats(ended.err)
    (records,) = exact.trace.threads
    assert int(told["branches"]) == sum(row.kind != "OTHER" for row in records)
    assert int(told["instructions"]) == Recomputed(exact.program, exact.trace, CONTROLS["any"]).total
