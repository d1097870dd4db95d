"""perf's scheduling of LBR users, step by step: values worked out by hand from arch/x86/events/intel/lbr.c."""

from __future__ import annotations

from archlbr.lbr.bank import HOST, NOBODY, VM
from archlbr.lbr.tagged import Lbrs
from archlbr.perf import samples, schedule
from archlbr.perf import step as owned
from archlbr.perf.events import ACTIVE, INACTIVE, OFF, PENDING, Opened
from archlbr.perf.schedule import CpuPerf, TaskPerf

FLEXIBLE, PINNED = Opened(), Opened(pinned=1)
GUESTS = Lbrs(0, VM, (VM, VM))
HOSTS = Lbrs(1, HOST, (HOST, HOST))
RUNNING = CpuPerf(users=1, guest=1, last_callstack=1)
ON = TaskPerf(event=ACTIVE, known=1, callstack=1)


def test_the_first_user_that_never_ran_resets_and_forgets_the_last_context() -> None:
    lbr, perf, task = schedule.guest_created(Lbrs(0, HOST, (HOST, HOST)), CpuPerf(last=2), TaskPerf(), FLEXIBLE)
    assert lbr == Lbrs(0, NOBODY, (0, 0))
    assert perf == CpuPerf(users=1, guest=1, last_callstack=1, last=0)
    assert task == TaskPerf(event=ACTIVE, known=1, callstack=1)


def test_a_second_user_resets_nothing() -> None:
    traced = CpuPerf(users=1, event=ACTIVE, ran=1)
    lbr, perf, _ = schedule.guest_created(HOSTS, traced, TaskPerf(), PINNED)
    assert lbr == Lbrs(0, HOST, (HOST, HOST))
    assert (perf.users, perf.guest, perf.last_callstack) == (2, 1, 1)


def test_a_flexible_event_is_added_after_the_vlbr_so_that_the_count_drifts() -> None:
    traced = CpuPerf(users=1, event=ACTIVE, ran=1)
    lbr, perf, task = schedule.guest_created(HOSTS, traced, TaskPerf(), FLEXIBLE)
    assert (perf.last_callstack, task.callstack) == (0, 1)
    lbr, perf, task = schedule.guest_released(lbr, perf, task, OFF)
    assert (perf.users, task.event, task.callstack) == (1, OFF, 1)
    assert (lbr.enable, lbr.select) == (1, HOST)


def test_opening_a_pinned_event_wipes_the_guest_and_opening_a_flexible_one_does_not() -> None:
    lbr, perf, task = schedule.host_installed(GUESTS, RUNNING, ON, PINNED, vcpu=1)
    assert lbr == Lbrs(0, NOBODY, (0, 0))
    assert (perf.users, perf.guest, perf.event) == (2, 1, ACTIVE)
    assert task == ON
    lbr, perf, _ = schedule.host_installed(GUESTS, RUNNING, ON, FLEXIBLE, vcpu=1)
    assert lbr == GUESTS
    assert (perf.users, perf.guest, perf.event) == (2, 1, ACTIVE)


def test_perf_touches_no_enable_bit_while_the_vlbr_runs_or_nobody_uses_the_lbrs() -> None:
    on = Lbrs(1, VM, (VM, VM))
    for perf in (RUNNING, CpuPerf()):
        assert schedule.disabled_all(on, perf) == on
        assert schedule.enabled_all(on, perf) == on
    traced = CpuPerf(users=1, event=ACTIVE)
    assert schedule.disabled_all(HOSTS, traced).enable == 0
    assert schedule.enabled_all(Lbrs(0, NOBODY, (0, 0)), traced) == Lbrs(1, HOST, (0, 0))


def test_a_switch_out_saves_and_a_switch_in_restores() -> None:
    lbr, perf, out = schedule.task_out(0, GUESTS, RUNNING, ON, 1)
    assert out == TaskPerf(INACTIVE, 1, 0, (VM, VM), VM, 1)
    assert (perf.users, perf.guest, perf.last) == (0, 0, 1)
    others = Lbrs(0, VM + 1, (VM + 1, VM + 1))
    lbr, perf, back = schedule.task_in(0, others, perf._replace(last=2), out, 1, FLEXIBLE)
    assert lbr == GUESTS
    assert back == ON._replace(saved_on=1)
    assert perf.guest == 1


def test_the_shortcut_restores_nothing_if_nobody_else_was_saved_and_the_newest_record_is_there() -> None:
    _, perf, out = schedule.task_out(0, GUESTS, RUNNING, ON, 1)
    others = Lbrs(0, VM + 1, (VM + 1, VM + 1))
    assert schedule.task_in(0, others, perf, out, 1, FLEXIBLE)[0] == others
    cleared = Lbrs(0, NOBODY, (0, 0))
    assert schedule.task_in(0, cleared, perf, out, 1, FLEXIBLE)[0] == GUESTS
    assert schedule.task_in(1, others, perf, out, 1, FLEXIBLE)[0] == GUESTS


def test_saving_stops_at_the_first_empty_record() -> None:
    assert schedule.saved((VM, 0, VM)) == (VM, 0, 0)
    assert schedule.saved((0, VM)) == (0, 0)
    assert schedule.saved((VM, VM)) == (VM, VM)


def test_another_task_under_a_host_event_resets() -> None:
    traced = CpuPerf(users=1, event=ACTIVE, ran=1, last=1)
    lbr, perf, _ = schedule.task_in(0, HOSTS, traced, None, 0, FLEXIBLE)
    assert lbr == Lbrs(1, HOST, (0, 0))
    assert perf.last == 0


def test_a_muted_sample_is_stale_and_an_owned_one_says_none() -> None:
    assert samples.read(GUESTS, muted=1) == samples.STALE
    assert samples.faults(samples.STALE, exclude_guest=1, in_guest=0) == (1, 0, 0)
    assert owned.sample(GUESTS, VM, ACTIVE) == samples.NONE
    assert owned.sample(HOSTS, HOST, PENDING) == samples.NONE
    assert owned.sample(HOSTS, HOST, ACTIVE).records == (HOST, HOST)
    assert samples.faults(samples.read(GUESTS, muted=0), exclude_guest=1, in_guest=0) == (0, 1, 0)
    assert samples.faults(samples.read(HOSTS, muted=0), exclude_guest=0, in_guest=1) == (0, 0, 1)
