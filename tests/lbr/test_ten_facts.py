"""Section 7 of the reference: ten facts an implementer gets wrong, a test each (the VMX half of 9 is the vPMU's)."""

from __future__ import annotations

import struct

from archlbr.arch.transfers import KIND, Transfer
from tests.lbr.parts import (
    ALL,
    COND,
    CTL,
    DEBUGCTL,
    DEPTH,
    FROM,
    IND_CALL,
    IND_JMP,
    INFO,
    KERNEL,
    LER_FROM,
    LER_TO,
    ONES,
    OTHER,
    REL_CALL,
    REL_JMP,
    RET,
    SELECT,
    STATUS,
    TO,
    USER,
    XSS,
    image,
)


def test_7_1_an_empty_type_filter_records_nothing_where_legacy_meant_all(make):
    new, old = make(), make.legacy()
    new.wr(CTL, 7)
    old.wr(DEBUGCTL, 1)
    assert old.rd(SELECT) == 0
    for kind in range(1, 8):
        new.branch(kind)
        old.branch(kind, kind)
    assert (new.froms(), old.froms()) == ([], [7, 6, 5, 4, 3, 2, 1])


def test_7_2_depth_wipes_and_xrstors_never_writes_it(part):
    assert part.rd(DEPTH) == 32
    part.wr(XSS, 0x8000)
    part.wr(CTL, ALL)
    part.branch(COND, 0xA)
    part.wr(DEPTH, 32)
    assert part.froms() == []
    area = image(ALL, 8, entries=[(0x1, 0x2, 0)])
    assert part.xrstors(area) == "done"
    assert (part.rd(DEPTH), part.froms()) == (32, [])  # restored before DEPTH: lost
    part.wr(DEPTH, 8)
    assert part.xrstors(area) == "done"
    assert (part.rd(DEPTH), part.froms()) == (8, [0x1])


def test_7_3_another_saved_depth_clears_and_no_saved_bit_initialises(part):
    part.wr(XSS, 0x8000)
    for area in (image(ALL, 16), image(ALL, 32, saved=0)):
        part.wr(CTL, ALL)
        part.branch(COND, 0xA)
        part.branch(OTHER, 0xB, event=1)
        assert part.xrstors(area) == "done"
        assert (part.froms(), part.rd(LER_FROM), part.rd(DEPTH)) == ([], 0, 32)


def test_7_4_the_limit_is_the_current_depth_and_cpuid_gates_ctl(make):
    part = make((0x4000000B, 6, 7))
    part.wr(DEPTH, 8)
    for base in (FROM, TO, INFO):
        assert (part.rd(base + 7), part.rd(base + 8)) == (0, None)
        assert (part.wr(base + 7, 1), part.wr(base + 8, 1)) == (True, False)
    assert part.wr(CTL, ALL) is False
    assert part.wr(CTL, ALL & ~6) is True


def test_7_5_the_destination_s_ring_decides_and_a_filtered_source_is_all_ones(part):
    part.wr(CTL, 0x7F0005)
    part.branch(OTHER, 0xA, 0xB, USER, KERNEL)
    assert part.stack() == []
    part.branch(OTHER, 0xC, 0xD, KERNEL, USER)
    assert part.stack() == [(ONES, 0xD, 0x0800_0000_0000_0000)]


def test_7_6_db_and_smi_clear_lbren_a_late_pmi_freezes_by_status(make):
    for event in ("DebugException", "Smi"):
        part = make()
        part.wr(CTL, ALL)
        part.event(event)
        assert (part.rd(CTL), part.stack()) == (0x7F0006, [])
    part = make(pmu=4)
    part.wr(CTL, ALL)
    part.wr(DEBUGCTL, 0x800)
    part.event("Pmi")
    assert (part.rd(CTL), part.rd(STATUS)) == (ALL, 1 << 58)
    part.branch(COND)
    assert part.stack() == []


def test_7_7_type_codes_are_not_in_ctl_order(part):
    part.wr(CTL, ALL)
    for kind in (COND, REL_JMP, IND_JMP, REL_CALL, IND_CALL, RET, OTHER):
        part.branch(kind)
    assert [row[2] >> 56 & 15 for row in reversed(part.stack())] == [0, 2, 1, 4, 3, 5, 8]


def test_7_8_a_call_to_the_next_instruction_is_no_branch(part):
    part.wr(CTL, 0x38000F)
    part.branch(REL_CALL, 0xA)
    part.branch(KIND[Transfer.CALL_NEXT], 0xB, 0xB + 5)
    assert part.froms() == [0xA]
    part.branch(RET)
    assert part.froms() == []


def test_7_9_a_warm_reset_keeps_all_but_lbren_and_init_keeps_that_too(part):
    part.wr(CTL, ALL)
    part.wr(DEPTH, 8)
    part.branch(COND, 0xA)
    part.event("Init")
    assert (part.rd(CTL), part.froms()) == (ALL, [0xA])
    part.event("WarmReset")
    assert (part.rd(CTL), part.rd(DEPTH), part.froms()) == (0x7F0006, 8, [0xA])


def test_7_10_component_15_holds_ler_before_entry_0_and_flags_live_in_info_alone(part):
    part.wr(XSS, 0x8000)
    part.wr(LER_FROM, 0x11)
    part.wr(LER_TO, 0x22)
    part.wr(CTL, ALL)
    part.branch(COND, 0x33, 0x44, mispredicted=1, in_tx=1, abort=1)
    component = part.xsaves()[576:]
    assert len(component) == 808
    assert struct.unpack_from("<8Q", component) == (ALL, 32, 0x11, 0x22, 0, 0x33, 0x44, 7 << 61)
    part.wr(DEBUGCTL, 1)
    assert part.rd(DEBUGCTL) == 0
