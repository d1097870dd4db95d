"""Section 5 of the reference: the legacy facility, where it differs."""

from __future__ import annotations

import pytest

from tests.lbr.parts import (
    COND,
    CTL,
    DEBUGCTL,
    IND_CALL,
    IND_JMP,
    KERNEL,
    LER_FROM,
    LER_INFO,
    LER_TO,
    OLD_FROM,
    OLD_INFO,
    OLD_TO,
    OTHER,
    PERF_CAPABILITIES,
    REL_CALL,
    REL_JMP,
    RET,
    SELECT,
    STATUS,
    TOS,
    USER,
)

UPPER = 0xFFFF_8000_0000_1000  # an address of the upper half
LOWER = 0x0000_7FFF_FFFF_F000
FRZ = 1 << 58


@pytest.fixture
def ring(make):
    """Format 5, four entries, PMU version 2, recording everything."""
    part = make.legacy(5, 4)
    part.wr(DEBUGCTL, 1)
    return part


def test_5_the_enable_bit_is_debugctl_0(make):
    part = make.legacy(5, 4)
    part.branch(COND, 0xA)
    assert part.stack() == []
    assert part.wr(DEBUGCTL, 1)
    assert part.rd(DEBUGCTL) == 1
    part.branch(COND, 0xB)
    assert part.froms() == [0xB]
    assert part.rd(CTL) is None


def test_5_a_ring_with_a_top_of_stack(ring):
    for n in range(6):
        ring.branch(COND, 0x100 + n, 0x200 + n)
        assert ring.rd(TOS) == (n + 1) % 4
    # Registers stay where they were written; software reads (tos - i) mod n.
    assert [ring.rd(OLD_FROM + x) for x in range(4)] == [0x103, 0x104, 0x105, 0x102]
    assert [ring.rd(OLD_TO + x) for x in range(4)] == [0x203, 0x204, 0x205, 0x202]
    assert ring.froms() == [0x105, 0x104, 0x103, 0x102]


@pytest.mark.parametrize("depth", [4, 8, 16, 32])
def test_5_the_depth_is_the_model_s(make, depth):
    part = make.legacy(5, depth)
    for base in (OLD_FROM, OLD_TO, OLD_INFO):
        for x in range(32):
            assert (part.rd(base + x) is not None) is (x < depth)
    assert part.wr(TOS, depth - 1) is True
    assert part.wr(TOS, depth) is False
    assert part.rd(TOS) == depth - 1


SUPPRESSED = [
    pytest.param(0, [1, 2, 3, 4, 5, 6, 7], id="5 zero records everything"),
    pytest.param(1 << 2, [2, 3, 4, 5, 6, 7], id="5 bit 2 JCC"),
    pytest.param(1 << 3, [1, 2, 3, 5, 6, 7], id="5 bit 3 REL_CALL"),
    pytest.param(1 << 4, [1, 2, 3, 4, 6, 7], id="5 bit 4 IND_CALL"),
    pytest.param(1 << 5, [1, 2, 3, 4, 5, 7], id="5 bit 5 RET"),
    pytest.param(1 << 6, [1, 2, 4, 5, 6, 7], id="5 bit 6 IND_JMP"),
    pytest.param(1 << 7, [1, 3, 4, 5, 6, 7], id="5 bit 7 REL_JMP"),
    pytest.param(1 << 8, [1, 2, 3, 4, 5, 6], id="5 bit 8 FAR"),
    pytest.param(0x1FC, [], id="5 all kinds"),
]


@pytest.mark.parametrize(("select", "recorded"), SUPPRESSED)
def test_lbr_select_suppresses(make, select, recorded):
    part = make.legacy(5, 16)
    part.wr(DEBUGCTL, 1)
    assert part.wr(SELECT, select)
    for number in (COND, REL_JMP, IND_JMP, REL_CALL, IND_CALL, RET, OTHER):
        part.branch(number, number)
    assert part.froms() == recorded[::-1]


