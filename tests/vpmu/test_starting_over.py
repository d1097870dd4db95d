"""Whole states where a vCPU begins and starts over: creation, another CPUID, resets, SMM."""

from __future__ import annotations

import pytest

from archlbr.lbr.actions import ColdReset, Rsm, Smi, WarmReset
from archlbr.vpmu.actions import (
    NestedEntry,
    SchedIn,
    SchedOut,
    SetCpuid,
    Xsetbv,
)
from archlbr.vpmu.designs import ARCHLBR, SERIES_V2
from archlbr.vpmu.state import FREE, Kept, Nested, Pmu, Vmcs
from tests.vpmu.parts import (
    ALL,
    CTL,
    DEBUGCTL,
    ENTRY,
    EVTSEL,
    EXIT,
    FREEZE,
    FROM,
    FRZ,
    LBR_XSS,
    OFF,
    PERF_CAPABILITIES,
    SELECT,
    SPR,
    STATUS_SET,
    XSS,
    Vcpu,
    leaves,
    old_part,
    pmu,
)
from tests.vpmu.states import LER, TEN, asking, file, flags


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


def test_capabilities_of_a_guest_without_pdcm() -> None:
    v = Vcpu(ARCHLBR, guest=leaves(pdcm=0))
    before = v.state
    assert (v.hi(PERF_CAPABILITIES, 0), v.hi(PERF_CAPABILITIES, 1), v.hi(PERF_CAPABILITIES, 0x3F)) == (
        "ok", "refused", "refused",
    )  # fmt: skip
    assert v.state == before
    assert v.rd(PERF_CAPABILITIES) == "#GP"


OLD = OFF._replace(leaf0a=pmu(4))


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


def test_a_fresh_vcpu() -> None:
    v = Vcpu(ARCHLBR)
    # The general-purpose counters are enabled (SDM vol. 3B, reset values); component 15 exits until the guest owns.
    pmu_ = Pmu((0,) * 8, (0,) * 8, (0,) * 4, 0, 0xFF, 0, 0x3F)
    fields = (file(32), file(32), 0, 0, 1, 0, FREE, Vmcs(0, 0, ENTRY, EXIT, LBR_XSS, 0), pmu_, Nested(), Kept())
    assert v.state == (*fields, leaves(), v.state.rules, 0, 1, 0)
    old = Vcpu(ARCHLBR, guest=leaves(leaf0a=pmu(1), pdcm=0))
    assert old.state.pmu == Pmu((0,) * 4, (0,) * 4, (), 0, 0, 0, 0)
    assert Vcpu(ARCHLBR, guest=leaves(leaf0a=pmu(2))).state.pmu.global_ctrl == 0xF
