"""Debian's unmodified kernel on the board: it finds Architectural LBR, and its own perf samples the branch stack.

What the guest's perf recorded is held against the trace that the board took of the same run from outside, sample by
sample: an NMI is a branch of that trace, and the records of its sample are those before it.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from archlbr.arch.branches import BranchKind
from archlbr.profile.edges import count_edges
from archlbr.profile.overlap import overlap
from tests.foreign.tools import need, run, versions
from tests.guests.linux import FOLDER, TEXT_AT, TEXT_END
from tests.machine.guest_session import JOBS, KERNEL, OTHER, Guest, at_nmis, boot, handler_of_nmis, samples

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PROGRAM = FOLDER / "interpreter"
pytestmark = pytest.mark.skipif(
    not (PROGRAM.exists() and (FOLDER / "guest.cpio").exists()),
    reason="needs build/guest: make guest fetches a kernel and busybox with apt",
)
CALLS = (int(BranchKind.REL_CALL), int(BranchKind.IND_CALL))
RETURN = int(BranchKind.RET)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Guest:
    """One boot up to the shell, and what was typed at it."""
    return boot(tmp_path_factory.mktemp("guest"))


@pytest.fixture
def profiles(guest: Guest) -> Guest:
    """The same, where perf is in the guest."""
    if "perf: not found" in guest.console:
        pytest.skip("needs perf in the guest: install linux-perf and make guest again")
    return guest


def newest(rows: NDArray[np.uint64], wanted: NDArray[np.bool_], count: int = 32) -> list[tuple[int, int]]:
    return [(int(source), int(target)) for source, target, _ in rows[wanted][: -count - 1 : -1]]


def test_the_kernel_finds_the_lbrs_and_time_passes(guest: Guest) -> None:
    assert re.findall(r"^\[(depth|flag|slept)\] (\S+)", guest.console, re.MULTILINE) == [
        ("depth", "32"),
        ("flag", "arch_lbr"),
        ("slept", "1"),
    ]


def test_commands_typed_at_the_console_run_and_dmesg_tells_the_depth(guest: Guest) -> None:
    assert "typed 42" in guest.console
    (told,) = re.findall(r"^\[ +[\d.]+\] Performance Events: (.*)\r?$", guest.console, re.MULTILINE)
    assert told.startswith("XSAVE Architectural LBR, Sapphire Rapids events, 32-deep LBR, full-width counters")


def test_the_program_prints_what_it_prints_natively(profiles: Guest) -> None:
    for name, (_, command) in JOBS.items():
        native = subprocess.run([PROGRAM, command.split()[1]], capture_output=True, text=True, check=False).stdout
        [printed] = re.findall(rf"^\[{name}\]\r?\n(\d+)\r?$", profiles.console, re.MULTILINE)
        assert printed == native.strip()


def test_each_sample_of_all_branches_holds_the_last_32_of_the_program(profiles: Guest) -> None:
    rows = np.concatenate(profiles.traces["edges"])
    found = samples(profiles.folder / "edges.data")
    places = at_nmis(rows, handler_of_nmis([rows]))
    assert len(found) == len(places) > 1000
    for place, sample in zip(places, found, strict=True):
        # A return from the kernel takes an entry, too, and perf leaves it out: one for each way in.
        entries = rows[max(0, place - 32) : place][::-1]
        assert sample == (
            rows[place, 0],
            [(source, target) for source, target, kind in entries.tolist() if kind != OTHER],
        )
    assert sum(len(sample.records) == 32 for sample in found) > len(found) * 0.99


def test_the_edges_overlap_with_the_exact_trace_of_the_same_run(profiles: Guest) -> None:
    rows = np.concatenate(profiles.traces["edges"])
    near = rows[rows[:, 2] != OTHER]
    records = np.array([record for sample in samples(profiles.folder / "edges.data") for record in sample.records])
    records = records.astype(np.uint64)
    common = overlap(count_edges(near[:, 0], near[:, 1]), count_edges(records[:, 0], records[:, 1]))
    assert common >= 0.98


def test_any_k_holds_branches_between_kernel_addresses_only(profiles: Guest) -> None:
    found = samples(profiles.folder / "kernel.data")
    windows = profiles.traces["kernel"]
    kernel = [window for window in windows if window[-1, 0] >= KERNEL]
    assert len(windows) == len(found) > 30
    assert len(kernel) > 20
    for window, sample in zip(windows, found, strict=True):
        assert sample.ip == window[-1, 0]
        # Admitted by where they lead; perf drops what comes out of ring 3, and faults and interrupts in ring 0.
        admitted = [tuple(row) for row in window[-33:-1].tolist()][::-1]
        shown = [row[:2] for row in admitted if row[0] >= KERNEL and (row[2] != OTHER or row[:2] in sample.records)]
        assert sample.records == shown
        assert len(shown) >= 24


def test_call_u_holds_direct_calls_only(profiles: Guest) -> None:
    rows = np.concatenate(profiles.traces["calls"])
    found = samples(profiles.folder / "calls.data")
    places = at_nmis(rows, handler_of_nmis([rows]))
    assert len(found) == len(places) > 100
    for place, sample in zip(places, found, strict=True):
        before = rows[max(0, place - 10000) : place]
        assert sample == (rows[place, 0], newest(before, before[:, 2] == int(BranchKind.REL_CALL)))


def test_lbr_call_stacks_are_the_true_stacks(profiles: Guest) -> None:
    rows = np.concatenate(profiles.traces["stacks"])
    found = samples(profiles.folder / "stacks.data")
    places = at_nmis(rows, handler_of_nmis([rows]))
    assert len(found) == len(places) > 200
    stack: list[tuple[int, int]] = []
    depths: Counter[int] = Counter()
    waiting = iter(zip(places, found, strict=True))
    place, sample = next(waiting)
    for index, (source, target, kind) in enumerate(rows.tolist()):
        if index == place:
            assert sample == (source, stack[::-1])
            depths[len(stack)] += 1
            place, sample = next(waiting, (-1, sample))
        if kind in CALLS:
            stack.append((source, target))
        elif kind == RETURN:
            stack.pop()
    assert depths.total() == len(found)
    assert min(depths) <= 6
    assert 20 <= max(depths) <= 32


def test_the_lbrs_of_programs_that_take_turns_go_through_xsaves_and_xrstors(profiles: Guest) -> None:
    rows = np.concatenate(profiles.traces["turns"])
    tasks = {move.area for move in profiles.moves if move.name == "xrstors"}
    found = samples(profiles.folder / "turns.data")
    # The handler of each PMI reads the records by XSAVES into an area of its own.
    assert sum(move.area not in tasks for move in profiles.moves) == len(found)
    # A stretch of the trace is the task's whose area was loaded before it, or of a new one, which is saved after it.
    stretches: list[tuple[int, int, int]] = []
    start, loaded = 0, 0
    for move in profiles.moves:
        if move.area in tasks:
            if move.row > start:
                stretches.append((start, move.row, loaded or move.area))
                start, loaded = move.row, 0
            if move.name == "xrstors":
                loaded = move.area
    stretches += [(start, len(rows), loaded)] if start < len(rows) else []
    assert sum(move.name == "xrstors" for move in profiles.moves) >= 5
    assert len({area for _, _, area in stretches}) == 2
    inside = [sample for sample in found if TEXT_AT <= sample.ip < TEXT_END]  # one is in the shell
    waiting = iter(zip(at_nmis(rows, handler_of_nmis([rows])), inside, strict=True))
    place, sample = next(waiting)
    stacks: dict[int, list[tuple[int, int]]] = {area: [] for area in tasks}
    compared: Counter[int] = Counter()
    for begin, end, area in stretches:
        stack = stacks[area]
        for index, (source, target, kind) in enumerate(rows[begin:end].tolist(), begin):
            if index == place:
                own = [record for record in sample.records if TEXT_AT <= record[0] < TEXT_END]
                assert (sample.ip, own) == (source, stack[::-1])  # below them are the shell's, before execve
                compared[area] += 1
                place, sample = next(waiting, (-1, sample))
            if kind in CALLS:
                stack.append((source, target))
            elif kind == RETURN and stack:
                # Nothing is loaded where a task ends and the one before it goes on: Linux looks who was saved last
                # (__intel_pmu_lbr_restore). That one goes on with what is left, and returns from calls it has lost.
                stack.pop()
    assert compared.total() == len(inside)
    assert min(compared.values()) > 200


@pytest.mark.foreign
def test_perf_on_the_host_reads_the_four_files(profiles: Guest, tmp_path: Path) -> None:
    perf = need("perf")
    for name in JOBS:
        data = profiles.folder / f"{name}.data"
        printed = run([perf, "script", "-i", data, "-F", "ip,brstack"], tmp_path).stdout
        sources = [int(entry.split("/")[0], 16) for entry in printed.split() if "/" in entry]
        assert sources == [source for sample in samples(data) for source, _ in sample.records]
    for name, words in (("edges", ["-b"]), ("calls", ["-b"]), ("stacks", ["--no-children", "-g", "caller"])):
        printed = run([perf, "report", "--stdio", *words, "-i", profiles.folder / f"{name}.data"], tmp_path).stdout
        assert re.search(r"^ +\d+\.\d+% +interpreter .*\b(run|push|need)\b", printed, re.MULTILINE), printed[:2000]
    printed = run([perf, "report", "--stdio", "-b", "-i", profiles.folder / "kernel.data"], tmp_path).stdout
    shown = re.findall(r"^ +\d+\.\d+% +\S+ +(\S+) +\[(.)\] \S+ +\[(.)\]", printed, re.MULTILINE)
    assert set(shown) == {("[kernel.kallsyms]", "k", "k")}
    told = run([perf, "script", "-i", profiles.folder / "stacks.data", "-F", "ip,sym"], tmp_path).stdout
    assert re.search(r"need\n.* (add|subtract)\n.* run\n(.* call\n.* run\n)+.* main\n", told)


@pytest.mark.foreign
@pytest.mark.parametrize("perf2bolt", versions("perf2bolt"))
def test_bolt_takes_what_the_guest_recorded(perf2bolt: Path, profiles: Guest, tmp_path: Path) -> None:
    need("perf")
    done = run([perf2bolt, PROGRAM, "-p", profiles.folder / "edges.data", "-o", "guest.fdata"], tmp_path)
    said = done.stdout + done.stderr
    found = samples(profiles.folder / "edges.data")
    assert f"read {len(found)} samples and {sum(len(sample.records) for sample in found)} LBR entries" in said
    assert "traces mismatching disassembled function contents: 0 " in said
    assert "out of range traces involving unknown regions: 0 " in said
    lines = (tmp_path / "guest.fdata").read_text().splitlines()
    assert any(re.match(r"1 run\S* [0-9a-f]+ 1 push\S* 0 ", line) for line in lines)
    optimise = ["-reorder-blocks=ext-tsp", "-reorder-functions=hfsort", "-split-functions", "-split-all-cold"]
    bolt = perf2bolt.with_name("llvm-bolt")
    done = run([bolt, PROGRAM, "-o", "optimised", "-data", "guest.fdata", *optimise], tmp_path)
    assert re.search(
        r"\d+ out of \d+ functions in the binary .* have non-empty execution profile", done.stdout + done.stderr
    )
    mine, optimised = (
        subprocess.run([path, "8"], capture_output=True, check=False) for path in (PROGRAM, tmp_path / "optimised")
    )
    assert (mine.returncode, mine.stdout) == (optimised.returncode, optimised.stdout)
    assert mine.stdout
