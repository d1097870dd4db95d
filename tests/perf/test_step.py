"""perf where the registers have an owner, and its call-stack event where they have none: values worked out by hand."""

from __future__ import annotations

import pytest

from archlbr.lbr.bank import GRANT, HOST, LATER, NOTHING, REFUSE, RELEASE, VM, WANT
from archlbr.lbr.tagged import Lbrs
from archlbr.perf import schedule, step
from archlbr.perf.events import ACTIVE, INACTIVE, OFF, PENDING, REFUSED, Opened
from archlbr.perf.schedule import CpuPerf, TaskPerf

PLAIN, OF_TASK, CALLSTACK = Opened(), Opened(task=1), Opened(task=1, callstack=1)
RUNNING, ASLEEP = CpuPerf(event=ACTIVE, ran=1), CpuPerf(event=INACTIVE, ran=1)


@pytest.mark.parametrize(
    ("perf", "opened", "action", "event", "asked"),
    [
        (CpuPerf(), PLAIN, step.INSTALL, OFF, WANT),
        (RUNNING, PLAIN, step.INSTALL, ACTIVE, NOTHING),
        (CpuPerf(event=INACTIVE), PLAIN, step.ENABLE, INACTIVE, WANT),
        (RUNNING, PLAIN, step.ENABLE, ACTIVE, NOTHING),
        (RUNNING, PLAIN, step.DISABLE, INACTIVE, RELEASE),
        (CpuPerf(event=PENDING), PLAIN, step.DISABLE, INACTIVE, RELEASE),
        (CpuPerf(event=INACTIVE), PLAIN, step.DISABLE, INACTIVE, NOTHING),
        (RUNNING, PLAIN, step.REMOVE, OFF, RELEASE),
        (CpuPerf(event=REFUSED), PLAIN, step.REMOVE, OFF, NOTHING),
        (RUNNING, PLAIN, step.SCHED_OUT, ACTIVE, NOTHING),
        (RUNNING, OF_TASK, step.SCHED_OUT, INACTIVE, RELEASE),
        (ASLEEP, OF_TASK, step.SCHED_IN, INACTIVE, WANT),
        (CpuPerf(event=INACTIVE), OF_TASK, step.SCHED_IN, INACTIVE, NOTHING),
    ],
)
def test_an_action_changes_the_event_and_asks(perf, opened, action, event, asked) -> None:
    after, request = step.step(perf, opened, action)
    assert (after.event, request) == (event, asked)


def test_an_answer_starts_delays_or_refuses() -> None:
    answers = [step.answered(CpuPerf(), OF_TASK, answer) for answer in (GRANT, LATER, REFUSE)]
    assert [(perf.event, perf.ran) for perf in answers] == [(ACTIVE, 1), (PENDING, 0), (REFUSED, 0)]


def test_a_task_takes_its_call_stack_along_and_finds_it_again() -> None:
    perf, task = CpuPerf(users=1, last_callstack=1, event=ACTIVE, ran=1), TaskPerf(known=1, callstack=1)
    lbr, perf, out = schedule.host_task_out(0, Lbrs(1, HOST, (HOST, HOST)), perf, task, 5)
    assert (lbr.enable, perf.users, perf.event, perf.last) == (0, 0, INACTIVE, 5)
    assert out == TaskPerf(known=1, callstack=0, image=(HOST, HOST), select=HOST, saved_on=1)
    # Somebody else was saved here since: the stack is written back.
    guests = Lbrs(0, VM, (VM, VM))
    lbr, after, back = schedule.host_task_in(0, guests, perf._replace(last=1), out, 5, CALLSTACK)
    assert (lbr.stack, lbr.enable, after.event, back.image) == ((HOST, HOST), 1, ACTIVE, ())
    # Nobody was: the shortcut leaves what is there, whoever recorded it.
    lbr, _, _ = schedule.host_task_in(0, guests, perf, out, 5, CALLSTACK)
    assert lbr.stack == (VM, VM)
    lbr, _, _ = schedule.host_task_in(0, guests, perf, out, 5, CALLSTACK, shortcut=0)
    assert lbr.stack == (HOST, HOST)


def test_a_context_at_an_old_address_passes_for_it_where_the_log_ids_are_equal() -> None:
    perf = CpuPerf(users=0, last=1, last_log=1)
    stale, mine = Lbrs(0, VM + 1, (VM + 1, VM + 1)), (VM, VM)
    first = TaskPerf(event=INACTIVE, known=1, callstack=1, image=mine, select=VM, log=1)
    assert schedule.task_in(0, stale, perf, first, 1, PLAIN)[0].stack == (VM + 1, VM + 1)
    assert schedule.task_in(0, stale, perf, first._replace(log=2), 1, PLAIN)[0].stack == mine


def test_frames_are_kept_and_recording_goes_on_above_them() -> None:
    _, task = step.frames_saved(Lbrs(0, HOST, (HOST, 0)), TaskPerf())
    assert task.image == (HOST, 0)
    assert step.frames_loaded(Lbrs(0, VM, (VM, VM)), task) == Lbrs(1, HOST, (HOST, 0))
    assert step.frames_saved(Lbrs(0, HOST, (0, 0)), task)[1].image == ()
