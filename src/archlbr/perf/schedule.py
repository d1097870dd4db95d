"""perf's scheduling of LBR users on one pCPU, as the merged kernels do it: one pure function a kernel function.

`host` composes it with KVM's side. `guest` below is bit 58 of intel_ctrl_guest_mask: the vLBR event runs here.
Authority: arch/x86/events/intel/lbr.c and kernel/events/core.c of v6.1.192 and v6.12.117, by way of reference
perf-kvm-contract.md A3 and A4. It is a prediction about those kernels until somebody has seen it on hardware.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from archlbr.lbr.bank import HOST, B
from archlbr.perf.events import ACTIVE, INACTIVE, OFF, Opened

MOST_USERS = 2  # where the model stops counting a reference count that drifts


class CpuPerf(NamedTuple):
    """What perf keeps of one pCPU (struct cpu_hw_events), as far as LBRs go.

    users: lbr_users. guest: the vLBR event runs. last_is_guest: the last adder was the vLBR (br_sel, one field for
    all). last: the context saved last here, by its number, 0 for none. event: the host event's state. ran: its
    total_time_running is not 0. overflow: a host counter overflowed and its NMI has not been taken.
    """

    users: int = 0
    guest: int = 0
    last_is_guest: int = 0
    last: int = 0
    event: int = OFF
    ran: int = 0
    overflow: int = 0


class TaskPerf(NamedTuple):
    """What perf keeps of one vCPU thread (struct x86_perf_task_context).

    event: the vLBR event's state. known: the context exists. callstack: lbr_callstack_users. image, select: the saved
    stack and LBR_SELECT; image is () for LBR_NONE. saved_on: pCPU + 1 of the last save, which stands for log_id.
    """

    event: int = OFF
    known: int = 0
    callstack: int = 0
    image: tuple[Any, ...] = ()
    select: int = 0
    saved_on: int = 0


def was_reset(lbrs: B, perf: CpuPerf) -> tuple[B, CpuPerf]:
    """intel_pmu_lbr_reset(): records and LBR_SELECT become 0, and the last saved context is forgotten."""
    return lbrs.cleared(), perf._replace(last=0)


def enabled_all(lbrs: B, perf: CpuPerf) -> B:
    """perf_pmu_enable(): intel_pmu_lbr_enable_all() does nothing without users, or while the vLBR runs."""
    if perf.guest or not perf.users:
        return lbrs
    return lbrs.programmed(HOST, 1)


def disabled_all(lbrs: B, perf: CpuPerf) -> B:
    """perf_pmu_disable(): intel_pmu_lbr_disable_all() does nothing without users, or while the vLBR runs."""
    return lbrs if perf.guest or not perf.users else lbrs.controlled(0)


def guest_added(lbrs: B, perf: CpuPerf, task: TaskPerf, ran: int) -> tuple[B, CpuPerf, TaskPerf]:
    """intel_pmu_lbr_add() for the vLBR: the registers are reset only for the first user that never ran."""
    if perf.users == 0 and not ran:
        lbrs, perf = was_reset(lbrs, perf)
    perf = perf._replace(users=min(perf.users + 1, MOST_USERS), guest=1, last_is_guest=1)
    return lbrs, perf, task._replace(event=ACTIVE, known=1, callstack=min(task.callstack + 1, MOST_USERS))


def guest_deleted(perf: CpuPerf, task: TaskPerf, state: int) -> tuple[CpuPerf, TaskPerf]:
    """intel_pmu_lbr_del() for the vLBR: it looks at the last adder's filter, not at its own event's."""
    callstack = max(task.callstack - perf.last_is_guest, 0)
    perf = perf._replace(users=max(perf.users - 1, 0), guest=0)
    return perf, task._replace(event=state, callstack=callstack)


def host_added(lbrs: B, perf: CpuPerf) -> tuple[B, CpuPerf]:
    """intel_pmu_lbr_add() for the host event."""
    if perf.users == 0 and not perf.ran:
        lbrs, perf = was_reset(lbrs, perf)
    return lbrs, perf._replace(users=min(perf.users + 1, MOST_USERS), last_is_guest=0, event=ACTIVE, ran=1)


def host_deleted(perf: CpuPerf, state: int) -> CpuPerf:
    """intel_pmu_lbr_del() for the host event."""
    return perf._replace(users=max(perf.users - 1, 0), event=state, ran=perf.ran if state != OFF else 0)


def guest_created(lbrs: B, perf: CpuPerf, task: TaskPerf, opened: Opened) -> tuple[B, CpuPerf, TaskPerf]:
    """perf_event_create_kernel_counter() in the vCPU thread: ctx_resched() moves its events and flexible ones."""
    lbrs = disabled_all(lbrs, perf)
    moves = perf.event == ACTIVE and not opened.pinned
    if moves:
        perf = host_deleted(perf, INACTIVE)
    lbrs, perf, task = guest_added(lbrs, perf, task, ran=0)
    if moves:
        lbrs, perf = host_added(lbrs, perf)
    return enabled_all(lbrs, perf), perf, task


def guest_released(lbrs: B, perf: CpuPerf, task: TaskPerf, state: int) -> tuple[B, CpuPerf, TaskPerf]:
    """perf_event_release_kernel(), or merge_sched_in() finding no place (state ERROR): nothing is saved."""
    if task.event == ACTIVE:
        perf, task = guest_deleted(perf, task, state)
        lbrs = enabled_all(lbrs, perf)
    return lbrs, perf, task._replace(event=state)


def host_installed(lbrs: B, perf: CpuPerf, task: TaskPerf | None, opened: Opened) -> tuple[B, CpuPerf, TaskPerf | None]:
    """__perf_install_in_context() or __perf_event_enable(), by IPI: ctx_resched() saves nothing.

    A pinned event moves the running vLBR out and in again; a flexible one is added beside it.
    """
    lbrs = disabled_all(lbrs, perf)
    moved = task if task is not None and task.event == ACTIVE and opened.pinned else None
    if moved is not None:
        perf, moved = guest_deleted(perf, moved, INACTIVE)
    lbrs, perf = host_added(lbrs, perf)
    if moved is not None:
        lbrs, perf, task = guest_added(lbrs, perf, moved, ran=1)
    return enabled_all(lbrs, perf), perf, task


def host_removed(lbrs: B, perf: CpuPerf, state: int) -> tuple[B, CpuPerf]:
    """__perf_event_disable() (state INACTIVE; also a rotation) or __perf_remove_from_context() (state OFF)."""
    lbrs = disabled_all(lbrs, perf)
    perf = host_deleted(perf, state) if perf.event == ACTIVE else perf._replace(event=state, ran=0)
    return enabled_all(lbrs, perf), perf


def saved(stack: tuple[Any, ...]) -> tuple[Any, ...]:
    """__intel_pmu_lbr_save(): the stack up to the first FROM that is 0; empty means LBR_VALID with no entry."""
    if 0 in stack:
        cut = stack.index(0)
        return stack[:cut] + (0,) * (len(stack) - cut)
    return stack


def task_out(cpu: int, lbrs: B, perf: CpuPerf, task: TaskPerf, number: int) -> tuple[B, CpuPerf, TaskPerf]:
    """perf_event_task_sched_out() of a vCPU thread, context `number`: the only path that saves."""
    lbrs = disabled_all(lbrs, perf)
    if perf.users and task.known:
        if task.callstack:
            lbrs, stack = lbrs.saved()
            task = task._replace(image=saved(stack), select=lbrs.select, saved_on=cpu + 1)
            perf = perf._replace(last=number)
        else:
            task = task._replace(image=())
    if task.event == ACTIVE:
        perf, task = guest_deleted(perf, task, INACTIVE)
    return lbrs, perf, task


def task_in(
    cpu: int, lbrs: B, perf: CpuPerf, task: TaskPerf | None, number: int, opened: Opened, *, shortcut: int = 1
) -> tuple[B, CpuPerf, TaskPerf | None]:
    """perf_event_task_sched_in(): the vLBR is added, then __intel_pmu_lbr_restore(), with its shortcut.

    task: None for a task without a vCPU. shortcut: 1 where a restore is skipped if nobody else was saved here since.
    """
    lbrs = disabled_all(lbrs, perf)
    if task is not None and task.event == INACTIVE:
        moves = perf.event == ACTIVE and not opened.pinned and not opened.task
        if moves:
            perf = host_deleted(perf, INACTIVE)
        lbrs, perf, task = guest_added(lbrs, perf, task, ran=1)
        if moves:
            lbrs, perf = host_added(lbrs, perf)
    if perf.users:
        if task is None or not task.known or not task.callstack or not task.image:
            lbrs, perf = was_reset(lbrs, perf)
        else:
            newest = 0
            if shortcut and perf.last == number and task.saved_on == cpu + 1:
                lbrs, newest = lbrs.read_newest()
            if not newest:
                lbrs = lbrs.loaded(task.select, task.image)
        if task is not None and task.known:
            task = task._replace(image=(), select=0)
    return enabled_all(lbrs, perf), perf, task
