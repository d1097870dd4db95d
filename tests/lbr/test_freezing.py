"""Section 3.6 of the reference: what stops recording, and what is left afterwards."""

from __future__ import annotations

import pytest

from archlbr.arch.cpuid import Leaf1C
from archlbr.lbr import freeze
from archlbr.lbr.state import architectural, initial
from tests.lbr.parts import (
    ALL,
    COND,
    CTL,
    DEBUGCTL,
    DEPTH,
    FROM,
    INFO,
    LER_FROM,
    OTHER,
    STATUS,
    STATUS_RESET,
    STATUS_SET,
    TO,
    XSS,
)

FRZ = 1 << 58
FREEZE = 1 << 11


def recorded(part, source):
    """Say whether a branch is recorded now."""
    part.branch(COND, source)
    return source in part.froms()


@pytest.mark.parametrize(
    ("pmu", "debugctl", "ctl", "status"),
    [
        pytest.param(2, FREEZE, 0x7F0006, 0, id="3.6 version 2 clears LBREn"),
        pytest.param(3, FREEZE, 0x7F0006, 0, id="3.6 version 3 clears LBREn"),
        pytest.param(4, FREEZE, 0x7F0007, FRZ, id="3.6 version 4 sets LBR_FRZ, LBREn stays"),
        pytest.param(5, FREEZE, 0x7F0007, FRZ, id="3.6 version 5 sets LBR_FRZ, LBREn stays"),
        pytest.param(2, 0, 0x7F0007, 0, id="3.6 version 2, DEBUGCTL[11] = 0"),
        pytest.param(4, 0, 0x7F0007, 0, id="3.6 version 4, DEBUGCTL[11] = 0"),
        pytest.param(4, 1 << 12, 0x7F0007, 0, id="1.3 DEBUGCTL[12] freezes counters, not LBRs"),
    ],
)
def test_pmi(make, pmu, debugctl, ctl, status):
    part = make(pmu=pmu)
    part.wr(DEBUGCTL, debugctl)
    part.wr(CTL, ALL)
    part.branch(COND, 0xA)
    part.event("Pmi")
    assert (part.rd(CTL), part.rd(STATUS)) == (ctl, status)
    frozen = ctl != 0x7F0007 or status != 0
    assert recorded(part, 0xB) is not frozen
    assert part.froms()[-1] == 0xA


@pytest.mark.parametrize(
    "thaw",
    [
        pytest.param(lambda part: part.wr(STATUS_RESET, FRZ), id="3.6 390H bit 58"),
        pytest.param(lambda part: part.event("Thaw"), id="3.6 thaw"),
    ],
)
def test_clearing_lbr_frz_resumes(part, thaw):
    part.wr(DEBUGCTL, FREEZE)
    part.wr(CTL, ALL)
    part.branch(COND, 0xA)
    part.event("Pmi")
    assert not recorded(part, 0xB)
    thaw(part)
    assert part.rd(STATUS) == 0
    assert recorded(part, 0xC)
    assert part.froms() == [0xC, 0xA]


def test_3_6_other_bits_of_390_do_not_thaw(part):
    part.wr(STATUS_SET, FRZ)
    part.wr(STATUS_RESET, 0xFBFF_FFFF_FFFF_FFFF)
    assert part.rd(STATUS) == FRZ


def test_3_6_recording_needs_lbren_and_no_lbr_frz(part):
    part.wr(STATUS_SET, FRZ)
    part.wr(CTL, ALL)
    assert part.rd(CTL) == ALL
    assert not recorded(part, 0xA)
    part.wr(CTL, 0)
    part.wr(STATUS_RESET, FRZ)
    assert not recorded(part, 0xB)
    part.wr(CTL, ALL)
    assert recorded(part, 0xC)


def test_3_6_registers_can_be_written_while_frozen(part):
    part.wr(STATUS_SET, FRZ)
    assert part.wr(FROM, 0x40)
    assert part.wr(DEPTH, 8)
    assert part.rd(FROM) == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(0x00380005, 0x00380004, id="3.6 #DB, measured"),
        pytest.param(0x0038000D, 0x0038000C, id="3.6 #DB in call-stack mode, measured"),
        pytest.param(0x00380004, 0x00380004, id="3.6 #DB with LBREn = 0"),
    ],
)
def test_db_clears_lbren_alone_and_leaves_no_record(part, before, after):
    part.wr(CTL, ALL)
    part.branch(COND, 0xA, 0xB)
    part.wr(CTL, before)
    part.event("DebugException")
    assert part.rd(CTL) == after
    # The newest entry's TO is the address that was interrupted.
    assert (part.rd(FROM), part.rd(TO), part.rd(FROM + 1)) == (0xA, 0xB, 0)
    assert not recorded(part, 0xC)


# SMM ----------------------------------------------------------------------------------------------------------------


def test_3_6_smi_clears_lbren_and_rsm_restores_it(part):
    part.wr(CTL, ALL)
    part.branch(COND, 0xA)
    part.event("Smi")
    assert part.rd(CTL) == 0x7F0006
    assert not recorded(part, 0xB)
    assert part.event("Rsm") == "done"
    assert part.rd(CTL) == 0x7F0007
    part.branch(OTHER, 0xC, 0xC)  # RSM itself: the resumed address in both fields
    assert part.froms() == [0xC, 0xA]


