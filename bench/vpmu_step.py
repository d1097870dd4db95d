"""How many register accesses a second go through the vPMU's pure step.

    python -m bench.vpmu_step [ACCESSES] [ROUNDS]

The guest owns the LBRs and runs, but for the rows that say otherwise; each access is a new action, and the state goes
from one to the next. Processor time, so that a busy machine does not count. The target is 300,000 a second for reads
and for writes.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING

from archlbr.arch import msrs
from archlbr.arch.cpuid import LBR_COMPONENT, Leaf0A, Leaf0D, Leaf0D1, Leaf07, Leaf1C
from archlbr.lbr.actions import Rdmsr, Wrmsr
from archlbr.lbr.state import architectural
from archlbr.vpmu.actions import HostRead, HostWrite, Release, VmEntry
from archlbr.vpmu.cpuid import ARCH_LBR, Cpuid, supported
from archlbr.vpmu.designs import ARCHLBR
from archlbr.vpmu.state import platform
from archlbr.vpmu.step import boot, step
from bench.figures import median, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.vpmu.actions import Action
    from archlbr.vpmu.state import State

TARGET = 300_000
_LEAF = Leaf1C.of((8, 16, 32))
_HOST = Cpuid(
    leaf07=Leaf07(edx=ARCH_LBR),
    leaf0a=Leaf0A.of(5),
    leaf0d=Leaf0D(7),
    leaf0d1=Leaf0D1(0xF, 0, 1 << 15),
    components=((15, LBR_COMPONENT),),
    leaf1c=_LEAF,
)
PLATFORM = platform(architectural(_LEAF), _HOST)
_FROM, _CTL, _DEPTH = msrs.IA32_LBR_FROM_IP.index, msrs.IA32_LBR_CTL.index, msrs.IA32_LBR_DEPTH.index
_DEBUGCTL, _XSS, _PMC = msrs.IA32_DEBUGCTL.index, msrs.IA32_XSS.index, msrs.IA32_PMC.index


def running() -> State:
    """Return a vCPU in the guest that owns the LBRs."""
    state = boot(ARCHLBR, PLATFORM, supported(ARCHLBR, PLATFORM))
    for action in (Wrmsr(_CTL, 0x7F0007), VmEntry()):
        state, _ = step(ARCHLBR, PLATFORM, state, action)
    return state


def released() -> State:
    """Return the same while the host owns them: each access of an entry is emulated."""
    return step(ARCHLBR, PLATFORM, running(), Release())[0]


ROWS: tuple[tuple[str, Callable[[], State], Callable[[int], Action]], ...] = (
    ("RDMSR FROM, passed through", running, lambda n: Rdmsr(_FROM + (n & 31))),
    ("WRMSR FROM, passed through", running, lambda n: Wrmsr(_FROM + (n & 31), n)),
    ("RDMSR FROM, intercepted", released, lambda n: Rdmsr(_FROM + (n & 31))),
    ("WRMSR FROM, intercepted", released, lambda n: Wrmsr(_FROM + (n & 31), n)),
    ("RDMSR CTL", running, lambda _n: Rdmsr(_CTL)),
    ("WRMSR CTL", running, lambda n: Wrmsr(_CTL, 0x7F0006 | n & 1)),
    ("WRMSR DEPTH", running, lambda _n: Wrmsr(_DEPTH, 32)),
    ("WRMSR DEBUGCTL", running, lambda n: Wrmsr(_DEBUGCTL, (n & 1) << 11)),
    ("WRMSR XSS", running, lambda n: Wrmsr(_XSS, (n & 1) << 15)),
    ("WRMSR PMC", running, lambda n: Wrmsr(_PMC, n)),
    ("userspace reads FROM", running, lambda n: HostRead(_FROM + (n & 31))),
    ("userspace writes FROM", running, lambda n: HostWrite(_FROM + (n & 31), n)),
)


def rate(state: State, action: Callable[[int], Action], accesses: int) -> float:
    """Return accesses a second of processor time."""
    begun = time.process_time()
    for n in range(accesses):
        state, _ = step(ARCHLBR, PLATFORM, state, action(n))
    return accesses / (time.process_time() - begun)


def measure(accesses: int = 50_000, rounds: int = 5) -> list[str]:
    """Return the lines of the table."""
    rows, guest = [], []
    for name, start, action in ROWS:
        state = start()
        rates = [rate(state, action, accesses) for _ in range(rounds)]
        rows.append((name, median([value / 1000 for value in rates], "", 0)))
        if "MSR" in name:
            guest.append(statistics.median(rates))
    slowest = min(guest)
    verdict = "at or above" if slowest >= TARGET else "below"
    lines = table(("access", "thousands a second"), rows)
    return [
        *lines,
        "",
        f"The guest's slowest access: {slowest / 1000:.0f} thousand a second, {verdict} the target of 300.",
    ]


if __name__ == "__main__":
    print("\n".join(measure(*(int(word) for word in sys.argv[1:]))))
