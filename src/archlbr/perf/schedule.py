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

    users: lbr_users. guest: the vLBR event runs. last_callstack: the filter of the last adder, the vLBR's or the host
    event's, asks for call stacks (br_sel, one field for all). last: the context saved last here, by its number, which
    stands for its address, 0 for none. last_log: last_log_id, where a setting counts it. event: the host event's state.
    ran: its total_time_running is not 0. overflow: a host counter overflowed and its NMI has not been taken.
    """

    users: int = 0
    guest: int = 0
    last_callstack: int = 0
    last: int = 0
    event: int = OFF
    ran: int = 0
    overflow: int = 0
    last_log: int = 0


class TaskPerf(NamedTuple):
    """What perf keeps of one thread (struct x86_perf_task_context).

    event: the vLBR event's state. known: the context exists. callstack: lbr_callstack_users. image, select: the saved
    stack and LBR_SELECT; image is () for LBR_NONE. saved_on: pCPU + 1 of the last save, which stands for log_id as long
    as no context is freed and made again at the same address. log: log_id itself, where a setting counts it.
    """

    event: int = OFF
    known: int = 0
    callstack: int = 0
    image: tuple[Any, ...] = ()
    select: int = 0
    saved_on: int = 0
    log: int = 0


def was_reset(lbrs: B, perf: CpuPerf) -> tuple[B, CpuPerf]:
    """intel_pmu_lbr_reset(): records and LBR_SELECT become 0, and the last saved context is forgotten."""
    return lbrs.cleared(), perf._replace(last=0, last_log=0)


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
    perf = perf._replace(users=min(perf.users + 1, MOST_USERS), guest=1, last_callstack=1)
    return lbrs, perf, task._replace(event=ACTIVE, known=1, callstack=min(task.callstack + 1, MOST_USERS))


def guest_deleted(perf: CpuPerf, task: TaskPerf, state: int) -> tuple[CpuPerf, TaskPerf]:
    """intel_pmu_lbr_del() for the vLBR: it looks at the last adder's filter, not at its own event's."""
    callstack = max(task.callstack - perf.last_callstack, 0)
    perf = perf._replace(users=max(perf.users - 1, 0), guest=0)
    return perf, task._replace(event=state, callstack=callstack)


def host_added(lbrs: B, perf: CpuPerf, opened: Opened, task: TaskPerf | None) -> tuple[B, CpuPerf, TaskPerf | None]:
    """intel_pmu_lbr_add() for the host event; task: whose context counts a call-stack event, if it has one."""
    if perf.users == 0 and not perf.ran:
        lbrs, perf = was_reset(lbrs, perf)
    users = min(perf.users + 1, MOST_USERS)
    perf = perf._replace(users=users, last_callstack=opened.callstack, event=ACTIVE, ran=1)
    if opened.callstack and task is not None:
        task = task._replace(known=1, callstack=min(task.callstack + 1, MOST_USERS))
    return lbrs, perf, task


def host_deleted(perf: CpuPerf, state: int, task: TaskPerf | None = None) -> tuple[CpuPerf, TaskPerf | None]:
    """intel_pmu_lbr_del() for the host event; task: a call-stack event's own, which is counted by the last filter."""
    if task is not None:
        task = task._replace(callstack=max(task.callstack - perf.last_callstack, 0))
    users = max(perf.users - 1, 0)
    return perf._replace(users=users, event=state, ran=perf.ran if state != OFF else 0), task


def guest_created(lbrs: B, perf: CpuPerf, task: TaskPerf, opened: Opened) -> tuple[B, CpuPerf, TaskPerf]:
    """perf_event_create_kernel_counter() in the vCPU thread: ctx_resched() moves its events and flexible ones."""
    lbrs = disabled_all(lbrs, perf)
    moves = perf.event == ACTIVE and not opened.pinned
    if moves:
        perf, _ = host_deleted(perf, INACTIVE)
    lbrs, perf, task = guest_added(lbrs, perf, task, ran=0)
    if moves:
        lbrs, perf, _ = host_added(lbrs, perf, opened, None)
    return enabled_all(lbrs, perf), perf, task


def guest_released(lbrs: B, perf: CpuPerf, task: TaskPerf, state: int) -> tuple[B, CpuPerf, TaskPerf]:
    """perf_event_release_kernel(), or merge_sched_in() finding no place (state ERROR): nothing is saved."""
    if task.event == ACTIVE:
        perf, task = guest_deleted(perf, task, state)
        lbrs = enabled_all(lbrs, perf)
    return lbrs, perf, task._replace(event=state)


