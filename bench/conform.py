"""How long the conformance table takes, and what a trapped RDMSR of guest code costs.

    python -m bench.conform [ROUNDS]

Whole commands for the table: the targets are 5 seconds on the model and 60 on the machine. The trapped access goes from
guest code on the board through the vPMU's step and back, in processor time; its target is 8 microseconds.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from archlbr.arch import msrs
from archlbr.conformance.cases.table import CASES
from archlbr.conformance.cases.words import G
from archlbr.conformance.targets.machine import MachineTarget
from bench.figures import median, table
from bench.programs import run

LIMITS = {"model": 5.0, "model:series-v2": 5.0, "machine": 60.0}
TRAP_LIMIT = 8.0
ACCESSES = 20_000


def trapped(accesses: int = ACCESSES) -> float:
    """Return the microseconds of a trapped RDMSR of IA32_LBR_CTL."""
    target = MachineTarget()
    try:
        target.start(G)
        begun = time.process_time()
        target.guest.run("rdmsrs", msrs.IA32_LBR_CTL.index, accesses)
        return (time.process_time() - begun) / accesses * 1e6
    finally:
        target.close()


def measure(rounds: int = 5) -> list[str]:
    """Return the section."""
    command = str(Path(sys.executable).parent / "archlbr")
    rows, late = [], []
    for target, limit in LIMITS.items():
        seconds = []
        for turn in range(rounds + 1):
            found = run([command, "conform", "--target", target])
            assert found is not None, target
            assert found.status == 0, target
            if turn:  # the first fills the cache
                seconds.append(found.seconds)
        rows.append([f"`archlbr conform --target {target}`", median(seconds), f"{limit:g} s"])
        late += [target] if statistics.median(seconds) > limit else []
    costs = [trapped() for _ in range(rounds)]
    rows.append(["a trapped RDMSR of guest code", median(costs, "us"), f"{TRAP_LIMIT:g} us"])
    late += ["the trapped RDMSR"] if statistics.median(costs) > TRAP_LIMIT else []
    verdict = f"Above its limit: {', '.join(late)}." if late else "Each is within its limit."
    return [f"{len(CASES)} cases, {rounds} runs.", "", *table(["what", "time", "limit"], rows), "", verdict]


if __name__ == "__main__":
    print("\n".join(measure(*(int(word) for word in sys.argv[1:]))))
