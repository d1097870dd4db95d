"""Whole states, field by field, where the behaviour that a field has shows only much later."""

from __future__ import annotations

import struct

import pytest

from archlbr.arch.cpuid import Leaf1C
from archlbr.lbr import freeze
from archlbr.lbr.actions import Branch
from archlbr.lbr.legacy import encoded
from archlbr.lbr.state import EMPTY, Entry, architectural, initial, legacy, newest_first, settled
from archlbr.lbr.xsaves import in_image, load_component, xsaves

EIGHT = Leaf1C.of(depths=(8,))
BUSY = {"since": 7, "timed": 1, "pending": 0b10}


def test_what_is_wiped_forgets_the_counts_and_keeps_the_rest() -> None:
    facility = architectural(EIGHT)
    state = initial(facility)._replace(ctl=7, stack=(Entry(1, 2, 3),) * 8, ler=Entry(4, 5, 6), xss=1 << 15, **BUSY)
    assert freeze.wiped(state) == state._replace(stack=(EMPTY,) * 8, since=0, timed=0, pending=0)


def test_counts_are_forgotten_once_recording_has_stopped() -> None:
    facility = architectural(EIGHT)
    on = initial(facility)._replace(ctl=1, **BUSY)
    assert settled(facility, on) == on
    for stopped in (on._replace(ctl=0), on._replace(frozen=1)):
        assert settled(facility, stopped) == stopped._replace(since=0, timed=0, pending=0)
        # Events counted without a time are forgotten, too.
        untimed = stopped._replace(since=0, timed=0)
        assert settled(facility, untimed) == untimed._replace(pending=0)


def test_facilities_have_no_tsx_unless_they_say_so() -> None:
    assert (architectural(EIGHT).tsx, architectural(EIGHT, tsx=True).tsx) == (0, 1)
    assert (legacy(5, 32).tsx, legacy(5, 32, tsx=True).tsx) == (0, 1)


@pytest.mark.parametrize("tos", range(4))
def test_a_legacy_stack_is_read_from_the_top_down_and_round(tos: int) -> None:
    facility = legacy(3, 4)
    state = initial(facility)._replace(tos=tos, stack=tuple(Entry(number, 0, 0) for number in range(4)))
    assert [entry.source for entry in newest_first(facility, state)] == [(tos - x) % 4 for x in range(4)]


# Formats without an INFO register leave it 0 (reference architecture.md 5).
@pytest.mark.parametrize("form", [0, 1, 2, 3, 4, 6])
def test_a_format_without_an_info_register_leaves_it_0(form: int) -> None:
    for tsx in (False, True):
        facility = legacy(form, 4, tsx=tsx)
        branch = Branch(0x1234, 0x5678, 1, clock=9, mispredicted=1)
        assert encoded(facility, initial(facility), branch).info == 0


def test_bytes_behind_the_area_are_left_as_they_are() -> None:
    facility = architectural(EIGHT)
    state = initial(facility)._replace(ctl=7, xss=1 << 15, stack=(Entry(1, 2, 3), *(EMPTY,) * 7))
    behind = bytes(range(100))
    area = xsaves(state, bytes(576 + 808) + behind, 1 << 15)
    assert (len(area), area[576 + 808 :]) == (576 + 808 + 100, behind)
    assert area[576 + 40 : 576 + 64] == b"".join(value.to_bytes(8, "little") for value in (1, 2, 3))


# XRSTORS starts the counts anew (reference architecture.md 4.2): the first entry after it has CYC_CNT_VALID = 0.
def test_what_xrstors_loads_field_by_field() -> None:
    facility = architectural(EIGHT)
    state = initial(facility)._replace(ctl=7, xss=1 << 15, debugctl=1 << 11, frozen=1, stack=(Entry(9, 9, 9),) * 8)
    component = bytearray(808)
    # CTL, DEPTH, LER; entries 0 and 7. Entry 8 lies above DEPTH and is not read.
    struct.pack_into("<5Q", component, 0, 3, 8, 4, 5, 6)
    for x, entry in ((0, (1, 2, 1 << 63 | 3)), (7, (0x71, 0x72, 0x73)), (8, (1 << 62, 0, 0))):
        struct.pack_into("<3Q", component, 40 + 24 * x, *entry)
    loaded = (Entry(1, 2, 1 << 63 | 3), *(EMPTY,) * 6, Entry(0x71, 0x72, 0x73))
    expected = state._replace(ctl=3, ler=Entry(4, 5, 6), stack=loaded)
    for before in (state, state._replace(**BUSY)):
        assert load_component(facility, before, bytes(component)) == expected
    # Another DEPTH clears entries, LER and CTL, and leaves DEPTH and the rest.
    struct.pack_into("<Q", component, 8, 16)
    cleared = state._replace(ctl=0, stack=(EMPTY,) * 8)
    assert load_component(facility, state._replace(ler=Entry(4, 5, 6), **BUSY), bytes(component)) == cleared
    for at, value in ((0, 1 << 5), (16, 1 << 50), (24, 1 << 50), (40 + 24 * 7, 1 << 50), (48 + 24 * 7, 1 << 50)):
        bad = bytearray(component)
        struct.pack_into("<Q", bad, 8, 8)
        struct.pack_into("<Q", bad, at, value)
        assert load_component(facility, state, bytes(bad)) is None


