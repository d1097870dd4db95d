"""Whole states where the LBRs change hands, where the guest is entered and left, and where it starts over."""

from __future__ import annotations

import pytest

from archlbr.arch.cpuid import Leaf0D1, Leaf07
from archlbr.lbr.actions import Branch, ColdReset, Rsm, Smi, WarmReset
from archlbr.lbr.state import EMPTY, Entry, State
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
    SetCpuid,
    VcpuLoad,
    VcpuPut,
    Xsetbv,
)
from archlbr.vpmu.designs import ARCHLBR, SERIES_V2
from archlbr.vpmu.state import BUSY, FAILS, FREE, Kept, Nested, Pmu, Vmcs
from tests.vpmu.parts import (
    AVX,
    CTL,
    DEBUGCTL,
    DEPTH,
    EVTSEL,
    FROM,
    LBR_XSS,
    PERF_CAPABILITIES,
    SELECT,
    SPR,
    STATUS_SET,
    TOS,
    XSS,
    Vcpu,
    leaves,
    old_part,
    pmu,
)

ALL = 0x7F0007
ENTRY, EXIT = 1 << 21, 1 << 26
FREEZE, FREEZE_SMM = 1 << 11, 1 << 14
FRZ = 1 << 58
TEN, LER = Entry(0x10, 0x18, 0), Entry(0x71, 0x72, 0)


def file(depth: int = 32, *entries: Entry, **fields: object) -> State:
    """Return a register file by hand: everything 0 but what is named."""
    stack = (*entries, *(EMPTY,) * (depth - len(entries)))
    return State(0, depth, stack, EMPTY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)._replace(**fields)


def asking(design=ARCHLBR, guest=None) -> Vcpu:
    """A vCPU that owns the LBRs with one record, a LER and a count that runs."""
    v = Vcpu(design, guest=guest)
    v.wr(CTL, ALL)
    filled = {"stack": (TEN, *(EMPTY,) * (v.state.guest.depth - 1)), "ler": LER, "since": 9, "timed": 1, "pending": 2}
    v.state = v.state._replace(lbr=v.state.lbr._replace(**filled))
    return v


def flags(v: Vcpu) -> tuple[int, int, int, int, int]:
    state = v.state
    return state.running, state.owned, state.loaded, state.event, state.offer


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


def test_a_cold_reset_is_a_fresh_vcpu_that_has_run() -> None:
    for guest in (leaves(), leaves((8, 16, 32), leaf0a=pmu(4))):
        v = asking(guest=guest)
        fresh = Vcpu(ARCHLBR, guest=guest)
        for msr, value in ((XSS, LBR_XSS), (DEBUGCTL, FREEZE), (EVTSEL, 0x5300C4), (0x38F, 1), (0x38D, 0xB)):
            assert v.wr(msr, value) == "ok"
        v.wr(STATUS_SET, FRZ | 1)
        v.do(Xsetbv(7))
        v.do(NestedEntry())
        v.do(Smi())
        v.do(ColdReset())
        # The fields of the VMCS are written at the next entry.
        expected = fresh.state._replace(ran=1, vmcs=v.state.vmcs)
        assert v.state == expected
        assert (v.state.vmcs.passthrough, v.state.vmcs.xss_exiting) == (0, LBR_XSS)
        assert v.state.pmu == Pmu((0,) * len(v.state.pmu.gp), (0,) * len(v.state.pmu.gp), (0,) * len(v.state.pmu.fixed),
                                  0, (1 << len(v.state.pmu.gp)) - 1, 0, 0x3F)  # fmt: skip


def test_series_v2_leaves_the_records_at_a_reset() -> None:
    v = asking(SERIES_V2)
    v.wr(XSS, LBR_XSS)
    v.wr(DEBUGCTL, FREEZE)
    v.do(Smi())
    v.do(ColdReset())
    assert v.state.guest == file(32)
    assert v.state.lbr.stack[0] == TEN
    assert flags(v) == (0, 0, 1, 0, FREE)
    assert (v.state.smram, v.state.xcr0, v.state.nested) == (0, 1, Nested())


def test_a_warm_reset_clears_the_enable_bit_and_keeps_records_and_owner() -> None:
    v = asking()
    v.wr(XSS, LBR_XSS)
    v.wr(DEBUGCTL, FREEZE)
    v.wr(STATUS_SET, FRZ)
    v.do(Xsetbv(7))
    v.do(Smi())
    v.do(WarmReset())
    assert (v.state.guest.ctl, v.state.guest.debugctl, v.state.guest.frozen, v.state.guest.xss) == (ALL & ~1, 0, 0, 0)
    assert (v.state.guest.smm, v.state.smram, v.state.xcr0) == (0, 0, 1)
    assert (v.state.lbr.stack[0], v.state.lbr.ler, v.state.lbr.timed) == (TEN, LER, 0)
    assert flags(v) == (0, 1, 1, 1, FREE)


