"""Whole states where the LBRs change hands, and where the guest is entered and left."""

from __future__ import annotations

import pytest

from archlbr.lbr.actions import Branch
from archlbr.lbr.state import EMPTY
from archlbr.vpmu.actions import (
    Close,
    Deny,
    Grant,
    HostControl,
    InjectDebug,
    NestedEntry,
    NestedExit,
    Release,
    SchedIn,
    SchedOut,
    VcpuLoad,
    VcpuPut,
)
from archlbr.vpmu.designs import ARCHLBR, SERIES_V2, Design
from archlbr.vpmu.ownership import asked
from archlbr.vpmu.state import BUSY, FAILS, FREE, Kept, Nested, Vmcs
from tests.vpmu.parts import (
    ALL,
    CTL,
    DEBUGCTL,
    DEPTH,
    ENTRY,
    EXIT,
    FREEZE,
    FREEZE_SMM,
    FRZ,
    LBR_XSS,
    SELECT,
    STATUS_SET,
    TOS,
    XSS,
    Vcpu,
    leaves,
    old_part,
)
from tests.vpmu.states import LER, TEN, asking, file, flags


def test_what_perf_takes_goes_to_the_guest_s_copy_and_the_host_finds_nothing() -> None:
    v = asking(guest=leaves((8, 16, 32)))
    v.wr(DEPTH, 8)
    v.state = v.state._replace(lbr=v.state.lbr._replace(stack=(TEN, *(EMPTY,) * 7), ler=LER, since=9, timed=1))
    v.do(Release())
    # The counts do not go along: the entry after a move has CYC_CNT_VALID = 0.
    assert v.state.guest == file(8, TEN, ctl=ALL, ler=LER)
    assert v.state.lbr == file(32)
    assert flags(v) == (0, 0, 1, 1, BUSY)
    assert (v.state.vmcs.passthrough, v.state.vmcs.xss_exiting) == (0, LBR_XSS)
    v.do(Grant())
    assert v.state.lbr == file(8, TEN, ler=LER)
    assert flags(v) == (0, 1, 1, 1, FREE)
    assert (v.state.vmcs.passthrough, v.state.vmcs.xss_exiting) == (8, 0)


@pytest.mark.parametrize(
    ("out", "into", "loaded"), [(SchedOut(), SchedIn(), 0), (VcpuPut(), VcpuLoad(), 0)], ids=["thread", "vCPU"]
)
def test_out_and_in_again(out, into, loaded: int) -> None:
    v = asking()
    v.do(out)
    assert (v.state.guest, v.state.lbr) == (file(32, TEN, ctl=ALL, ler=LER), file(32))
    assert flags(v) == (0, 0, loaded, 1, FREE)
    v.do(into)
    assert v.state.lbr == file(32, TEN, ler=LER)
    assert flags(v) == (0, 1, 1, 1, FREE)


def test_series_v2_moves_the_records_with_its_event_alone() -> None:
    v = asking(SERIES_V2)
    v.do(SchedOut())
    kept = file(32, TEN, ctl=ALL, ler=LER)
    # Perf saves, and wipes nothing (B 11): the records lie there for the next one.
    assert v.state.guest == kept
    assert v.state.lbr == file(32, TEN, ler=LER, since=9, timed=1, pending=2)
    assert flags(v) == (0, 0, 0, 1, FREE)
    v.state = v.state._replace(lbr=file(32))
    v.do(SchedIn())
    assert v.state.lbr == file(32, TEN, ler=LER)
    assert flags(v) == (0, 1, 1, 1, FREE)
    # vcpu_put() and vcpu_load() of a thread that goes on move nothing at all.
    v.do(VcpuPut())
    assert flags(v) == (0, 1, 0, 1, FREE)
    assert v.state.lbr == file(32, TEN, ler=LER)
    v.do(VcpuLoad())
    assert flags(v) == (0, 1, 1, 1, FREE)
    # B 12: with LBREn 0 the next slice takes the event, and the contents with it.
    v.wr(CTL, ALL & ~1)
    v.do(SchedOut())
    v.do(SchedIn())
    assert v.state.guest == file(32, ctl=ALL & ~1)
    assert flags(v) == (0, 0, 1, 0, FREE)


