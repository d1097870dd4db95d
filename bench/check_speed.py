"""How fast the explorer is, and what it leaves out: `python -m bench.check_speed`.

Whole runs of `archlbr check` by wall clock, one exploration after the other by processor time, the memory of a state,
what each reduction saves, how states grow with each actor, and spin beside us on the same scenario.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from archlbr.check.explore import explore
from archlbr.contract import designs, reduction, scenarios
from archlbr.contract.verdicts import claims, judge
from bench import check_growth
from bench.check_manifest import read
from bench.figures import median, peak, table

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS = 3
TARGET = 100_000  # transitions a second on one core
COUNTS = 1000  # an exploration of fewer transitions is over before it can be timed
SMALL_LIMIT, WHOLE_LIMIT = 60, 15 * 60  # seconds
LARGE = (
    "vlbr-6.12/neighbours-toggled",
    "request/neighbours-toggled",
    "archlbr/everything",
    "archlbr/everything-roam",
    "mediated-lbr/everything",
)
ALIKE = ("vlbr-6.1/neighbours-toggled", "archlbr/everything", "mediated-lbr/everything")
APART = ("archlbr/everything-roam", "mediated-lbr/everything-roam", "archlbr/lend,cpus=2,vcpus=2")


def wall(*words: str) -> float:
    """Return the seconds of a whole run of `archlbr check`."""
    begun = time.perf_counter()
    told = subprocess.run(
        [sys.executable, "-m", "archlbr", "check", *words], check=False, capture_output=True, text=True
    )
    seconds = time.perf_counter() - begun
    # Status 1: designs break what they claim, as they should.
    assert (told.returncode, " explorations, complete: " in told.stderr) == (1, True), told.stderr
    return seconds


def rate(name: str) -> tuple[list[float], float]:
    """Return transitions a second of processor time: as `check` explores, and with the real step for each of them."""
    design, scenario = parted(name)
    begun = time.process_time()
    edges = explore(designs.model(design, scenario), claims(design, scenario)).edges
    real = edges / (time.process_time() - begun)
    return [judged_rate(name) for _ in range(ROUNDS)], real


def parted(name: str):  # type: ignore[no-untyped-def]  # two names of the model's own
    """Return the design and the scenario of `DESIGN/SCENARIO`."""
    design, _, scenario = name.partition("/")
    return designs.named(design), scenarios.named(scenario)


def rates() -> list[str]:
    """Return the rates of the large explorations, and the slowest of all."""
    rows, all_rates = [], []
    for name in LARGE:
        cached, real = rate(name)
        rows.append((name, median([value / 1000 for value in cached], "", 0), f"{real / 1000:.0f}"))
        all_rates.append((statistics.median(cached), name))
    for name, line in read().items():
        if name not in LARGE and line["edges"] >= COUNTS:
            rounds = ROUNDS if line["edges"] < 10 * COUNTS else 1
            all_rates.append((statistics.median(judged_rate(name) for _ in range(rounds)), name))
    slowest, where = min(all_rates)
    verdict = "at or above" if slowest >= TARGET else "below"
    return [
        *table(("exploration", "thousand transitions a second", "with the real step for each"), rows),
        "",
        f"The slowest of all explorations of {COUNTS:,} transitions or more, {where}: {slowest / 1000:,.0f} thousand a "
        f"second, {verdict} the target of {TARGET // 1000}.",
    ]


def judged_rate(name: str) -> float:
    """Return transitions a second of processor time as `check` explores, the search of fair cycles with it."""
    design, scenario = parted(name)
    begun = time.process_time()
    edges = judge(design, scenario).exploration.edges
    return edges / (time.process_time() - begun)


def bytes_a_state(name: str) -> None:
    """Explore in this process, a fresh one, and print the growth of its peak by state."""
    design, scenario = parted(name)
    before = peak()
    states = judge(design, scenario).exploration.states
    grown = peak() - before
    print(f"{states} {grown * 1024}")


def memory() -> list[str]:
    """Return the memory of a state, of the largest explorations."""
    rows = []
    for name in LARGE:
        told = subprocess.run(
            [sys.executable, "-m", "bench.check_speed", "--memory", name], check=True, capture_output=True, text=True
        )
        states, grown = (int(word) for word in told.stdout.split())
        rows.append((name, f"{states:,}", f"{grown / states:,.0f}"))
    return table(("exploration", "states", "bytes a state"), rows)


def saved(name: str, kind: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return a row: what a reduction saves of an exploration."""
    design, scenario = parted(name)
    begun = time.process_time()
    whole = judge(design, scenario, wanted)
    between = time.process_time()
    reduced = judge(design, scenario, wanted, reduce=frozenset({kind}))
    ended = time.process_time()
    same = {key: len(path) for key, path in whole.found.items()} == {
        key: len(path) for key, path in reduced.found.items()
    }
    assert same, name
    return (
        name,
        kind,
        f"{whole.exploration.states:,} to {reduced.exploration.states:,}",
        f"{whole.exploration.edges:,} to {reduced.exploration.edges:,}",
        f"{between - begun:.2f} to {ended - between:.2f} s",
    )