def test_what_of_the_component_an_area_holds() -> None:
    facility = architectural(EIGHT)
    state = initial(facility)._replace(xss=1 << 15, stack=(Entry(1, 2, 3), *(EMPTY,) * 7))
    area = xsaves(state, bytes(576 + 808), 1 << 15)
    # Header and eight entries: 40 + 8 * 24 bytes. Unused, the component is not written at all.
    assert in_image(area) == struct.pack("<8Q", 0, 8, 0, 0, 0, 1, 2, 3).ljust(40 + 8 * 24, b"\0")
    assert in_image(xsaves(initial(facility)._replace(xss=1 << 15), bytes(576 + 808), 1 << 15)) == b""


# SMM: 1 | LBREn << 1 | DEBUGCTL was saved << 2; FREEZE_WHILE_SMM is DEBUGCTL[14] (SDM vol. 3B, IA32_DEBUGCTL).
@pytest.mark.parametrize("ctl", [6, 7])
def test_smm_saves_the_enable_bit_and_only_a_frozen_debugctl(ctl: int) -> None:
    facility = architectural(EIGHT)
    plain = initial(facility)._replace(ctl=ctl, debugctl=1 << 11, since=0)
    inside = plain._replace(ctl=6, smm=1 | (ctl & 1) << 1)
    assert freeze.smi(facility, plain) == inside
    assert freeze.smi(facility, inside) == inside
    assert freeze.rsm(facility, inside) == plain
    assert freeze.rsm(facility, inside._replace(ctl=1, debugctl=1)) == plain._replace(ctl=ctl & 1, debugctl=1)
    frozen = plain._replace(debugctl=1 << 14 | 1 << 11)
    saved = freeze.smi(facility, frozen)
    assert (saved.smm, saved.smm_debugctl, saved.ctl) == (5 | (ctl & 1) << 1, 1 << 14 | 1 << 11, 6)
    assert freeze.rsm(facility, saved) == frozen
    assert freeze.rsm(facility, plain) is None


def test_resets_and_init_field_by_field() -> None:
    facility = architectural(Leaf1C.of(depths=(8, 16)))
    busy = initial(facility)._replace(
        ctl=7, depth=8, stack=(Entry(1, 2, 3),) * 8, ler=Entry(4, 5, 6), debugctl=1 << 11, frozen=1, xss=1 << 15,
        smm=7, smm_debugctl=1 << 14, **BUSY,
    )  # fmt: skip
    assert freeze.init(facility, busy) == busy
    warm = freeze.warm_reset(facility, busy)
    assert warm == busy._replace(ctl=6, debugctl=0, frozen=0, xss=0, smm=0, smm_debugctl=0, since=0, timed=0, pending=0)
    assert freeze.cold_reset(facility, busy) == (0, 16, (EMPTY,) * 16, EMPTY, *(0,) * 10)
    assert freeze.thaw(facility, busy) == busy._replace(frozen=0)
    assert freeze.deep_c_state(facility, busy) == freeze.wiped(busy)
    awake = architectural(Leaf1C.of(depths=(8, 16), deep_c_reset=False))
    assert freeze.deep_c_state(awake, busy) == busy


@pytest.mark.parametrize(("version", "frozen", "ctl"), [(2, 0, 6), (3, 0, 6), (4, 1, 7), (5, 1, 7)])
def test_a_pmi_freezes_by_the_enable_bit_or_by_lbr_frz(version: int, frozen: int, ctl: int) -> None:
    facility = architectural(EIGHT, version)
    on = initial(facility)._replace(ctl=7, debugctl=1 << 11, **BUSY)
    assert freeze.pmi(facility, on) == on._replace(ctl=ctl, frozen=frozen, since=0, timed=0, pending=0)
    assert freeze.pmi(facility, on._replace(debugctl=0)) == on._replace(debugctl=0)


def test_what_a_facility_is_field_by_field() -> None:
    # DEBUGCTL: LBR, BTF, BLD, and bits 15:6 (reference architecture.md 1.3); LBR_CTL: bits 3:0 and the kinds, 22:16.
    known, unfrozen = 0xFFC7, 0xE7C7
    whole = Leaf1C.of(depths=(8, 16), event_counters=0b0101)
    made = architectural(whole, 4, tsx=True, linear_width=57)
    assert made == (0x3F, whole, 4, 1, 57, 1, 16, 0x7F000F, 0, known, 0b110011)
    bare = Leaf1C.of(depths=(64,), cpl_filter=False, branch_filter=False, call_stack=False)
    assert architectural(bare, 1, xsaves=False) == (
        0x3F, bare, 1, 0, 48, 0, 64, 1, 0, unfrozen, 0,
    )  # fmt: skip
    assert legacy(5, 32) == (5, Leaf1C(), 2, 0, 48, 0, 32, 0, 0x3FF, known, 0)
    assert legacy(3, 16, 1, tsx=True, linear_width=57, call_stack=False) == (
        3, Leaf1C(), 1, 1, 57, 0, 16, 0, 0x1FF, unfrozen, 0,
    )  # fmt: skip