def test_smi_and_rsm_keep_the_handler_s_place() -> None:
    v = Vcpu(ARCHLBR)
    v.wr(CTL, ALL)
    v.do(Smi())
    assert (v.state.guest.ctl, v.state.guest.smm, v.state.smram) == (ALL & ~1, 1, ALL)
    v.do(Rsm())
    assert (v.state.guest.ctl, v.state.guest.smm, v.state.smram) == (ALL, 0, 0)


@pytest.mark.parametrize("ctl", [ALL, ALL & ~1])
def test_rsm_asks_for_the_lbrs_when_the_request_is_gone(ctl: int) -> None:
    # In series v2 a time slice in SMM, where LBREn is 0, ends the event (B 12); RSM sets LBREn again.
    v = Vcpu(SERIES_V2)
    v.wr(CTL, ctl | 1)
    v.wr(CTL, ctl)
    v.do(Smi())
    v.do(SchedOut())
    v.do(SchedIn())
    assert flags(v) == (0, 0, 1, 0, FREE)
    v.do(Rsm())
    assert flags(v) == (0, ctl & 1, 1, ctl & 1, FREE)
    assert v.rd(CTL) == ctl & 1


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


def test_vmcs12_holds_no_ctl_where_the_controls_are_hidden() -> None:
    v = Vcpu(SERIES_V2)
    v.wr(CTL, ALL)
    v.do(NestedEntry())
    v.hi(CTL, 6)
    v.do(NestedExit())
    w = Vcpu(SERIES_V2)
    w.do(NestedEntry())
    w.hi(CTL, 6)
    assert w.do(NestedExit()) == (0, 0)


def test_an_injected_debug_exception_stops_a_legacy_guest_by_its_debugctl() -> None:
    v = old_part(ARCHLBR)
    v.wr(DEBUGCTL, 1 | FREEZE)
    v.enter()
    v.do(Branch(0x10, 0x18, 1, clock=3))
    v.do(InjectDebug())
    assert (v.rd(DEBUGCTL), v.state.lbr.debugctl, v.state.running) == (FREEZE, FREEZE, 1)


def test_capabilities_of_a_guest_without_pdcm() -> None:
    v = Vcpu(ARCHLBR, guest=leaves(pdcm=0))
    before = v.state
    assert (v.hi(PERF_CAPABILITIES, 0), v.hi(PERF_CAPABILITIES, 1), v.hi(PERF_CAPABILITIES, 0x3F)) == (
        "ok", "refused", "refused",
    )  # fmt: skip
    assert v.state == before
    assert v.rd(PERF_CAPABILITIES) == "#GP"


OLD = leaves(leaf07=Leaf07(), leaf1c=None, leaf0d1=Leaf0D1(0xF, 0, 0, 0), components=(AVX,), leaf0a=pmu(4))


def test_another_cpuid_is_judged_by_the_capabilities_that_are_there() -> None:
    # A legacy guest needs an LBR_FMT other than 0: its own, 5, is kept, and without PDCM there is none.
    v = old_part(ARCHLBR)
    v.hi(PERF_CAPABILITIES, 0)
    assert (v.do(SetCpuid(OLD._replace(long_mode=0))), v.state.pmu.capabilities, v.rd(SELECT)) == ("ok", 0, "#GP")
    w = old_part(ARCHLBR)
    assert (w.do(SetCpuid(OLD._replace(long_mode=0))), w.rd(SELECT), w.state.pmu.capabilities) == ("ok", 0, 5)
    assert (w.do(SetCpuid(OLD._replace(long_mode=1))), w.rd(SELECT)) == ("refused", 0)
    x = old_part(ARCHLBR)
    assert (x.do(SetCpuid(OLD._replace(pdcm=0))), x.state.pmu.capabilities) == ("ok", 0)
    assert x.rd(SELECT) == "#GP"
    y = old_part(ARCHLBR)
    assert (y.do(SetCpuid(OLD._replace(signature=SPR + 1))), y.rd(SELECT)) == ("ok", "#GP")


def test_another_cpuid_before_the_first_run_starts_the_guest_s_registers_over() -> None:
    v = Vcpu(ARCHLBR)
    v.hi(CTL, 7)
    v.hi(FROM, 0x10)
    v.hi(EVTSEL, 0x5300C4)
    wide = leaves((8, 16, 32))
    assert v.do(SetCpuid(wide)) == "ok"
    assert v.state == Vcpu(ARCHLBR, guest=wide).state
