"""BOLT optimises a program by a profile that `archlbr record` wrote, and the program still says the same."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.cli.recording import ENTRY, archlbr
from tests.cli.recording import run as run_recorder
from tests.foreign.tools import need, run, versions

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests

pytestmark = pytest.mark.foreign

MISMATCHING = re.compile(r"traces mismatching disassembled function contents: (\d+)")
OUT_OF_RANGE = re.compile(r"out of range traces involving unknown regions: (\d+)")


def outside(program: Path, data: Path, folder: Path) -> int:
    """Count the straight lines of a profile that touch code outside the program: the loader's, the C library's."""
    printed = run([need("perf"), "script", "-i", data, "-F", "ip,brstack", "--show-mmap-events"], folder).stdout
    start = length = found = 0
    for line in printed.splitlines():
        mapping = re.search(r"\[(0x[0-9a-f]+)\((0x[0-9a-f]+)\) @ .* r-xp (.*)$", line)
        if mapping and mapping[3] == str(program):
            start, length = int(mapping[1], 16), int(mapping[2], 16)
        elif not mapping:
            stack = [(int(source, 16), int(target, 16)) for source, target in ENTRY.findall(line)]
            inside = range(start, start + length)
            found += sum(older[1] not in inside or newer[0] not in inside for newer, older in pairwise(stack))
    assert length
    return found


@pytest.mark.parametrize("perf2bolt", versions("perf2bolt"))
@pytest.mark.parametrize("name", ["kernel", "kernel_fixed"])
def test_bolt_takes_every_trace_and_optimises(perf2bolt: Path, name: str, guests: Guests, tmp_path: Path) -> None:
    need("perf")
    program: Path = getattr(guests, name)
    data = tmp_path / "perf.data"
    run_recorder(archlbr("record", "-c", "1009", "-o", data, "--", program, "1"))
    done = run([perf2bolt, program, "-p", data, "-o", "kernel.fdata"], tmp_path)
    said = done.stdout + done.stderr
    mismatching, out_of_range = MISMATCHING.search(said), OUT_OF_RANGE.search(said)
    assert mismatching is not None, said
    assert out_of_range is not None, said
    assert mismatching[1] == "0"
    assert int(out_of_range[1]) <= outside(program, data, tmp_path), said
    lines = (tmp_path / "kernel.fdata").read_text().splitlines()
    assert any(re.match(r"1 quicksort\S* [0-9a-f]+ 1 quicksort\S* [0-9a-f]+ ", line) for line in lines)
    assert any(re.match(r"1 fib\S* [0-9a-f]+ 1 fib\S* 0 ", line) for line in lines), "fib calls itself"
    bolt = perf2bolt.with_name("llvm-bolt")
    optimise = ["-reorder-blocks=ext-tsp", "-reorder-functions=hfsort", "-split-functions", "-split-all-cold"]
    done = run([bolt, program, "-o", "optimised", "-data", "kernel.fdata", *optimise, "-dyno-stats"], tmp_path)
    assert re.search(
        r"\d+ out of \d+ functions in the binary .* have non-empty execution profile", done.stdout + done.stderr
    )
    assert run_recorder([tmp_path / "optimised", "3"]) == run_recorder([program, "3"])


@pytest.mark.parametrize("perf2bolt", versions("perf2bolt"))
def test_the_pre_aggregated_text_gives_the_same_edges(perf2bolt: Path, guests: Guests, tmp_path: Path) -> None:
    need("perf")
    program = guests.kernel_fixed
    for form, name in (("perf.data", "perf.data"), ("preagg", "text")):
        words = ["-c", "1009", "--format", form, "-o", tmp_path / name]
        run_recorder(archlbr("record", *words, "--", program, "1"))
    run([perf2bolt, program, "-p", "perf.data", "-o", "one.fdata"], tmp_path)
    run([perf2bolt, program, "-pa", "-p", "text", "-o", "two.fdata"], tmp_path)

    def edges(name: str) -> dict[tuple[str, ...], int]:
        found = {}
        for line in (tmp_path / name).read_text().splitlines():
            words = line.split()
            if len(words) == 8 and words[0] == "1" and words[3] == "1":
                found[tuple(words[1:6])] = int(words[7])
        return found

    one, two = edges("one.fdata"), edges("two.fdata")
    common = {edge: (one[edge], two[edge]) for edge in one if edge in two}
    assert len(common) >= 10
    assert {edge: pair for edge, pair in common.items() if pair[0] != pair[1]} == {}