def test_closing_leaves_no_request_and_no_owner() -> None:
    v = asking()
    v.do(Close())
    assert flags(v) == (0, 0, 0, 0, FREE)
    assert (v.state.lbr, v.state.guest) == (file(32), file(32, TEN, ctl=ALL, ler=LER))


def test_a_denied_request_stands_in_archlbr_and_is_gone_in_series_v2() -> None:
    for design, event, granted in ((ARCHLBR, 1, 1), (SERIES_V2, 0, 0)):
        v = Vcpu(design)
        v.do(Deny())
        v.wr(CTL, ALL)
        assert flags(v) == (0, 0, 1, event, FAILS)
        v.do(Grant())
        assert flags(v) == (0, granted, 1, event, FREE)


def test_what_is_offered_to_a_vcpu_that_is_away_waits_for_it() -> None:
    v = asking()
    v.do(SchedOut())
    v.do(Release())
    v.do(Grant())
    assert flags(v) == (0, 0, 0, 1, FREE)
    v.do(SchedIn())
    assert flags(v) == (0, 1, 1, 1, FREE)


def test_a_grant_while_the_host_records_is_for_later() -> None:
    v = Vcpu(ARCHLBR)
    v.do(Release())
    v.wr(CTL, ALL)
    v.do(HostControl(ALL))
    v.do(Grant())
    assert flags(v) == (0, 0, 1, 1, FREE)
    assert v.state.lbr == file(32, ctl=ALL)
    v.do(HostControl(6))
    assert flags(v) == (0, 1, 1, 1, FREE)
    assert v.state.lbr == file(32, ctl=6)


def test_entry_and_exit_switch_ctl_debugctl_and_xss_and_put_the_host_s_back() -> None:
    v = asking()
    v.wr(XSS, LBR_XSS)
    v.wr(DEBUGCTL, FREEZE)
    v.wr(STATUS_SET, FRZ)
    # The host's own: of its DEBUGCTL the guest runs with FREEZE_WHILE_SMM alone.
    own = {"ctl": 6, "debugctl": FREEZE_SMM | 1 << 12, "xss": 1 << 8}
    v.state = v.state._replace(lbr=v.state.lbr._replace(**own))
    before = v.state
    v.enter()
    inside = v.state.lbr
    assert (inside.ctl, inside.debugctl, inside.xss, inside.frozen) == (ALL, FREEZE | FREEZE_SMM, LBR_XSS, 1)
    assert v.state.kept == Kept(6, FREEZE_SMM | 1 << 12, 1 << 8, 0)
    assert v.state.vmcs == Vmcs(ALL, FREEZE | FREEZE_SMM, ENTRY, EXIT, 0, 32)
    v.exit()
    # LBR_FRZ stopped the count; nothing else of the two files has moved.
    assert v.state.lbr == before.lbr._replace(since=0, timed=0, pending=0)
    assert v.state.guest == before.guest
    assert (v.state.kept, flags(v)) == (Kept(), (0, 1, 1, 1, FREE))
    assert v.state.vmcs == Vmcs(ALL, FREEZE | FREEZE_SMM, ENTRY, EXIT, 0, 32)


def test_an_entry_under_a_host_without_freeze_while_smm_sets_none() -> None:
    for design in (ARCHLBR, SERIES_V2):
        v = Vcpu(design)
        v.state = v.state._replace(lbr=v.state.lbr._replace(debugctl=1 << 12))
        v.enter()
        assert v.state.lbr.debugctl == 0


