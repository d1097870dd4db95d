"""What recording costs: native, bare QEMU, and `archlbr record` on each engine, whole processes, paired in rounds.

    python -m bench.engines [ROUNDS] [SCALE]

Runs tests/guests/kernel.c with SCALE million branches (500) ROUNDS times (5); in a round each runs once, and ratios are
medians of the ratios to the native run of the same round.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
KERNEL = ROOT / "tests" / "guests" / "kernel.c"


def seconds(command: list[str], result: bytes = b"") -> float:
    """Run a command to its end; return how long it took. What it prints must be `result`, when that is given."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False)
    took = time.perf_counter() - start
    assert done.stdout == result or not result, done.stderr
    return took


def commands(folder: Path, scale: int) -> dict[str, list[str]]:
    """Return what is compared."""
    program = folder / "kernel"
    subprocess.run(["gcc", "-O2", "-o", program, KERNEL], check=True)
    run = [str(program), str(scale)]
    found = {"native": run}
    engines = ["unicorn"]
    if shutil.which("qemu-x86_64"):
        found["QEMU, bare"] = ["qemu-x86_64", *run]
        engines.append("qemu")
    for engine in engines:
        out = str(folder / engine)
        found[f"record, {engine}"] = [
            sys.executable,
            "-m",
            "archlbr",
            "record",
            "--engine",
            engine,
            "-o",
            out,
            "--",
            *run,
        ]
    return found


def main() -> None:
    """Print a table of medians."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    scale = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    with tempfile.TemporaryDirectory() as name:
        compared = commands(Path(name), scale)
        for command in compared.values():  # compiled code and the plugin are made once
            seconds([*command[:-1], "1"])
        result = subprocess.run(compared["native"], capture_output=True, check=False).stdout
        table = [{what: seconds(command, result) for what, command in compared.items()} for _ in range(rounds)]
    print(f"| {scale} million branches | seconds | times native |\n|---|---|---|")
    for what in compared:
        took = statistics.median(row[what] for row in table)
        ratio = statistics.median(row[what] / row["native"] for row in table)
        print(f"| {what} | {took:.2f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
