"""What KVM tells userspace of its registers and takes from it: the list in its order, each value where it lies."""

from __future__ import annotations

import pytest

from archlbr.lbr.actions import Xrstors, Xsaves
from archlbr.vpmu.actions import FeatureMsr, Grant, NestedEntry, Release, SaveList, SchedOut
from archlbr.vpmu.designs import ARCHLBR, SERIES_V2
from tests.vpmu.parts import (
    ALL,
    CTL,
    DEBUGCTL,
    DEPTH,
    FIXED,
    FROM,
    FRZ,
    GLOBAL_CTRL,
    HIGH,
    INFO,
    LBR_XSS,
    LER_FROM,
    LER_INFO,
    LER_TO,
    OLD_FROM,
    OLD_INFO,
    OLD_TO,
    PERF_CAPABILITIES,
    PMC,
    SELECT,
    STATUS,
    STATUS_RESET,
    STATUS_SET,
    TO,
    TOS,
    XSS,
    Vcpu,
    leaves,
    old_part,
)

# PERF_CAPABILITIES, eight selects and counters, four fixed counters, FIXED_CTR_CTRL, GLOBAL_STATUS, GLOBAL_CTRL.
COUNTERS = (0x345, *range(0x186, 0x18E), *range(0xC1, 0xC9), *range(0x309, 0x30D), 0x38D, 0x38E, 0x38F)
ENTRIES = (*range(0x1500, 0x1520), *range(0x1600, 0x1620), *range(0x1200, 0x1220))


@pytest.mark.parametrize(
    ("options", "archlbr", "series_v2"),
    [
        (
            {},
            (*COUNTERS, 0x1D9, 0xDA0, 0x14CF, 0x1DD, 0x1DE, 0x1E0, *ENTRIES, 0x14CE),
            (*COUNTERS, 0xDA0, 0x14CE, 0x14CF),
        ),
        ({"pmu": 0}, (0x1D9,), (0xDA0, 0x14CE, 0x14CF)),
        ({"entry_controls": 0}, (*COUNTERS, 0x1D9), COUNTERS),
        (
            {"xss": 0},
            (*COUNTERS, 0x1D9, 0x14CF, 0x1DD, 0x1DE, 0x1E0, *ENTRIES, 0x14CE),
            (*COUNTERS, 0x14CE, 0x14CF),
        ),
    ],
)  # fmt: skip
def test_the_save_list_in_its_order(options: dict[str, int], archlbr: tuple[int, ...], series_v2: object) -> None:
    for design, expected in ((ARCHLBR, archlbr), (SERIES_V2, series_v2)):
        assert Vcpu(design, options, leaves(leaf07=leaves().leaf07._replace(edx=0))).do(SaveList()) == expected


def test_the_capabilities_kvm_offers() -> None:
    # Of the host's only LBR_FMT, bits 5:0, and full-width writes, bit 13; PEBS and the rest are not virtualized.
    host = {"capabilities": 0x1_FFFF}
    off = leaves(leaf1c=None)
    for options, offered in (
        ({}, 0x203F),
        ({"pmu": 0}, 0),
        ({"entry_controls": 0}, 0x2000),
        ({"vendor": "amd"}, 0x2000),
    ):
        assert Vcpu(ARCHLBR, {**host, **options}, off).do(FeatureMsr(PERF_CAPABILITIES)) == offered
    assert old_part(ARCHLBR, capabilities=0x1_FFC5).do(FeatureMsr(PERF_CAPABILITIES)) == 0x2005
    assert old_part(ARCHLBR).do(FeatureMsr(PERF_CAPABILITIES)) == 5
    v = Vcpu(ARCHLBR, host)
    taken = [value for value in (0, 0x3F, 0x2000, 0x203F, 0x203E, 0x603F) if v.hi(PERF_CAPABILITIES, value) == "ok"]
    assert (taken, v.rd(PERF_CAPABILITIES)) == ([0, 0x3F, 0x2000, 0x203F], 0x203F)


def test_userspace_writes_the_status_and_all_bits_of_a_counter() -> None:
    v = Vcpu(ARCHLBR)
    assert (v.hi(STATUS, FRZ | 0x81 | 0xF << 32), v.rd(STATUS), v.state.guest.frozen) == (
        "ok", FRZ | 0x81 | 0xF << 32, 1,
    )  # fmt: skip
    assert v.state.pmu.status == 0x81 | 0xF << 32
    assert (v.hi(STATUS, 1 << 8), v.hi(STATUS, 1 << 59), v.wr(STATUS, 0)) == ("refused", "refused", "#GP")
    assert (v.hi(STATUS, 0), v.rd(STATUS), v.state.guest.frozen) == ("ok", 0, 0)
    assert (v.hi(PMC + 1, 0xABCD_8000_0001), v.rd(PMC + 1), v.hi(PMC + 1, 1 << 48)) == (
        "ok",
        0xABCD_8000_0001,
        "refused",
    )
    assert (v.hi(FIXED + 1, 0x1_ABCD_8000_0001), v.hi(FIXED + 1)) == ("ok", 0xABCD_8000_0001)
    assert (v.hi(GLOBAL_CTRL, 0xFF | 0xF << 32), v.hi(GLOBAL_CTRL, 1 << 8)) == ("ok", "refused")


