"""What the profiler's interrupt handler does with the LBRs: read the stack, newest first, up to the first empty entry.

`host` calls it between the freeze and the thaw, with the guest's RDMSR as the way to the registers. It is
intel_pmu_arch_lbr_read() and intel_pmu_store_lbr() of arch/x86/events/intel/lbr.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from archlbr.arch import msrs
from archlbr.arch.outcomes import Value
from archlbr.errors import InternalError
from archlbr.lbr.state import Entry

Reader: TypeAlias = Callable[[int], object]


def read_stack(rdmsr: Reader, depth: int) -> tuple[Entry, ...]:
    """Return the entries that the LBR registers hold, newest first; `rdmsr` executes the guest's RDMSR."""
    entries: list[Entry] = []
    for index in range(depth):
        source = _value(rdmsr(msrs.IA32_LBR_FROM_IP.at(index)))
        if source == 0:
            break
        target = _value(rdmsr(msrs.IA32_LBR_TO_IP.at(index)))
        entries.append(Entry(source, target, _value(rdmsr(msrs.IA32_LBR_INFO.at(index)))))
    return tuple(entries)


def _value(outcome: object) -> int:
    if not isinstance(outcome, Value):
        raise InternalError(f"the profiler's RDMSR came to {outcome}; the depth it was told is wrong")
    return outcome.value
