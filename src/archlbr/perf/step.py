"""perf's side where the registers have an owner: what it asks of KVM, and what it does with each answer.

`host` routes: an action on the host event becomes WANT or RELEASE, KVM's answer comes back by `answered`, and perf
never waits for it. `vpmu.designs.handover` gives the answers. Authority: ours, docs/decisions/030;
perf_load_guest_context() and perf_put_guest_context() (kernel/events/core.c of the merged mediated vPMU) for the
designs that schedule events out. Where no design asks anybody, perf is `schedule`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.lbr.bank import GRANT, HOST, LATER, NOTHING, RELEASE, WANT, B, Bank
from archlbr.perf.events import ACTIVE, INACTIVE, OFF, PENDING, REFUSED, Opened
from archlbr.perf.samples import NONE, STALE, Sample

if TYPE_CHECKING:
    from archlbr.perf.schedule import CpuPerf, TaskPerf

INSTALL, ENABLE, DISABLE, REMOVE, SCHED_OUT, SCHED_IN = range(6)


def step(perf: CpuPerf, opened: Opened, action: int) -> tuple[CpuPerf, int]:
    """Return perf's state on a pCPU after an action on its host event, and what it asks: WANT, RELEASE or NOTHING.

    SCHED_OUT and SCHED_IN are a task event's: its task leaves the pCPU and comes back.
    """
    event = perf.event
    if action == INSTALL:
        return perf, WANT if event == OFF else NOTHING
    if action == ENABLE:
        return perf, WANT if event == INACTIVE else NOTHING
    if action == SCHED_IN:
        return perf, WANT if opened.task and event == INACTIVE and perf.ran else NOTHING
    if action == SCHED_OUT:
        if not opened.task or event != ACTIVE:
            return perf, NOTHING
        return perf._replace(event=INACTIVE), RELEASE
    after = perf._replace(event=OFF if action == REMOVE else INACTIVE, ran=0)
    if event in (ACTIVE, PENDING):
        return after, RELEASE
    return (after if action == REMOVE else perf), NOTHING


def answered(perf: CpuPerf, opened: Opened, answer: int) -> CpuPerf:
    """Return perf's state after KVM's answer: the event runs, waits or is refused (-EBUSY, -EOPNOTSUPP)."""
    if answer == GRANT:
        return perf._replace(event=ACTIVE, ran=opened.task)
    return perf._replace(event=PENDING if answer == LATER else REFUSED)


def started(lbrs: B, *, wipes: bool = True, enables: bool = True, selects: bool = True) -> B:
    """Return the registers once the host records: wiped, under its filter, enabled; a flag off leaves a step out.

    Wiping, rather than restoring what was there before, keeps two records that are neighbours in a sample neighbours in
    the program: whoever reads a stack infers straight-line code between them.
    """
    if wipes:
        lbrs = lbrs.wiped()
    return lbrs.programmed(HOST if selects else lbrs.select, int(enables))


def stopped(lbrs: B) -> B:
    """Return the registers once the host has stopped recording."""
    return lbrs.controlled(0)


def frames_saved(lbrs: B, task: TaskPerf) -> tuple[B, TaskPerf]:
    """Return the registers, and a task's context with its call-stack event's frames, when the task leaves."""
    lbrs, stack = lbrs.saved()
    return lbrs, task._replace(image=stack if any(stack) else ())


def frames_loaded(lbrs: B, task: TaskPerf) -> B:
    """Return the registers once a call-stack event records again, above the frames that its task left."""
    return lbrs.loaded(HOST, task.image).programmed(HOST, 1)


def sample(lbrs: Bank, owner: int, event: int, *, asks_owner: bool = True, says_none: bool = True) -> Sample:
    """Return what a sample holds: the stack if the host owns the registers, an explicit none if not."""
    if event == ACTIVE and (owner == HOST or not asks_owner):
        return Sample(lbrs.stack, 0, 1)
    return NONE if says_none else STALE
