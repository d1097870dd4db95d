"""Sections 1 and 2 of the reference: which registers there are, and what a write becomes."""

from __future__ import annotations

import pytest

from archlbr.errors import InternalError
from tests.lbr.parts import (
    ALL,
    COND,
    CTL,
    DEBUGCTL,
    DEPTH,
    FROM,
    INFO,
    LER_FROM,
    LER_INFO,
    LER_TO,
    OLD_FROM,
    OLD_INFO,
    OLD_TO,
    ONES,
    OTHER,
    PERF_CAPABILITIES,
    SELECT,
    STATUS,
    STATUS_RESET,
    STATUS_SET,
    TO,
    TOS,
    XSS,
)


@pytest.mark.parametrize(
    ("msr", "value"),
    [
        pytest.param(CTL, 0, id="2.1 IA32_LBR_CTL"),
        pytest.param(DEPTH, 32, id="2.1 IA32_LBR_DEPTH is the maximum"),
        pytest.param(INFO, 0, id="2.1 IA32_LBR_x_INFO"),
        pytest.param(FROM + 31, 0, id="2.1 IA32_LBR_x_FROM_IP"),
        pytest.param(TO + 31, 0, id="2.1 IA32_LBR_x_TO_IP"),
        pytest.param(LER_FROM, 0, id="2.1 IA32_LER_FROM_IP"),
        pytest.param(LER_TO, 0, id="2.1 IA32_LER_TO_IP"),
        pytest.param(LER_INFO, 0, id="2.1 IA32_LER_INFO"),
        pytest.param(PERF_CAPABILITIES, 0x3F, id="1.2 LBR_FMT is 3FH"),
        pytest.param(DEBUGCTL, 0, id="1.3"),
        pytest.param(STATUS, 0, id="3.6"),
    ],
)
def test_reset_values(part, msr, value):
    assert part.rd(msr) == value


@pytest.mark.parametrize(
    "msr",
    [
        pytest.param(SELECT, id="1.3 no LBR_SELECT"),
        pytest.param(TOS, id="1.3 no TOS"),
        pytest.param(OLD_FROM, id="1.3 no 680H"),
        pytest.param(OLD_TO, id="1.3 no 6C0H"),
        pytest.param(OLD_INFO, id="1.3 no DC0H"),
    ],
)
def test_the_legacy_registers_are_not_there(part, msr):
    assert part.rd(msr) is None
    assert part.wr(msr, 0) is False


@pytest.mark.parametrize(
    "msr",
    [
        pytest.param(msr, id=f"2.1 {msr:X}H is there only with the architectural facility")
        for msr in (CTL, DEPTH, INFO, FROM, TO, LER_INFO)
    ],
)
def test_the_architectural_registers_are_not_on_a_legacy_part(make, msr):
    part = make.legacy()
    assert part.rd(msr) is None
    assert part.wr(msr, 0) is False


@pytest.mark.parametrize("msr", [LER_FROM, LER_TO], ids=["2.1 1DDH", "2.1 1DEH"])
def test_legacy_parts_have_two_ler_registers(make, msr):
    part = make.legacy()
    assert part.wr(msr, 0x1234) is True
    assert part.rd(msr) == 0x1234


# IA32_LBR_CTL ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bit", [0, 1, 2, 3, 16, 17, 18, 19, 20, 21, 22])
def test_2_2_a_bit_of_ctl_can_be_set(part, bit):
    assert part.wr(CTL, 1 << bit) is True
    assert part.rd(CTL) == 1 << bit


@pytest.mark.parametrize("bit", [*range(4, 16), *range(23, 64)])
def test_2_2_a_reserved_bit_of_ctl_faults(part, bit):
    assert part.wr(CTL, 0x380005) is True
    assert part.wr(CTL, 0x380005 | 1 << bit) is False
    assert part.rd(CTL) == 0x380005


@pytest.mark.parametrize(
    ("ebx", "legal"),
    [
        pytest.param(7, 0x7F000F, id="2.2 all gates open"),
        pytest.param(6, 0x7F0009, id="2.2 EBX[0] = 0: OS and USR must be 0"),
        pytest.param(5, 0x00000F, id="2.2 EBX[1] = 0: the kinds must be 0"),
        pytest.param(3, 0x7F0007, id="2.2 EBX[2] = 0: CALL_STACK must be 0"),
        pytest.param(0, 0x000001, id="2.2 no gate open"),
    ],
)
def test_cpuid_gates_the_bits_of_ctl(make, ebx, legal):
    part = make((0x4000000B, ebx, 7))
    assert part.wr(CTL, legal) is True
    for bit in range(64):
        assert part.wr(CTL, 1 << bit) is bool(legal >> bit & 1)


