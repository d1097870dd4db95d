"""perf's side where the registers have an owner: it starts and stops recording, and reads only what is the host's.

`contract` composes it with `vpmu.designs.handover`. Authority: ours, docs/decisions/030; perf_load_guest_context() and
perf_put_guest_context() (kernel/events/core.c of the merged mediated vPMU) for the designs that schedule events out.
"""

from __future__ import annotations

from archlbr.lbr.tagged import HOST, NOBODY, Lbrs
from archlbr.perf.events import ACTIVE, INACTIVE, OFF
from archlbr.perf.samples import NONE, STALE, Sample


def started(lbrs: Lbrs, *, wipes: bool = True, enables: bool = True, selects: bool = True) -> Lbrs:
    """Return the registers once the host records: wiped, under its filter, enabled; a flag off leaves a step out.

    Wiping, rather than restoring what was there before, keeps two records that are neighbours in a sample neighbours in
    the program: whoever reads a stack infers straight-line code between them.
    """
    stack = (NOBODY,) * len(lbrs.stack) if wipes else lbrs.stack
    return Lbrs(int(enables), HOST if selects else lbrs.select, stack)


def stopped(lbrs: Lbrs) -> Lbrs:
    """Return the registers once the host has stopped recording."""
    return Lbrs(0, lbrs.select, lbrs.stack)


def state_when_closed(closed: int) -> int:
    """Return the state of an event that is disabled (0) or closed (1)."""
    return OFF if closed else INACTIVE


def sample(lbrs: Lbrs, owner: int, event: int, *, asks_owner: bool = True, says_none: bool = True) -> Sample:
    """Return what a sample holds: the stack if the host owns the registers, an explicit none if not."""
    if event == ACTIVE and (owner == HOST or not asks_owner):
        return Sample(lbrs.stack, 0, 1)
    return NONE if says_none else STALE