def test_the_status_is_set_and_cleared_bit_by_bit() -> None:
    v = Vcpu(ARCHLBR)
    assert (v.wr(STATUS_SET, 3), v.wr(STATUS_SET, FRZ | 4), v.rd(STATUS)) == ("ok", "ok", FRZ | 7)
    assert (v.wr(STATUS_RESET, 2), v.rd(STATUS)) == ("ok", FRZ | 5)
    assert (v.wr(STATUS_RESET, FRZ), v.rd(STATUS)) == ("ok", 5)
    assert (v.rd(STATUS_SET), v.rd(STATUS_RESET)) == (0, 0)
    assert (v.wr(STATUS_SET, 1 << 8), v.wr(STATUS_RESET, 1 << 8), v.rd(STATUS)) == ("#GP", "#GP", 5)


@pytest.mark.parametrize("owned", [1, 0])
@pytest.mark.parametrize("msr", [FROM, FROM + 31, TO, TO + 7, INFO, INFO + 31, LER_FROM, LER_TO, LER_INFO])
def test_an_entry_is_written_where_it_lies_and_nothing_beside_it(owned: int, msr: int) -> None:
    v = Vcpu(ARCHLBR)
    if not owned:
        v.do(Release())
    v.wr(CTL, 1)
    v.wr(CTL, 0)
    every = [*ENTRIES, LER_FROM, LER_TO, LER_INFO]
    values = {each: each << 4 if each != LER_INFO else 3 << 56 for each in every}
    for each, value in values.items():
        assert v.wr(each, value) == "ok"
    assert v.wr(msr, 0x123) == "ok"
    assert {each: v.rd(each) for each in every} == {**values, msr: 0x123}
    mine, other = (v.state.lbr, v.state.guest) if owned else (v.state.guest, v.state.lbr)
    assert (mine.stack[1], other.stack[1]) == ((0x15010, 0x16010, 0x12010), (0, 0, 0))
    # What moves with ownership is all of it, in both directions.
    before = {each: v.rd(each) for each in every}
    v.do(Release() if owned else Grant())
    assert {each: v.rd(each) for each in every} == before


@pytest.mark.parametrize("msr", [FROM, TO, LER_FROM, LER_TO])
def test_an_address_is_canonical_or_refused(msr: int) -> None:
    v = Vcpu(ARCHLBR)
    taken = [value for value in (0, (1 << 47) - 1, 1 << 47, HIGH - 1, HIGH, (1 << 64) - 1) if v.wr(msr, value) == "ok"]
    assert taken == [0, (1 << 47) - 1, HIGH, (1 << 64) - 1]
    assert v.rd(msr) == (1 << 64) - 1


def test_legacy_entries_lie_by_number_and_userspace_reads_them_away_from_the_processor() -> None:
    v = old_part(ARCHLBR)
    v.wr(DEBUGCTL, 1)
    v.wr(DEBUGCTL, 0)
    for x, msr in enumerate((OLD_FROM + 3, OLD_TO + 3, OLD_INFO + 3), 1):
        assert v.wr(msr, 0x100 * x) == "ok"
    assert (v.wr(SELECT, 0x1FF), v.wr(TOS, 3)) == ("ok", "ok")
    assert v.state.lbr.stack[3] == (0x100, 0x200, 0x300)
    v.do(SchedOut())
    assert [v.hi(msr) for msr in (OLD_FROM + 3, OLD_TO + 3, OLD_INFO + 3, SELECT, TOS)] == [
        0x100,
        0x200,
        0x300,
        0x1FF,
        3,
    ]
    assert (v.state.lbr.select, v.state.lbr.tos) == (0, 0)


def test_registers_that_are_not_there_take_0_where_they_are_listed() -> None:
    v = Vcpu(ARCHLBR, guest=leaves(leaf1c=None))
    for msr in (CTL, DEPTH, FROM, TO + 31, INFO, LER_INFO):
        assert (v.hi(msr), v.hi(msr, 0), v.hi(msr, 1), v.rd(msr), v.wr(msr, 0)) == (0, "ok", "refused", "#GP", "#GP")
    # Above the host's DEPTH nothing is listed; nor are the other facility's.
    for msr in (FROM + 32, SELECT, OLD_FROM):
        assert (v.hi(msr), v.hi(msr, 0)) == ("refused", "refused")


def test_xsaves_where_there_is_none_and_where_l2_has_no_lbrs() -> None:
    area = bytes(576 + 808)
    v = Vcpu(ARCHLBR, guest=leaves(leaf0d1=leaves().leaf0d1._replace(eax=7, ecx=0), components=()))
    assert (v.do(Xsaves(area)), v.do(Xrstors(area))) == ("#UD", "#UD")
    w = Vcpu(ARCHLBR)
    w.wr(XSS, LBR_XSS)
    w.wr(CTL, ALL)
    w.do(NestedEntry())
    assert (w.do(Xsaves(area)), len(w.do(Xsaves(area, rfbm=0)))) == ("#GP", 576 + 808)


@pytest.mark.parametrize("owned", [1, 0])
def test_xrstors_asks_once_and_goes_to_the_file_that_answers(owned: int) -> None:
    v = Vcpu(ARCHLBR)
    v.wr(XSS, LBR_XSS)
    if not owned:
        v.do(Release())
    assert v.xrstors(ALL, 32, (0x10, 0x18, 0)) == "ok"
    assert (v.state.event, v.state.owned, v.rd(CTL), v.rd(FROM), v.rd(TO)) == (1, owned, ALL, 0x10, 0x18)
    assert v.hardware[0] == 0x10 * owned
    assert v.xsaves() == {"xstate": LBR_XSS, "ctl": ALL, "depth": 32, "froms": [0x10, 0]}
