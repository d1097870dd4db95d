"""Section 4 of the reference: XSAVES and XRSTORS of component 15, byte by byte."""

from __future__ import annotations

import struct

import pytest

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
    ONES,
    OTHER,
    STATUS,
    TO,
    XSS,
    image,
)

CTL_AT, DEPTH_AT, LER_AT, ENTRY_AT = 576, 584, 592, 616


@pytest.fixture
def saver(part):
    part.wr(XSS, 0x8000)
    return part


def fill(part, depth=8):
    """Put two branches in the stack; the older is LER's as well."""
    part.wr(DEPTH, depth)
    part.wr(CTL, ALL)
    part.branch(COND, 0xA, 0xB, mispredicted=1, clock=1)
    part.branch(OTHER, 0xC, 0xD, clock=6, event=1)


FILLED = [(0xC, 0xD, 0x1800_0000_0000_0005), (0xA, 0xB, 0x8000_0000_0000_0000)]
LER = (0xA, 0xB, 0x8000_0000_0000_0000)


def ler(part):
    return part.rd(LER_FROM), part.rd(LER_TO), part.rd(LER_INFO)


# XSAVES -------------------------------------------------------------------------------------------------------------


def test_4_1_the_image_byte_by_byte(saver):
    fill(saver)
    assert saver.xsaves() == image(ALL, 8, LER, FILLED)


def test_4_1_entries_follow_the_order_of_the_registers(saver):
    saver.wr(CTL, ALL)
    for n in range(40):
        saver.branch(COND, 0x100 + n, 0x200 + n, clock=3 * n)
    expected = [(0x127 - x, 0x227 - x, 0x1000_0000_0000_0003) for x in range(32)]
    assert saver.xsaves() == image(ALL, 32, (0, 0, 0), expected)


@pytest.mark.parametrize("depth", [8, 16, 32])
def test_4_1_entries_at_depth_and_above_are_not_touched(saver, depth):
    fill(saver, depth)
    area = saver.xsaves(b"\xee" * 1384)
    end = ENTRY_AT + 24 * depth
    assert area[: ENTRY_AT + 48][576:] == image(ALL, depth, LER, FILLED)[576 : ENTRY_AT + 48]
    assert area[ENTRY_AT + 48 : end] == bytes(end - ENTRY_AT - 48)
    assert area[end:] == b"\xee" * (1384 - end)


def test_4_2_xsaves_writes_two_header_words_and_no_legacy_region(saver):
    fill(saver)
    area = saver.xsaves(b"\xee" * 1384)
    assert area[:512] == b"\xee" * 512
    assert area[512:528] == struct.pack("<QQ", 0x8000, 0x8000_0000_0000_8000)
    assert area[528:576] == b"\xee" * 48


def test_4_2_xsaves_does_not_clear_lbren_or_disturb_anything(saver):
    fill(saver)
    saver.xsaves()
    assert (saver.rd(CTL), saver.rd(DEPTH), saver.stack(), ler(saver)) == (ALL, 8, FILLED, LER)
    saver.branch(COND, 0xE, clock=8)
    assert saver.rd(INFO) == 0x1000_0000_0000_0002


@pytest.mark.parametrize(
    ("xss", "rfbm", "header"),
    [
        pytest.param(0, 0x8000, (0, 1 << 63), id="4.2 IA32_XSS[15] = 0"),
        pytest.param(0x8000, 0, (0, 1 << 63), id="4.2 RFBM[15] = 0"),
    ],
)
def test_the_gate_of_xsaves(part, xss, rfbm, header):
    part.wr(XSS, xss)
    fill(part)
    area = part.xsaves(b"\xee" * 1384, rfbm)
    assert struct.unpack_from("<QQ", area, 512) == header
    assert area[576:] == b"\xee" * 808


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda part: part.wr(CTL, 2), id="4.2 CTL"),
        pytest.param(lambda part: part.wr(LER_FROM, 1), id="4.2 LER_FROM"),
        pytest.param(lambda part: part.wr(LER_TO, 1), id="4.2 LER_TO"),
        pytest.param(lambda part: part.wr(LER_INFO, 1), id="4.2 LER_INFO"),
        pytest.param(lambda part: part.wr(FROM + 31, 1), id="4.2 FROM"),
        pytest.param(lambda part: part.wr(TO + 31, 1), id="4.2 TO"),
        pytest.param(lambda part: part.wr(INFO + 31, 1), id="4.2 INFO"),
    ],
)
def test_xinuse(saver, use):
    saver.wr(DEPTH, 8)
    saver.wr(DEPTH, 32)
    # All but DEPTH are 0: the component is in its initial configuration, and XSAVES writes nothing of it.
    area = saver.xsaves(b"\xee" * 1384)
    assert struct.unpack_from("<QQ", area, 512) == (0, 0x8000_0000_0000_8000)
    assert area[576:] == b"\xee" * 808
    use(saver)
    area = saver.xsaves(b"\xee" * 1384)
    assert struct.unpack_from("<QQ", area, 512) == (0x8000, 0x8000_0000_0000_8000)
    assert area[DEPTH_AT : DEPTH_AT + 8] == struct.pack("<Q", 32)