@pytest.mark.parametrize(
    ("select", "recorded"),
    [
        pytest.param(0, ["kk", "ku", "uk", "uu"], id="5 every ring"),
        pytest.param(1, ["ku", "uu"], id="5 CPL_EQ_0: what ends in ring 0 is suppressed"),
        pytest.param(2, ["kk", "uk"], id="5 CPL_NEQ_0: what ends above is suppressed"),
        pytest.param(3, [], id="5 both"),
    ],
)
def test_lbr_select_by_ring(make, select, recorded):
    part = make.legacy(5, 16)
    part.wr(DEBUGCTL, 1)
    part.wr(SELECT, select)
    crossings = {"kk": (KERNEL, KERNEL), "ku": (KERNEL, USER), "uk": (USER, KERNEL), "uu": (USER, USER)}
    for number, rings in enumerate(crossings.values()):
        part.branch(OTHER, 0x100 + number, 0x200, *rings)
    # FROM is not masked (UNCONFIRMED).
    assert [list(crossings)[source - 0x100] for source in reversed(part.froms())] == recorded


@pytest.mark.parametrize("bit", range(64))
def test_5_reserved_bits_of_lbr_select(make, bit):
    assert make.legacy().wr(SELECT, 1 << bit) is (bit <= 9)
    assert make.legacy(call_stack=False).wr(SELECT, 1 << bit) is (bit <= 8)


def test_5_call_stack_mode(ring):
    ring.wr(SELECT, 0x3C4)  # the filter Linux programs: jumps, conditions and far branches suppressed
    for n in range(5):
        ring.branch(REL_CALL, 0x100 + n)
    assert (ring.froms(), ring.rd(TOS)) == ([0x104, 0x103, 0x102, 0x101], 1)
    ring.branch(RET)
    assert (ring.froms(), ring.rd(TOS)) == ([0x103, 0x102, 0x101], 0)
    assert (ring.rd(OLD_FROM + 1), ring.rd(OLD_TO + 1), ring.rd(OLD_INFO + 1)) == (0, 0, 0)
    ring.branch(IND_CALL, 0x110)
    assert (ring.froms(), ring.rd(TOS)) == ([0x110, 0x103, 0x102, 0x101], 1)


# Formats ------------------------------------------------------------------------------------------------------------

# A branch from UPPER to UPPER + 8, mispredicted, in a transaction that aborts, 5 cycles after the one before.
FORMATS = [
    pytest.param(0, True, (0x0000_1000, 0x0000_1008, None), id="5 format 0: 32 bits (UNCONFIRMED)"),
    pytest.param(1, True, (UPPER, UPPER + 8, None), id="5 format 1: linear addresses"),
    pytest.param(2, True, (UPPER, UPPER + 8, None), id="5 format 2: offsets"),
    pytest.param(3, True, (0xFFFF_8000_0000_1000, UPPER + 8, None), id="5 format 3: mispred in FROM[63]"),
    pytest.param(4, True, (0xFFFF_8000_0000_1000, UPPER + 8, None), id="5 format 4: mispred, in_tx, abort in FROM"),
    pytest.param(4, False, (0x9FFF_8000_0000_1000, UPPER + 8, None), id="5 format 4 without TSX: 62:61 are off"),
    pytest.param(5, True, (UPPER, UPPER + 8, 0xE000_0000_0000_0005), id="5 format 5: INFO"),
    pytest.param(5, False, (UPPER, UPPER + 8, 0x8000_0000_0000_0005), id="5 format 5 without TSX"),
    pytest.param(6, True, (0xFFFF_8000_0000_1000, 0x0005_8000_0000_1008, None), id="5 format 6: cycles in TO[63:48]"),
    pytest.param(7, True, (UPPER, UPPER + 8, 0x8000_0000_0000_0005), id="5 format 7: INFO without TSX"),
]
# The same with every flag clear.
PLAIN = [
    pytest.param(3, True, (0x7FFF_8000_0000_1000, UPPER + 8, None), id="5 format 3: predicted"),
    pytest.param(4, True, (0x1FFF_8000_0000_1000, UPPER + 8, None), id="5 format 4: no flag"),
    pytest.param(5, True, (UPPER, UPPER + 8, 5), id="5 format 5: no flag"),
    pytest.param(6, True, (0x7FFF_8000_0000_1000, 0x0005_8000_0000_1008, None), id="5 format 6: predicted"),
]