def test_3_6_rsm_restores_a_clear_lbren_too(part):
    part.wr(CTL, 0x7F0006)
    part.event("Smi")
    part.wr(CTL, ALL)  # what the handler writes to LBREn is lost (UNCONFIRMED)
    part.event("Rsm")
    assert part.rd(CTL) == 0x7F0006


def test_3_6_the_handler_may_change_the_rest_of_ctl(part):
    part.wr(CTL, ALL)
    part.event("Smi")
    part.wr(CTL, 0x010006)
    part.event("Rsm")
    assert part.rd(CTL) == 0x010007


def test_3_6_a_second_smi_is_held_back(part):
    part.wr(CTL, ALL)
    part.event("Smi")
    part.wr(CTL, ALL)
    part.event("Smi")
    assert part.rd(CTL) == ALL
    part.event("Rsm")
    assert part.rd(CTL) == ALL


def test_rsm_outside_smm_is_an_undefined_opcode(part):
    part.wr(CTL, ALL)
    assert part.event("Rsm") == "#UD"
    assert part.rd(CTL) == ALL


def test_rsm_leaves_smm(part):
    part.wr(CTL, ALL)
    part.event("Smi")
    assert part.event("Rsm") == "done"
    assert part.event("Rsm") == "#UD"
    part.event("Smi")
    assert part.rd(CTL) == 0x7F0006


def test_1_3_freeze_while_smm_disables_tracing_in_debugctl(part):
    part.wr(DEBUGCTL, 0x48C2)
    part.event("Smi")
    assert part.rd(DEBUGCTL) == 0x4800
    part.wr(DEBUGCTL, 0)
    part.event("Rsm")
    assert part.rd(DEBUGCTL) == 0x48C2


def test_1_3_without_freeze_while_smm_debugctl_is_the_handler_s(part):
    part.wr(DEBUGCTL, 0x08C2)
    part.event("Smi")
    assert part.rd(DEBUGCTL) == 0x08C2
    part.wr(DEBUGCTL, 0x0800)
    part.event("Rsm")
    assert part.rd(DEBUGCTL) == 0x0800


# Resets -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(part):
    """A part with something in every register: depth 8, two branches, an event, frozen, in SMM."""
    part.wr(XSS, 0x8000)
    part.wr(DEPTH, 8)
    part.wr(CTL, ALL)
    part.branch(COND, 0xA, 0xB, clock=3)
    part.branch(OTHER, 0xC, 0xD, event=1, clock=7)
    part.wr(DEBUGCTL, 0x4800)
    return part


def registers(part):
    return {
        "CTL": part.rd(CTL), "DEPTH": part.rd(DEPTH), "stack": part.stack(), "LER": part.rd(LER_FROM),
        "DEBUGCTL": part.rd(DEBUGCTL), "XSS": part.rd(XSS), "STATUS": part.rd(STATUS),
    }  # fmt: skip


STACK = [(0xC, 0xD, 0x1800_0000_0000_0004), (0xA, 0xB, 0)]


def test_3_6_a_warm_reset_keeps_all_but_lbren(full):
    full.wr(STATUS_SET, FRZ)
    full.event("WarmReset")
    assert registers(full) == {
        "CTL": 0x7F0006, "DEPTH": 8, "stack": STACK, "LER": 0xA, "DEBUGCTL": 0, "XSS": 0, "STATUS": 0,
    }  # fmt: skip


def test_a_warm_reset_forgets_smm_and_what_was_saved_for_it():
    facility = architectural(Leaf1C.of(depths=(8,)))
    state = initial(facility)._replace(debugctl=1 << 14, ctl=1)
    inside = freeze.smi(facility, state)
    assert (inside.smm, inside.smm_debugctl) == (7, 1 << 14)
    assert freeze.warm_reset(facility, inside) == initial(facility)


def test_3_6_a_cold_reset_clears_all_and_depth_is_the_maximum(full):
    full.wr(STATUS_SET, FRZ)
    full.event("Smi")
    full.event("ColdReset")
    assert registers(full) == {
        "CTL": 0, "DEPTH": 32, "stack": [], "LER": 0, "DEBUGCTL": 0, "XSS": 0, "STATUS": 0,
    }  # fmt: skip
    assert full.event("Rsm") == "#UD"


def test_3_6_init_is_no_warm_reset(full):
    full.event("Init")
    assert registers(full) == {
        "CTL": 0x7F0007, "DEPTH": 8, "stack": STACK, "LER": 0xA, "DEBUGCTL": 0x4800, "XSS": 0x8000, "STATUS": 0,
    }  # fmt: skip
    full.branch(OTHER, 0xE, 0xFFF0, clock=9)  # INIT itself, which the core reports
    assert full.rd(INFO) == 0x1800_0000_0000_0002


@pytest.mark.parametrize(
    ("eax", "left"),
    [
        pytest.param(0x4000000B, [], id="3.6 deep C-state, EAX[30] = 1: the entries are gone"),
        pytest.param(0x0000000B, [0xC, 0xA], id="1.1 EAX[30] = 0: they stay"),
    ],
)
def test_deep_c_state(make, eax, left):
    part = make((eax, 7, 7))
    part.wr(CTL, ALL)
    part.branch(COND, 0xA)
    part.branch(OTHER, 0xC, event=1)
    part.event("DeepCState")
    # Linux detects it by FROM_0 = 0.
    assert part.froms() == left
    assert (part.rd(CTL), part.rd(DEPTH), part.rd(LER_FROM)) == (ALL, 32, 0xA)
    assert recorded(part, 0xE)
