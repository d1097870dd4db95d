"""What only the pure step answers: rings for register accesses, registers that are not its own, PEBS."""

from __future__ import annotations

import struct

import pytest

from archlbr.arch.cpuid import LION_COVE
from archlbr.arch.outcomes import GP, Image
from archlbr.errors import InternalError
from archlbr.lbr import actions
from archlbr.lbr.state import architectural, initial, legacy
from archlbr.lbr.step import step
from tests.lbr.parts import ALL, COND, CTL, DEPTH, FROM, XSS, Pure


@pytest.fixture
def part():
    return Pure(architectural(LION_COVE))


@pytest.mark.parametrize("cpl", [1, 2, 3])
def test_register_accesses_and_xsaves_need_ring_0(part, cpl):
    assert part.rd(FROM, cpl) is None
    assert part.wr(CTL, 1, cpl) is False
    part.wr(XSS, 0x8000)
    assert part.do(actions.Xsaves(bytes(1384), 0x8000, cpl)) == GP
    assert part.do(actions.Xrstors(part.xsaves(), 0x8000, cpl)) == GP


def test_a_register_that_is_not_the_facility_s_is_our_mistake(part):
    with pytest.raises(InternalError, match="MSR 10H is no register"):
        part.rd(0x10)
    with pytest.raises(InternalError, match="MSR C1H is no register"):
        part.wr(0xC1, 0)


def test_an_area_that_is_too_short_is_our_mistake(part):
    with pytest.raises(InternalError, match="an area of 1383 bytes"):
        part.xsaves(bytes(1383))
    with pytest.raises(InternalError, match="the facility holds component 15 alone"):
        part.xsaves(rfbm=0x8800)


def test_a_step_leaves_the_state_it_was_given(part):
    before = part.state
    part.wr(CTL, ALL)
    part.branch(COND)
    assert before == initial(part.facility)
    assert step(part.facility, before, actions.Rdmsr(DEPTH))[0] is before


def test_3_8_pebs_writes_entries_newest_first(part):
    part.wr(CTL, ALL)
    for n in range(3):
        part.branch(COND, 0x100 + n, 0x200 + n, clock=10 * n)
    # DATA_CFG[3] asks for the group, [31:24] is the number of entries less 1.
    outcome = part.do(actions.PebsRecord(1 << 3 | 1 << 24))
    assert outcome == Image(
        struct.pack("<6Q", 0x102, 0x202, 0x1000_0000_0000_000A, 0x101, 0x201, 0x1000_0000_0000_000A)
    )
    assert part.do(actions.PebsRecord(1 << 24)) == Image(b"")


def test_3_8_pebs_entries_above_depth_read_0(part):
    part.wr(DEPTH, 8)
    part.wr(CTL, ALL)
    for n in range(9):
        part.branch(COND, 0x100 + n, 0x200 + n)
    content = part.do(actions.PebsRecord(1 << 3 | 31 << 24)).content
    assert len(content) == 32 * 24
    assert struct.unpack_from("<Q", content, 7 * 24)[0] == 0x101
    assert content[8 * 24 :] == bytes(24 * 24)


def test_3_8_pebs_on_a_legacy_ring_starts_at_its_top():
    part = Pure(legacy(5, 4))
    part.wr(0x1D9, 1)
    for n in range(6):
        part.branch(COND, 0x100 + n, 0x200 + n)
    content = part.do(actions.PebsRecord(1 << 3 | 3 << 24)).content
    assert [struct.unpack_from("<Q", content, 24 * x)[0] for x in range(4)] == [0x105, 0x104, 0x103, 0x102]


@pytest.mark.parametrize(("form", "depth"), [(8, 16), (-1, 16), (5, 12), (5, 64)])
def test_5_there_is_no_such_legacy_facility(form, depth):
    with pytest.raises(InternalError, match="no legacy facility"):
        legacy(form, depth)
