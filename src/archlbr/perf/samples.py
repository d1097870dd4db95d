"""What a host sample carries as its branch stack, and what is wrong with it.

`host` takes samples, `contract` judges them. Authority: intel_pmu_handle_irq() and intel_pmu_lbr_read()
(arch/x86/events/intel/core.c, lbr.c), by way of reference perf-kvm-contract.md A7 and section D, H1 to H3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from archlbr.lbr.bank import HOST, VM, Bank


class Sample(NamedTuple):
    """A sample's branch stack. none: it says that it has no stack. fresh: it was read from the registers just now."""

    records: tuple[Any, ...]
    none: int
    fresh: int


NONE = Sample((), 1, 1)
STALE = Sample((), 0, 0)


def read(lbrs: Bank, *, muted: int) -> Sample:
    """intel_pmu_lbr_read(): while the vLBR runs it returns early and leaves the stack of an earlier sample."""
    return STALE if muted else Sample(lbrs.stack, 0, 1)


def faults(sample: Sample, *, exclude_guest: int, in_guest: int) -> tuple[int, int, int]:
    """Return whether a sample breaks H1 (fresh or an explicit none), H2 (no guest when excluded), H3 (no host in one
    taken in the guest).
    """
    if sample.none:
        return 0, 0, 0
    guest = any(tag >= VM for tag in sample.records)
    return int(not sample.fresh), int(exclude_guest and guest), int(in_guest and HOST in sample.records)