def test_2_2_writing_ctl_keeps_the_entries(part):
    part.wr(CTL, ALL)
    part.branch(COND, 0x10, 0x20)
    for value in (0, 0x400007, ALL, 0):
        assert part.wr(CTL, value)
        assert part.froms() == [0x10]


# IA32_LBR_DEPTH ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eax", "legal"),
    [
        pytest.param(0x4000000B, [8, 16, 32], id="2.3 EAX = 4000000BH: 24 is not legal"),
        pytest.param(0x00000001, [8], id="2.3 EAX = 1"),
        pytest.param(0x00000084, [24, 64], id="2.3 EAX = 84H"),
    ],
)
def test_depth_takes_what_cpuid_enumerates(make, eax, legal):
    part = make((eax, 7, 7), xsaves=False)
    assert part.rd(DEPTH) == max(legal)
    for value in [*range(73), 0x108, 1 << 32 | 8, 1 << 63 | 8]:
        assert part.wr(DEPTH, value) is (value in legal), value
    for value in legal:
        assert part.wr(DEPTH, value)
        assert part.rd(DEPTH) == value


@pytest.mark.parametrize("value", [8, 16, 32], ids=["2.3 8", "2.3 16", "2.3 the same value"])
def test_each_write_of_depth_clears_the_entries(part, value):
    part.wr(CTL, ALL)
    part.branch(COND, 0x10, 0x20, mispredicted=1)
    part.branch(OTHER, 0x30, 0x40, event=1)
    assert part.wr(DEPTH, value)
    assert part.stack() == []
    assert [part.rd(msr) for msr in (FROM, TO, INFO, FROM + 1, TO + 7, INFO + 7)] == [0] * 6
    # 2.3: LER is not cleared (UNCONFIRMED), LBREn stays.
    assert (part.rd(LER_FROM), part.rd(LER_TO), part.rd(LER_INFO)) == (0x10, 0x20, 1 << 63)
    assert part.rd(CTL) == ALL


def test_2_3_a_refused_depth_changes_nothing(part):
    part.wr(CTL, ALL)
    part.branch(COND, 0x10, 0x20)
    assert part.wr(DEPTH, 24) is False
    assert part.rd(DEPTH) == 32
    assert part.froms() == [0x10]


# Entries and LER ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [8, 16, 32])
@pytest.mark.parametrize("base", [FROM, TO, INFO], ids=["2.4 FROM", "2.4 TO", "2.4 INFO"])
def test_an_index_at_or_above_the_current_depth_faults(part, base, depth):
    part.wr(DEPTH, depth)
    for x in range(64):
        reachable = x < depth
        assert (part.rd(base + x) is not None) is reachable
        assert part.wr(base + x, 0x40) is reachable
    assert part.rd(base + depth - 1) == 0x40


@pytest.mark.parametrize("base", [FROM, TO, INFO], ids=["2.4 FROM", "2.4 TO", "2.4 INFO"])
def test_a_write_reaches_the_one_register(part, base):
    part.wr(CTL, ALL)
    for n in range(5):
        part.branch(COND, 0x100 + n, 0x200 + n)
    before = {msr: part.rd(msr) for msr in (*range(FROM, FROM + 32), *range(TO, TO + 32), *range(INFO, INFO + 32))}
    assert part.wr(base + 3, 0x7FFF_FFFF_0000)
    before[base + 3] = 0x7FFF_FFFF_0000
    assert {msr: part.rd(msr) for msr in before} == before