def registers_of(make, form, tsx, **flags):
    part = make.legacy(form, 4, tsx=tsx)
    part.wr(DEBUGCTL, 1)
    part.branch(COND, clock=100)
    part.branch(COND, UPPER, UPPER + 8, clock=105, **flags)
    assert part.rd(PERF_CAPABILITIES) == form
    return tuple(part.rd(base + 2) for base in (OLD_FROM, OLD_TO, OLD_INFO))


@pytest.mark.parametrize(("form", "tsx", "expected"), FORMATS)
def test_a_branch_in_each_format(make, form, tsx, expected):
    assert registers_of(make, form, tsx, mispredicted=1, in_tx=1, abort=1) == expected


@pytest.mark.parametrize(("form", "tsx", "expected"), PLAIN)
def test_a_branch_without_flags(make, form, tsx, expected):
    assert registers_of(make, form, tsx) == expected


@pytest.mark.parametrize("form", range(8))
def test_5_there_are_info_registers_in_formats_5_and_7(make, form):
    part = make.legacy(form, 4)
    assert (part.rd(OLD_INFO) is not None) is (form in (5, 7))
    assert part.wr(OLD_INFO, 1) is (form in (5, 7))


def test_5_cycles_saturate(ring):
    ring.branch(COND, clock=1)
    assert ring.rd(OLD_INFO + 1) == 0  # the first entry has no count
    ring.branch(COND, clock=1 + 0xFFFE)
    assert ring.rd(OLD_INFO + 2) == 0xFFFE
    ring.branch(COND, clock=1 << 30)
    assert ring.rd(OLD_INFO + 3) == 0xFFFF


WRITES = [
    pytest.param(4, False, OLD_FROM, 0xFFFF_8000_0000_1000, True, id="5 quirk: sign extended through 62:61"),
    pytest.param(4, False, OLD_FROM, 0x7FFF_8000_0000_1000, True, id="5 quirk: bit 63 is the flag"),
    pytest.param(4, False, OLD_FROM, 0x9FFF_8000_0000_1000, False, id="5 quirk: what was recorded cannot be written"),
    pytest.param(4, False, OLD_FROM, 0x6000_0000_0000_1000, False, id="5 quirk: 62:61 set in the lower half"),
    pytest.param(4, True, OLD_FROM, 0x9FFF_8000_0000_1000, True, id="5 format 4 with TSX: 63:61 are flags"),
    pytest.param(4, True, OLD_FROM, 0xE000_7FFF_FFFF_F000, True, id="5 format 4 with TSX: flags in the lower half"),
    pytest.param(4, True, OLD_FROM, 0x1000_7FFF_FFFF_F000, False, id="5 format 4 with TSX: bit 60 is address"),
    pytest.param(3, True, OLD_FROM, 0x8000_7FFF_FFFF_F000, True, id="5 format 3: bit 63 is the flag"),
    pytest.param(3, True, OLD_FROM, 0x4000_7FFF_FFFF_F000, False, id="5 format 3: bit 62 is address"),
    pytest.param(6, True, OLD_FROM, 0x8000_7FFF_FFFF_F000, True, id="5 format 6: bit 63 is the flag"),
    pytest.param(6, True, OLD_TO, 0x1234_7FFF_FFFF_F000, True, id="5 format 6: TO holds cycles"),
    pytest.param(5, True, OLD_FROM, LOWER, True, id="5 format 5: lower half"),
    pytest.param(5, True, OLD_FROM, UPPER, True, id="5 format 5: upper half"),
    pytest.param(5, True, OLD_FROM, 0x8000_7FFF_FFFF_F000, False, id="5 format 5: no flag in FROM"),
    pytest.param(5, True, OLD_TO, 0x0000_8000_0000_0000, False, id="5 format 5: TO is an address"),
    pytest.param(0, True, OLD_FROM, 0xFFFF_FFFF, True, id="5 format 0: 32 bits"),
    pytest.param(0, True, OLD_FROM, 0x1_0000_0000, False, id="5 format 0: no more than 32 bits"),
    pytest.param(0, True, OLD_TO, 0xFFFF_FFFF, True, id="5 format 0: 32 bits in TO"),
    pytest.param(0, True, OLD_TO, 0x1_0000_0000, False, id="5 format 0: no more than 32 bits in TO"),
]


