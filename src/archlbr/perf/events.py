"""A host event that wants branch stacks: what it was opened as, and what state perf has it in.

`schedule` moves it, `samples` reads for it, `contract` opens it. The states are those of kernel/events/core.c
(enum perf_event_state), with what a design may answer instead of scheduling it.
"""

from __future__ import annotations

from typing import NamedTuple

# OFF: not opened. INACTIVE: opened, not on the PMU. PENDING: asked for and not yet granted, where a design knows that
# answer. REFUSED: perf_event_open() failed with -EBUSY or -EOPNOTSUPP. ERROR: pinned and without a place
# (merge_sched_in(), kernel/events/core.c).
OFF, INACTIVE, ACTIVE, PENDING, REFUSED, ERROR = range(6)


class Opened(NamedTuple):
    """How a host LBR event was opened; pinned: `:D`. exclude_guest: `:H`. task: it follows a task, not a pCPU.

    exclude_host: `:G`, it counts in guests alone. callstack: `--call-graph lbr`, whose stack is the task's own and is
    saved and restored with it. Its branch filter is HOST, the name of a bank's filter.
    """

    pinned: int = 0
    exclude_guest: int = 1
    task: int = 0
    exclude_host: int = 0
    callstack: int = 0
