"""How the states of `archlbr` grow with each actor and each feature: `python -m bench.check_growth`.

A line is one thing added to the base: one pCPU, one VM, a host task, a flexible host event, NMIs.
"""

from __future__ import annotations

import time

from archlbr.contract import designs
from archlbr.contract.scenarios import FLEXIBLE, GUEST, NMI, OPEN, PINNED, TOGGLE
from archlbr.contract.verdicts import judge
from archlbr.contract.world import Scenario
from bench.figures import table

MAY = GUEST | TOGGLE | OPEN | NMI
BASE = Scenario("base", "", MAY, events=(FLEXIBLE,))
ADDED: dict[str, Scenario] = {
    "base": BASE,
    "a second VM": BASE._replace(vcpus=2),
    "a third VM": BASE._replace(vcpus=3),
    "a second pCPU": BASE._replace(cpus=2, events=(FLEXIBLE, None), roams=1),
    "a second pCPU and a second host event": BASE._replace(cpus=2, events=(FLEXIBLE, PINNED), roams=1),
    "a second VM and a second pCPU": BASE._replace(vcpus=2, cpus=2, events=(FLEXIBLE, None), roams=1),
    "no host task": BASE._replace(host_task=0),
    "no host event": BASE._replace(events=(None,)),
    "a second record a stack": BASE._replace(depth=2),
    "nested": BASE._replace(may=MAY | {"nest", "unnest"}),
    "SMM": BASE._replace(may=MAY | {"smi", "rsm"}),
    "XSAVES and XRSTORS": BASE._replace(may=MAY | {"xsaves", "xrstors"}),
    "save and restore": BASE._replace(may=MAY | {"migrate"}),
    "user space": BASE._replace(may=MAY | {"to_user", "to_kernel", "get_msrs"}),
    "the fast path": BASE._replace(may=MAY | {"reenter"}),
}


def measure() -> list[str]:
    """Return a row for the base and for each thing added to it."""
    base, rows = 0, []
    for name, scenario in ADDED.items():
        start = time.process_time()
        found = judge(designs.named("archlbr"), scenario).exploration
        seconds = time.process_time() - start
        base = base or found.states
        rows.append((name, f"{found.states:,}", f"{found.states / base:.1f} x", f"{found.edges:,}", f"{seconds:.2f} s"))
    return table(("added", "states", "to the base", "transitions", "processor time"), rows)


if __name__ == "__main__":
    print("\n".join(measure()))