@pytest.mark.parametrize("build", ["without", "legacy"])
def test_4_2_without_the_component_the_instructions_are_undefined(make, build):
    part = make(xsaves=False) if build == "without" else make.legacy()
    assert part.xsaves() == "#UD"
    assert part.xrstors(image()) == "#UD"


# XRSTORS ------------------------------------------------------------------------------------------------------------


def test_4_2_the_same_depth_loads_everything(saver):
    rows = [(0x100 + x, 0x200 + x, 0x300 + x) for x in range(32)]
    assert saver.xrstors(image(0x010007, 32, (1, 2, 3), rows)) == "done"
    assert (saver.rd(CTL), saver.rd(DEPTH), ler(saver), saver.stack()) == (0x010007, 32, (1, 2, 3), rows)
    saver.branch(COND, 0x99, 0x98)
    assert saver.stack() == [(0x99, 0x98, 0), *rows[:31]]


def test_4_2_there_and_back(saver):
    fill(saver)
    area = saver.xsaves()
    saver.event("ColdReset")
    # The one legal order: XSS, DEPTH, then XRSTORS (section 7, fact 2).
    saver.wr(XSS, 0x8000)
    saver.wr(DEPTH, 8)
    assert saver.xrstors(area) == "done"
    assert (saver.rd(CTL), saver.stack(), ler(saver)) == (ALL, FILLED, LER)
    assert saver.xsaves() == area


@pytest.mark.parametrize(
    "depth",
    [
        pytest.param(16, id="4.2 a legal depth that is not the current one"),
        pytest.param(24, id="4.2 a depth CPUID does not enumerate (UNCONFIRMED)"),
        pytest.param(0, id="4.2 depth 0 (UNCONFIRMED)"),
        pytest.param(40, id="4.2 a depth above 32 (UNCONFIRMED)"),
        pytest.param(1 << 32 | 8, id="4.2 bits above the field (UNCONFIRMED)"),
    ],
)
def test_another_depth_clears_entries_ler_and_ctl(saver, depth):
    fill(saver)
    saver.wr(DEBUGCTL, 0x800)
    rows = [(0x100 + x, 0x200 + x, 0x300 + x) for x in range(32)]
    assert saver.xrstors(image(0x010007, depth, (1, 2, 3), rows)) == "done"
    assert (saver.stack(), ler(saver), saver.rd(DEPTH)) == ([], (0, 0, 0), 8)
    assert saver.rd(CTL) == 0  # UNCONFIRMED
    assert saver.rd(DEBUGCTL) == 0x800


def test_4_2_no_bit_in_xstate_bv_initialises_all_but_depth(saver):
    fill(saver)
    assert saver.xrstors(image(0x010007, 8, (1, 2, 3), FILLED, saved=0)) == "done"
    assert (saver.rd(CTL), saver.stack(), ler(saver), saver.rd(DEPTH)) == (0, [], (0, 0, 0), 8)


@pytest.mark.parametrize(
    ("xss", "rfbm", "saved", "compacted"),
    [
        pytest.param(0x8000, 0, 0x8000, 1 << 63 | 0x8000, id="4.2 RFBM[15] = 0, bit set"),
        pytest.param(0x8000, 0, 0, 1 << 63 | 0x8000, id="4.2 RFBM[15] = 0, bit clear: no init either"),
        pytest.param(0, 0x8000, 0, 1 << 63, id="4.2 IA32_XSS[15] = 0"),
    ],
)
def test_what_is_not_asked_for_stays(part, xss, rfbm, saved, compacted):
    part.wr(XSS, xss)
    fill(part)
    assert part.xrstors(image(0, 8, saved=saved, compacted=compacted), rfbm) == "done"
    assert (part.rd(CTL), part.stack(), ler(part)) == (ALL, FILLED, LER)


def patched(at, value, size=8):
    area = bytearray(image(ALL, 8, LER, FILLED))
    area[at : at + size] = value.to_bytes(size, "little")
    return bytes(area)