CANONICAL = [
    pytest.param(48, 0, True, id="2.4 zero"),
    pytest.param(48, 0x0000_7FFF_FFFF_FFFF, True, id="2.4 the last of the lower half"),
    pytest.param(48, 0x0000_8000_0000_0000, False, id="2.4 the first hole (UNCONFIRMED)"),
    pytest.param(48, 0xFFFF_7FFF_FFFF_FFFF, False, id="2.4 the last hole (UNCONFIRMED)"),
    pytest.param(48, 0xFFFF_8000_0000_0000, True, id="2.4 the first of the upper half"),
    pytest.param(48, ONES, True, id="3.2 a masked FROM can be written back"),
    pytest.param(48, 0xFFFF_FFFF, True, id="3.2 so can one of 32 ones"),
    pytest.param(57, 0x00FF_FFFF_FFFF_FFFF, True, id="2.4 LA57 (UNCONFIRMED)"),
    pytest.param(57, 0x0100_0000_0000_0000, False, id="2.4 LA57: hole (UNCONFIRMED)"),
    pytest.param(57, 0xFF00_0000_0000_0000, True, id="2.4 LA57: upper half (UNCONFIRMED)"),
]


@pytest.mark.parametrize(("width", "value", "accepted"), CANONICAL)
@pytest.mark.parametrize("msr", [FROM, TO + 7, LER_FROM, LER_TO])
def test_addresses_must_be_canonical(make, msr, width, value, accepted):
    part = make(linear_width=width)
    assert part.wr(msr, value) is accepted
    assert part.rd(msr) == (value if accepted else 0)


@pytest.mark.parametrize("msr", [INFO, LER_INFO], ids=["2.5 INFO", "4.3 LER_INFO"])
@pytest.mark.parametrize("value", [ONES, 1 << 16, 1 << 48, 0x00FF_0000_FFFF_0000])
def test_info_takes_any_value(part, msr, value):
    assert part.wr(msr, value) is True
    assert part.rd(msr) == value


# IA32_DEBUGCTL and the shared registers ----------------------------------------------------------------------------


@pytest.mark.parametrize("bit", range(64))
def test_1_3_the_bits_of_debugctl(part, bit):
    legal = bit in (0, 1, 2, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    assert part.wr(DEBUGCTL, 1 << bit) is legal
    # Bit 0 may be written and always reads 0.
    assert part.rd(DEBUGCTL) == (1 << bit if legal and bit else 0)


@pytest.mark.parametrize(("pmu", "legal"), [(1, False), (2, True)])
def test_1_3_the_freeze_bits_need_pmu_version_2(make, pmu, legal):
    part = make(pmu=pmu)
    assert part.wr(DEBUGCTL, 1 << 11) is legal
    assert part.wr(DEBUGCTL, 1 << 12) is legal


def test_1_3_debugctl_lbr_has_no_effect(part):
    part.wr(DEBUGCTL, 1)
    part.branch(COND)
    assert part.stack() == []


def test_1_2_perf_capabilities_is_read_only(part):
    assert part.wr(PERF_CAPABILITIES, 0x3F) is False


@pytest.mark.parametrize(
    ("pmu", "status", "reset", "reset_frz", "set_"),
    [
        pytest.param(1, False, False, False, False, id="3.6 version 1"),
        pytest.param(2, True, True, False, False, id="3.6 version 2"),
        pytest.param(3, True, True, False, False, id="3.6 version 3"),
        pytest.param(4, True, True, True, True, id="3.6 version 4"),
        pytest.param(5, True, True, True, True, id="3.6 version 5"),
    ],
)
def test_the_status_registers_by_pmu_version(make, pmu, status, reset, reset_frz, set_):
    part = make(pmu=pmu)
    assert (part.rd(STATUS) is not None) is status
    assert part.wr(STATUS, 0) is False
    assert part.wr(STATUS_RESET, 1) is reset
    assert part.wr(STATUS_RESET, 1 << 58) is reset_frz
    assert part.wr(STATUS_SET, 1 << 58) is set_
    assert part.rd(STATUS) == ((1 << 58 if set_ else 0) if status else None)


def test_1_1_xss_holds_bit_15(part):
    assert part.wr(XSS, 0x8000) is True
    assert part.rd(XSS) == 0x8000
    assert part.wr(XSS, 0x8001) is False


def test_1_1_without_xsaves_there_is_no_xss(make):
    part = make(xsaves=False)
    assert part.rd(XSS) is None
    assert part.wr(XSS, 0) is False


def test_1_1_component_15_holds_no_64_entries(make):
    with pytest.raises(InternalError, match="component 15 holds 32 entries, the leaf offers 64"):
        make((0x80, 7, 7))
    with pytest.raises(InternalError, match="offers no depth"):
        make((0, 7, 7))
