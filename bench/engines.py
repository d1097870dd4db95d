"""What recording costs on each engine: native, bare QEMU, `archlbr record`, callgrind and lackey, paired in rounds.

    python -m bench.engines [ROUNDS] [PROGRAM...]

Whole processes; in a round each runs once, and ratios are medians of the ratios to the native run of the same round.
Seconds on the clock say what a user waits, and hold on a machine with a core to spare; processor seconds, of all
processes together, hold on a busy one. What takes long runs at a tenth or a fiftieth of the size, beside the native run
of that. `record` counts what no sample will show; with `-e instructions` each branch goes through the LBRs, and the two
rows beside each other are what counting gains.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
GUESTS = ROOT / "tests" / "guests"
TENTH, FIFTIETH = 10, 50
PARTS = {TENTH: "a tenth", FIFTIETH: "a fiftieth"}


class Program(NamedTuple):
    """A program: its source, the compiler's options, its size, what the processor must have, what it computes in."""

    source: str
    options: tuple[str, ...]
    size: int
    needs: str = ""
    floating: bool = True


PROGRAMS = {
    "integers": Program("kernel.c", ("-O2",), 520, floating=False),
    "bodies": Program("bodies.c", ("-O3", "-lm"), 200),
    "matrices, AVX2": Program("vectors.c", ("-O2", "-mavx2", "-mfma"), 1000, "avx2"),
    "matrices, AVX-512": Program("vectors.c", ("-O2", "-mavx512f", "-mfma"), 2000, "avx512f"),
}


class Took(NamedTuple):
    """Seconds on the clock, and of processors, of a command and all that it started."""

    clock: float
    processor: float


def run(command: list[str]) -> Took:
    """Run a command to its end."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False)
    clock, after = time.perf_counter() - start, os.times()
    assert done.returncode >= 0, done.stderr
    assert b"archlbr: " not in done.stderr, done.stderr
    spent = (after.children_user + after.children_system) - (before.children_user + before.children_system)
    return Took(clock, spent)


def commands(folder: Path, name: str) -> dict[str, tuple[list[str], int]]:
    """Return what is compared on a program, and by how much each is made smaller."""
    program = PROGRAMS[name]
    path = folder / name.replace(", ", "-")
    subprocess.run(["gcc", "-o", path, GUESTS / program.source, *program.options], check=True)
    record = [sys.executable, "-m", "archlbr", "record", "-o", str(folder / "out"), "--engine"]
    small = FIFTIETH if program.floating else TENTH
    whole, part = [str(path), str(program.size)], [str(path), str(program.size // small)]
    found = {"native": (whole, 1)}
    wide = "avx" in program.needs
    if shutil.which("qemu-x86_64") and not wide:
        run_of, size = (part, small) if program.floating else (whole, 1)
        found["QEMU, bare"] = (["qemu-x86_64", *run_of], size)
        found["record, qemu"] = ([*record, "qemu", "--", *run_of], size)
        found["record -e instructions, qemu"] = ([*record, "qemu", "-e", "instructions", "--", *run_of], size)
    found["record, stalker"] = ([*record, "stalker", "--", *whole], 1)
    if not wide:
        found["record, unicorn"] = ([*record, "unicorn", "--", *part], small)
    if shutil.which("valgrind") and "avx512" not in program.needs:
        grind = ["valgrind", "--tool=callgrind", "--collect-jumps=yes", f"--callgrind-out-file={folder / 'grind'}"]
        found["callgrind"] = ([*grind, *part], small) if program.floating else ([*grind, *whole], 1)
        found["lackey"] = (["valgrind", "--tool=lackey", *part], small)
    return found


def table(name: str, rounds: int) -> list[str]:
    """Return one program's table of medians."""
    with tempfile.TemporaryDirectory() as folder:
        compared = commands(Path(folder), name)
        for command, _ in compared.values():  # compiled code and the plugin are made once
            run([*command[:-1], "1"])
        small = FIFTIETH if PROGRAMS[name].floating else TENTH
        rows = {**compared, "native, small": ([*compared["native"][0][:-1], str(PROGRAMS[name].size // small)], small)}
        found = [{what: run(command) for what, (command, _) in rows.items()} for _ in range(rounds)]
    lines = [
        f"### {name}",
        "",
        "| | seconds | times native | processor seconds | times native |",
        "|---|---|---|---|---|",
    ]
    for what, (_, part) in compared.items():
        natives = [row["native, small" if part > 1 else "native"] for row in found]
        took = [row[what] for row in found]
        cells = []
        for index in range(2):
            ratio = statistics.median(mine[index] / native[index] for mine, native in zip(took, natives, strict=True))
            cells += [f"{statistics.median(one[index] for one in took):.2f}", f"{ratio:.1f}"]
        lines.append(f"| {what}{f', {PARTS[part]}' if part > 1 else ''} | {' | '.join(cells)} |")
    return [*lines, ""]


def measure(rounds: int = 5, names: tuple[str, ...] = ()) -> list[str]:
    """Return the section's lines."""
    flags = Path("/proc/cpuinfo").read_text().split()
    lines = [
        f"`archlbr record` with its defaults on each engine, whole processes, medians of {rounds} rounds. What takes "
        "long runs at a tenth or a fiftieth of the size, beside the native run of that size. `-e instructions` puts "
        "each branch through the LBRs; beside the row above it, that is what counting gains.",
        "",
    ]
    for name in names or PROGRAMS:
        if PROGRAMS[name].needs in ("", *flags):
            lines += table(name, rounds)
    return lines


if __name__ == "__main__":
    print("\n".join(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5, tuple(sys.argv[2:]))))
    print(f"Load: {os.getloadavg()[0]:.1f}", file=sys.stderr)