HOLE = 0x0000_8000_0000_0000
FAULTS = [
    pytest.param(patched(CTL_AT, 1 << 4), id="4.2 reserved CTL bit 4"),
    pytest.param(patched(CTL_AT, 1 << 23), id="4.2 reserved CTL bit 23"),
    pytest.param(patched(CTL_AT, 1 << 63), id="4.2 reserved CTL bit 63"),
    pytest.param(patched(LER_AT, HOLE), id="4.2 LER_FROM is not canonical (UNCONFIRMED)"),
    pytest.param(patched(LER_AT + 8, HOLE), id="4.2 LER_TO is not canonical (UNCONFIRMED)"),
    pytest.param(patched(ENTRY_AT, HOLE), id="4.2 FROM is not canonical (UNCONFIRMED)"),
    pytest.param(patched(ENTRY_AT + 7 * 24 + 8, HOLE), id="4.2 TO of the last entry is not canonical (UNCONFIRMED)"),
    pytest.param(patched(520, 0x8000), id="SDM vol. 1, 13.12: XCOMP_BV[63] = 0"),
    pytest.param(patched(520, 1 << 63 | 0x8800), id="SDM vol. 1, 13.12: XCOMP_BV names a disabled component"),
    pytest.param(patched(520, 1 << 63), id="SDM vol. 1, 13.12: XSTATE_BV exceeds XCOMP_BV"),
    pytest.param(patched(512, 1 << 63 | 0x8000), id="SDM vol. 1, 13.12: XSTATE_BV[63] = 1"),
    *(pytest.param(patched(at, 1, 1), id=f"SDM vol. 1, 13.12: header byte {at}") for at in (528, 551, 575)),
]


@pytest.mark.parametrize("area", FAULTS)
def test_xrstors_faults_and_changes_nothing(saver, area):
    saver.wr(DEPTH, 8)
    saver.wr(CTL, 0x010007)
    saver.branch(COND, 0x77, 0x78)
    saver.wr(LER_TO, 0x79)
    assert saver.xrstors(area) == "#GP"
    assert (saver.rd(CTL), saver.stack(), ler(saver)) == (0x010007, [(0x77, 0x78, 0)], (0, 0x79, 0))


@pytest.mark.parametrize(
    "area",
    [
        pytest.param(patched(ENTRY_AT + 8 * 24, HOLE), id="4.1 an entry at DEPTH is not looked at"),
        pytest.param(patched(ENTRY_AT + 16, ONES), id="2.5 INFO may hold anything"),
        pytest.param(patched(LER_AT + 16, ONES), id="4.3 LER_INFO may hold anything"),
        pytest.param(patched(ENTRY_AT, ONES), id="3.2 a masked FROM is restored"),
        pytest.param(patched(520, 1 << 63 | 0x8003), id="x87 and SSE in XCOMP_BV move nothing"),
        pytest.param(patched(0, 0xEE, 1), id="the legacy region is not looked at"),
    ],
)
def test_what_xrstors_does_not_mind(saver, area):
    saver.wr(DEPTH, 8)
    assert saver.xrstors(area) == "done"
    assert saver.rd(CTL) == ALL
    assert saver.rd(TO) == 0xD


@pytest.mark.parametrize(
    ("ebx", "ctl"),
    [
        pytest.param(6, 0x7F0003, id="4.2 OS without EBX[0]"),
        pytest.param(5, 0x010007, id="4.2 a kind without EBX[1]"),
        pytest.param(3, 0x38000D, id="4.2 CALL_STACK without EBX[2]"),
    ],
)
def test_cpuid_gates_ctl_in_the_image_too(make, ebx, ctl):
    part = make((0x4000000B, ebx, 7))
    part.wr(XSS, 0x8000)
    assert part.xrstors(image(ctl)) == "#GP"
    assert part.rd(CTL) == 0


def test_4_2_reserved_ctl_bits_fault_whatever_the_depth(saver):
    fill(saver)
    assert saver.xrstors(image(1 << 4, 16)) == "#GP"
    assert saver.stack() == FILLED


def test_xrstors_does_not_thaw(saver):
    saver.wr(0x391, 1 << 58)
    assert saver.xrstors(image(ALL)) == "done"
    assert saver.rd(STATUS) == 1 << 58
    saver.branch(COND)
    assert saver.stack() == []


def test_xrstors_can_start_recording(saver):
    assert saver.xrstors(image(ALL)) == "done"
    saver.branch(COND, 0x5)
    assert saver.froms() == [0x5]


def test_3_4_the_count_is_invalid_after_xrstors(saver):
    fill(saver)
    saver.branch(COND, clock=9)
    assert saver.rd(INFO) == 0x1000_0000_0000_0003
    assert saver.xrstors(saver.xsaves()) == "done"
    saver.branch(COND, 0x5, clock=11, counts=2)
    assert saver.stack()[0] == (0x5, 0x2000, 2 << 32)
    saver.branch(COND, 0x6, clock=12)
    assert saver.rd(INFO) == 0x1000_0000_0000_0001