def host_installed(lbrs: B, perf: CpuPerf, task: TaskPerf, opened: Opened, *, vcpu: int) -> tuple[B, CpuPerf, TaskPerf]:
    """__perf_install_in_context() or __perf_event_enable(), by IPI: ctx_resched() saves nothing.

    A pinned event moves the running vLBR out and in again; a flexible one is added beside it. vcpu: 1 when the task
    that runs is a vCPU thread, 0 when it is the host task, to which a call-stack event belongs.
    """
    lbrs = disabled_all(lbrs, perf)
    moves = vcpu and task.event == ACTIVE and opened.pinned
    if moves:
        perf, task = guest_deleted(perf, task, INACTIVE)
    lbrs, perf, mine = host_added(lbrs, perf, opened, None if vcpu else task)
    if moves:
        lbrs, perf, task = guest_added(lbrs, perf, task, ran=1)
    return enabled_all(lbrs, perf), perf, task if mine is None else mine


def host_removed(
    lbrs: B, perf: CpuPerf, state: int, task: TaskPerf | None = None
) -> tuple[B, CpuPerf, TaskPerf | None]:
    """__perf_event_disable() (state INACTIVE; also a rotation) or __perf_remove_from_context() (state OFF)."""
    lbrs = disabled_all(lbrs, perf)
    if perf.event == ACTIVE:
        perf, task = host_deleted(perf, state, task)
    else:
        perf = perf._replace(event=state, ran=0)
    return enabled_all(lbrs, perf), perf, task


def saved(stack: tuple[Any, ...]) -> tuple[Any, ...]:
    """__intel_pmu_lbr_save(): the stack up to the first FROM that is 0; empty means LBR_VALID with no entry."""
    if 0 in stack:
        cut = stack.index(0)
        return stack[:cut] + (0,) * (len(stack) - cut)
    return stack


def _kept(cpu: int, lbrs: B, perf: CpuPerf, task: TaskPerf, number: int, logs: int) -> tuple[B, CpuPerf, TaskPerf]:
    # __intel_pmu_lbr_save(), if somebody uses the LBRs here and the task has a context.
    if not perf.users or not task.known:
        return lbrs, perf, task
    if not task.callstack:
        return lbrs, perf, task._replace(image=())
    lbrs, stack = lbrs.saved()
    task = task._replace(image=saved(stack), select=lbrs.select, saved_on=0 if logs else cpu + 1)
    if logs:
        task = task._replace(log=task.log + 1)
    return lbrs, perf._replace(last=number, last_log=task.log), task


def _restored(
    cpu: int, lbrs: B, perf: CpuPerf, task: TaskPerf | None, number: int, shortcut: int
) -> tuple[B, CpuPerf, TaskPerf | None]:
    # __intel_pmu_lbr_restore(), with its shortcut, if somebody uses the LBRs here.
    if not perf.users:
        return lbrs, perf, task
    if task is None or not task.known or not task.callstack or not task.image:
        lbrs, perf = was_reset(lbrs, perf)
    else:
        newest = 0
        if shortcut and perf.last == number and task.saved_on in (0, cpu + 1) and task.log == perf.last_log:
            lbrs, newest = lbrs.read_newest()
        if not newest:
            lbrs = lbrs.loaded(task.select, task.image)
    if task is not None and task.known:
        task = task._replace(image=(), select=0)
    return lbrs, perf, task


def task_out(
    cpu: int, lbrs: B, perf: CpuPerf, task: TaskPerf, number: int, logs: int = 0
) -> tuple[B, CpuPerf, TaskPerf]:
    """perf_event_task_sched_out() of a vCPU thread, context `number`: the only path that saves."""
    lbrs, perf, task = _kept(cpu, disabled_all(lbrs, perf), perf, task, number, logs)
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
            perf, _ = host_deleted(perf, INACTIVE)
        lbrs, perf, task = guest_added(lbrs, perf, task, ran=1)
        if moves:
            lbrs, perf, _ = host_added(lbrs, perf, opened, None)
    lbrs, perf, task = _restored(cpu, lbrs, perf, task, number, shortcut)
    return enabled_all(lbrs, perf), perf, task


def host_task_out(
    cpu: int, lbrs: B, perf: CpuPerf, task: TaskPerf, number: int, logs: int = 0
) -> tuple[B, CpuPerf, TaskPerf]:
    """perf_event_task_sched_out() of the host task, whose own event runs: a call-stack event's stack is saved."""
    lbrs, perf, task = _kept(cpu, disabled_all(lbrs, perf), perf, task, number, logs)
    perf, after = host_deleted(perf, INACTIVE, task)
    return lbrs, perf, task if after is None else after


def host_task_in(
    cpu: int, lbrs: B, perf: CpuPerf, task: TaskPerf, number: int, opened: Opened, *, shortcut: int = 1
) -> tuple[B, CpuPerf, TaskPerf]:
    """perf_event_task_sched_in() of the host task: its event is added, and a call-stack event's stack comes back."""
    lbrs = disabled_all(lbrs, perf)
    if opened.task and perf.event == INACTIVE and perf.ran:
        lbrs, perf, added = host_added(lbrs, perf, opened, task)
        task = task if added is None else added
    lbrs, perf, back = _restored(cpu, lbrs, perf, task if task.known else None, number, shortcut)
    return enabled_all(lbrs, perf), perf, task if back is None else back