def test_xss_written_in_the_guest_is_in_the_processor_at_once_and_outside_it_is_not() -> None:
    v = Vcpu(ARCHLBR)
    v.wr(XSS, LBR_XSS)
    assert (v.state.lbr.xss, v.state.guest.xss) == (0, LBR_XSS)
    v.enter()
    assert (v.wr(XSS, 0), v.state.lbr.xss, v.state.guest.xss) == ("ok", 0, 0)
    assert (v.wr(XSS, LBR_XSS), v.state.lbr.xss, v.state.guest.xss) == ("ok", LBR_XSS, LBR_XSS)
    v.exit()
    assert (v.state.lbr.xss, v.state.guest.xss) == (0, LBR_XSS)


@pytest.mark.parametrize("freeze", [0, FREEZE])
def test_legacy_lbrs_given_to_a_running_guest_record_at_once(freeze: int) -> None:
    v = old_part(ARCHLBR)
    v.do(Release())
    v.wr(DEBUGCTL, 1 | freeze)
    v.enter()
    # The enable bit of a guest that does not own the LBRs stays out of the processor.
    assert (v.state.lbr.debugctl, v.state.guest.debugctl) == (freeze, 1 | freeze)
    v.do(Grant())
    assert (v.state.lbr.debugctl, v.state.running, v.state.owned) == (1 | freeze, 1, 1)


def test_legacy_filter_and_pointer_move_with_the_entries() -> None:
    v = old_part(ARCHLBR)
    v.wr(DEBUGCTL, 1)
    v.wr(SELECT, 2)
    v.wr(TOS, 5)
    v.do(Release())
    assert (v.state.lbr, v.state.guest) == (file(32), file(32, debugctl=1, select=2, tos=5))
    v.do(Grant())
    assert v.state.lbr == file(32, select=2, tos=5)


def test_l2_s_exit_puts_l1_s_registers_back_and_clears_debugctl() -> None:
    v = Vcpu(ARCHLBR, {"nested": 1})
    v.wr(CTL, ALL)
    v.wr(DEBUGCTL, FREEZE)
    v.enter()
    v.do(NestedEntry(ENTRY, EXIT, 6, FREEZE | 1, 1))
    assert v.state.nested == Nested(1, ENTRY, EXIT, 1, ALL, FREEZE, FREEZE)
    assert (v.state.guest.ctl, v.state.lbr.ctl, v.state.lbr.debugctl, v.rd(DEBUGCTL)) == (6, 6, FREEZE, FREEZE)
    assert v.do(NestedExit()) == (6, FREEZE)
    assert v.state.nested == Nested()
    assert (v.rd(CTL), v.rd(DEBUGCTL), v.state.lbr.debugctl, v.state.lbr.ctl) == (0, 0, 0, 0)


def test_vmcs12_holds_no_ctl_where_the_controls_are_hidden_and_l1_has_its_own_again() -> None:
    v = Vcpu(SERIES_V2)
    v.wr(CTL, ALL)
    v.do(NestedEntry())
    v.hi(CTL, 6)
    assert v.rd(CTL) == 6
    assert v.do(NestedExit()) == (0, 0)
    assert v.rd(CTL) == ALL


def test_an_injected_debug_exception_stops_a_legacy_guest_by_its_debugctl() -> None:
    v = old_part(ARCHLBR)
    v.wr(DEBUGCTL, 1 | FREEZE)
    v.enter()
    v.do(Branch(0x10, 0x18, 1, clock=3))
    v.do(InjectDebug())
    assert (v.rd(DEBUGCTL), v.state.lbr.debugctl, v.state.running) == (FREEZE, FREEZE, 1)