def reductions() -> list[str]:
    """Return what symmetry and independence save; the verdicts and the shortest lengths are the same."""
    rows = [saved(name, reduction.SYMMETRY, None) for name in ALIKE]
    for name in APART:
        asked = [claim.name for claim in claims(*parted(name)) if claim.kind == "always"]
        rows.append(saved(name, reduction.INDEPENDENCE, asked))
    return table(("exploration", "`--reduce`", "states", "transitions", "processor time"), rows)


def beside_spin() -> list[str]:
    """Return the times of spin and of us for two neighbours: the same states, exactly and in full."""
    if not (shutil.which("spin") and shutil.which("gcc")):
        return ["Spin was not installed."]
    text = (Path(__file__).parents[1] / "tests" / "contract" / "neighbours.pml").read_text(encoding="utf-8")
    made, ran, ours = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.pml").write_text(text)
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            subprocess.run(["spin", "-o3", "-a", "model.pml"], cwd=folder, check=True, capture_output=True)
            flags = ["-O2", "-w", "-DNOREDUCE", "-DSAFETY", "-DVECTORSZ=2048"]
            subprocess.run(["gcc", *flags, "-o", "pan", "pan.c"], cwd=folder, check=True, capture_output=True)
            made.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            told = subprocess.run(["./pan", "-m5000000", "-E"], cwd=folder, check=True, capture_output=True, text=True)
            ran.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            found = judge(*parted("vlbr-6.12/neighbours"))
            ours.append(time.perf_counter() - begun)
            stored = re.search(r"(\d+) states, stored", told.stdout)
            assert stored, told.stdout
            assert int(stored[1]) == found.exploration.states, told.stdout
    rows = [
        ("spin: make the checker", median(made)),
        ("spin: search", median(ran)),
        ("archlbr: search, all properties, responses too", median(ours)),
    ]
    return [f"`vlbr-6.12/neighbours`, {found.exploration.states:,} states in both.", "", *table(("step", "time"), rows)]


def measure() -> list[str]:
    """Return the lines of the section."""
    small, whole = wall("--small"), wall()
    told = [
        ("`archlbr check --small`, every design", f"{small:.1f} s", f"{SMALL_LIMIT} s"),
        ("`archlbr check`, every design and scenario, all states", f"{whole:.1f} s", f"{WHOLE_LIMIT} s"),
    ]
    return [
        "Whole runs by wall clock, one worker process a core.",
        "",
        *table(("command", "time", "at most"), told),
        "",
        "Transitions a second on one core, by processor time, with the search of fair cycles. A step is made once for "
        "each content of the parts of a state that it reads (decision 032); the last column makes the real step each "
        "time.",
        "",
        *rates(),
        "",
        "Memory: growth of the peak in a fresh process.",
        "",
        *memory(),
        "",
        "What `--reduce` saves; verdicts and shortest lengths are the same. Independence is measured for the `always` "
        "properties alone: it keeps no response.",
        "",
        *reductions(),
        "",
        "How the states of `archlbr` grow. The base: one pCPU, one VM, a host task, a flexible host event, NMIs.",
        "",
        *check_growth.measure(),
        "",
        *beside_spin(),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        bytes_a_state(sys.argv[2])
    else:
        print("\n".join(measure()))