@pytest.mark.parametrize(("form", "tsx", "msr", "value", "accepted"), WRITES)
def test_what_the_address_registers_take(make, form, tsx, msr, value, accepted):
    part = make.legacy(form, 4, tsx=tsx)
    assert part.wr(msr + 3, value) is accepted
    assert part.rd(msr + 3) == (value if accepted else 0)


# What stops it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pmu", "debugctl", "status"),
    [
        pytest.param(2, 0x800, 0, id="5 version 2 clears DEBUGCTL[0]"),
        pytest.param(4, 0x801, FRZ, id="5 version 4 sets LBR_FRZ"),
    ],
)
def test_pmi(make, pmu, debugctl, status):
    part = make.legacy(5, 4, pmu)
    part.wr(DEBUGCTL, 0x801)
    part.branch(COND, 0xA)
    part.event("Pmi")
    assert (part.rd(DEBUGCTL), part.rd(STATUS)) == (debugctl, status)
    part.branch(COND, 0xB)
    assert part.froms() == [0xA]
    part.event("Thaw")
    part.branch(COND, 0xC)
    assert part.froms() == ([0xC, 0xA] if status else [0xA])


def test_5_db_clears_debugctl_lbr(ring):
    ring.wr(DEBUGCTL, 0x803)
    ring.event("DebugException")
    assert ring.rd(DEBUGCTL) == 0x802
    ring.branch(COND)
    assert ring.stack() == []


@pytest.mark.parametrize(
    ("debugctl", "inside"),
    [
        pytest.param(0x4001, [], id="5 FREEZE_WHILE_SMM"),
        pytest.param(0x0001, [0xB], id="5 without it SMM is recorded"),
    ],
)
def test_smm(ring, debugctl, inside):
    ring.wr(DEBUGCTL, debugctl)
    ring.event("Smi")
    ring.branch(COND, 0xB)
    assert ring.froms() == inside
    ring.event("Rsm")
    assert ring.rd(DEBUGCTL) == debugctl
    ring.branch(COND, 0xC)
    assert ring.froms() == [0xC, *inside]


def test_5_ler_has_no_info(ring):
    ring.branch(COND, 0xA, 0xB, mispredicted=1)
    ring.branch(OTHER, 0xC, 0xD, event=1)
    assert (ring.rd(LER_FROM), ring.rd(LER_TO), ring.rd(LER_INFO)) == (0xA, 0xB, None)


@pytest.mark.parametrize("name", ["WarmReset", "DeepCState", "Init"])
def test_5_what_keeps_the_ring(ring, name):
    ring.wr(SELECT, 4)
    ring.branch(RET, 0xA)
    ring.event(name)
    assert (ring.froms(), ring.rd(TOS), ring.rd(SELECT)) == ([0xA], 1, 4)
    assert ring.rd(DEBUGCTL) == (0 if name == "WarmReset" else 1)


def test_5_a_cold_reset_clears_it(ring):
    ring.wr(SELECT, 4)
    ring.branch(RET, 0xA)
    ring.event("ColdReset")
    assert (ring.stack(), ring.rd(TOS), ring.rd(SELECT), ring.rd(DEBUGCTL)) == ([], 0, 0, 0)