@pytest.mark.parametrize(
    ("msr", "value", "kept"),
    [(CTL, ALL, 1), (CTL, 7, 1), (CTL, ALL & ~1, 0), (0x38E, 0, 1), (0x38E, 1, 1), (0x38E, FRZ, 0)],
)
def test_counts_end_where_recording_is_stopped_from_outside(msr: int, value: int, kept: int) -> None:
    v, w = asking(), asking()
    v.hi(msr, value)
    assert (v.state.lbr.since, v.state.lbr.timed, v.state.lbr.pending) == (9 * kept, kept, 2 * kept)
    assert (v.state.guest.ctl, v.state.guest.frozen) == ((value, 0) if msr == CTL else (ALL, value >> 58))
    # The host's own counts are nobody else's to end.
    w.do(Release())
    w.state = w.state._replace(lbr=file(32, ctl=1, since=5, timed=1, pending=3))
    w.hi(msr, value)
    assert w.state.lbr == file(32, ctl=1, since=5, timed=1, pending=3)


def test_a_freeze_in_the_guest_ends_the_counts_and_goes_with_the_owner() -> None:
    v = asking()
    v.enter()
    v.wr(STATUS_SET, 1)
    assert (v.state.lbr.frozen, v.state.lbr.timed, v.state.lbr.since) == (0, 1, 9)
    v.wr(STATUS_SET, FRZ)
    assert (v.state.lbr.frozen, v.state.guest.frozen, v.state.lbr.timed, v.state.lbr.since) == (1, 1, 0, 0)
    v.exit()
    # Out of the guest the processor's LBR_FRZ is the host's again.
    assert (v.state.lbr.frozen, v.state.guest.frozen) == (0, 1)


def test_l2_has_no_registers_of_its_own_where_the_controls_are_hidden() -> None:
    v = asking()
    v.do(NestedEntry(debugctl=FREEZE))
    assert (v.state.vmcs.passthrough, v.state.vmcs.xss_exiting, v.state.guest.ctl) == (0, LBR_XSS, 0)
    assert v.state.nested == Nested(1, 0, 0, 0, ALL, 0, FREEZE)
    v.do(NestedExit())
    assert (v.state.guest.ctl, v.state.guest.debugctl, v.state.nested) == (ALL, 0, Nested())
    v.enter()
    assert (v.state.vmcs.passthrough, v.state.vmcs.xss_exiting) == (32, 0)


def test_depth_written_forgets_entries_and_counts_in_both_files_and_keeps_the_rest() -> None:
    v = asking(guest=leaves((8, 16, 32)))
    v.hi(XSS, LBR_XSS)
    assert v.hi(DEPTH, 16) == "ok"
    assert v.state.lbr == file(16, ler=LER)
    assert v.state.guest == file(16, ctl=ALL, xss=LBR_XSS)
    assert v.state.vmcs.passthrough == 16


def test_lbrs_asked_for_in_the_guest_are_frozen_or_not_as_the_guest_is() -> None:
    for frozen in (0, 1):
        v = Vcpu(ARCHLBR)
        v.enter()
        v.wr(STATUS_SET, FRZ * frozen)
        v.wr(CTL, ALL)
        assert (v.state.owned, v.state.lbr.frozen, v.state.lbr.ctl, v.state.lbr.debugctl) == (1, frozen, ALL, 0)
        v.branch(0x10, 0x18)
        assert v.froms(1) == [0x10 * (1 - frozen)]


@pytest.mark.parametrize("design", [ARCHLBR, SERIES_V2])
def test_who_asks_twice_or_has_no_lbrs_gets_nothing_new(design: Design) -> None:
    none = Vcpu(design, guest=leaves(leaf1c=None))
    assert asked(design, none.platform, none.state) == none.state
    waiting = Vcpu(design)
    waiting.state = waiting.state._replace(event=1)
    assert asked(design, waiting.platform, waiting.state) == waiting.state


def test_legacy_lbrs_asked_for_in_the_guest_record_at_once() -> None:
    v = old_part(ARCHLBR)
    v.enter()
    assert v.wr(DEBUGCTL, 1 | FREEZE) == "ok"
    assert (v.state.owned, v.state.lbr.debugctl, v.state.guest.debugctl) == (1, 1 | FREEZE, 1 | FREEZE)
    v.branch(0x10, 0x18)
    assert v.state.lbr.stack[1][:2] == (0x10, 0x18)
