"""How the states of `archlbr` grow with each actor and each feature: `python -m bench.check_growth`.

A line is one thing added to the base: one pCPU, one VM, a host task, a flexible host event, NMIs.
"""

from __future__ import annotations

import time

from archlbr.contract import designs
from archlbr.contract.scenarios import FLEXIBLE, GUEST, NMI, OPEN, PINNED, TOGGLE
from archlbr.contract.verdicts import judge
from archlbr.contract.world import Scenario

MAY = GUEST | TOGGLE | OPEN | NMI
BASE = Scenario("base", "", MAY, events=(FLEXIBLE,))
ADDED: dict[str, Scenario] = {
    "base": BASE,
    "a second VM": BASE._replace(vcpus=2),
    "a second pCPU": BASE._replace(cpus=2, events=(FLEXIBLE, None), roams=1),
    "a second pCPU and a second host event": BASE._replace(cpus=2, events=(FLEXIBLE, PINNED), roams=1),
    "a second record a stack": BASE._replace(depth=2),
    "nested": BASE._replace(may=MAY | {"nest", "unnest"}),
    "SMM": BASE._replace(may=MAY | {"smi", "rsm"}),
    "XSAVES and XRSTORS": BASE._replace(may=MAY | {"xsaves", "xrstors"}),
    "save and restore": BASE._replace(may=MAY | {"migrate"}),
    "user space": BASE._replace(may=MAY | {"to_user", "to_kernel", "get_msrs"}),
    "the fast path": BASE._replace(may=MAY | {"reenter"}),
}


def main() -> None:
    """Explore and print."""
    base = 0
    for name, scenario in ADDED.items():
        start = time.perf_counter()
        found = judge(designs.named("archlbr"), scenario).exploration
        seconds = time.perf_counter() - start
        base = base or found.states
        size = f"{found.states:>9,} states  x{found.states / base:<7.1f}{found.edges:>10,} edges"
        print(f"{name:<40}{size} {seconds:6.2f} s")


if __name__ == "__main__":
    main()
