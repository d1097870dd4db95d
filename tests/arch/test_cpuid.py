"""CPUID leaves: what real parts say, field by field, and the way back to registers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archlbr.arch import cpuid
from archlbr.arch.cpuid import LBR_COMPONENT, PRESETS, Leaf0A, Leaf0D, Leaf0D1, Leaf0DComponent, Leaf07, Leaf1C

NAMES = (
    "depths", "max_depth", "deep_c_reset", "lip", "cpl_filter", "branch_filter", "call_stack", "mispredict", "timed",
    "branch_type", "event_counters",
)  # fmt: skip


@pytest.mark.parametrize(
    ("registers", "values"),
    [
        pytest.param(
            (0x4000000B, 7, 0x000F0007, 0),
            ((8, 16, 32), 32, True, False, True, True, True, True, True, True, 15),
            id="1.1 Lion Cove, Cougar Cove",
        ),
        pytest.param(
            (0xC000000B, 7, 0x000F0007, 0),
            ((8, 16, 32), 32, True, True, True, True, True, True, True, True, 15),
            id="1.1 Skymont, Darkmont",
        ),
        pytest.param(
            (0x4000000B, 7, 7, 0),
            ((8, 16, 32), 32, True, False, True, True, True, True, True, True, 0),
            id="1.1 Golden Cove (UNCONFIRMED)",
        ),
        pytest.param((0x80, 0, 0, 0), ((64,), 64, *[False] * 8, 0), id="1.1 bit 7 is depth 64"),
        pytest.param((1, 1, 1, 0), ((8,), 8, False, False, True, False, False, True, False, False, 0), id="1.1 bits 0"),
        pytest.param((0, 2, 2, 0), ((), 0, *[False] * 3, True, False, False, True, False, 0), id="1.1 bits 1"),
        pytest.param((0, 4, 4, 0), ((), 0, *[False] * 4, True, False, False, True, 0), id="1.1 bits 2"),
    ],
)  # fmt: skip
def test_leaf_1c_of_real_parts(registers, values):
    leaf = Leaf1C(*registers)
    assert tuple(getattr(leaf, name) for name in NAMES) == values
    assert leaf.reserved == (0, 0, 0, 0)


def test_presets():
    assert {name: tuple(leaf) for name, leaf in PRESETS.items()} == {
        "golden-cove": (0x4000000B, 7, 7, 0),
        "lion-cove": (0x4000000B, 7, 0xF0007, 0),
        "skymont": (0xC000000B, 7, 0xF0007, 0),
    }


def test_a_leaf_built_from_names_is_the_real_one():
    assert Leaf1C.of(event_counters=15) == cpuid.LION_COVE
    assert Leaf1C.of(lip=True, event_counters=15) == cpuid.SKYMONT
    assert Leaf1C.of((64,), branch_filter=False, timed=False) == Leaf1C(0x40000080, 5, 5, 0)


@given(st.tuples(*[st.integers(0, 0xFFFFFFFF)] * 4))
def test_leaf_1c_goes_through_its_names_and_back(registers):
    leaf = Leaf1C(*registers)
    options = {name: getattr(leaf, name) for name in NAMES if name not in ("depths", "max_depth")}
    again = Leaf1C.of(leaf.depths, **options)
    assert [a | r for a, r in zip(again, leaf.reserved, strict=True)] == list(leaf)
    assert [a & r for a, r in zip(again, leaf.reserved, strict=True)] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("leaf", "reserved"),
    [
        pytest.param(Leaf1C(0x100, 0, 0, 0), (0x100, 0, 0, 0), id="1.1 EAX[29:8]"),
        pytest.param(Leaf1C(0x20000000, 0, 0, 0), (0x20000000, 0, 0, 0), id="1.1 EAX[29:8] upper"),
        pytest.param(Leaf1C(0, 8, 8, 1), (0, 8, 8, 1), id="1.1 EBX, ECX[15:3], EDX"),
        pytest.param(Leaf1C(0, 0, 0x100000, 0), (0, 0, 0x100000, 0), id="1.1 ECX[31:20]"),
    ],
)
def test_reserved_bits_are_named(leaf, reserved):
    assert leaf.reserved == reserved


def test_the_other_leaves():
    # 1.1: EDX=FC18C430 of an Arrow Lake dump has bit 19.
    assert Leaf07(edx=0xFC18C430).arch_lbr is True
    assert Leaf07(edx=0xFC18C430 & ~(1 << 19)).arch_lbr is False
    assert (Leaf07(ebx=1 << 11).rtm, Leaf07(ebx=1 << 4).rtm) == (True, False)
    unit = Leaf0A(0x07300805, 0, 7, 0x00008604)
    assert (unit.version, unit.gp_counters, unit.gp_width, unit.fixed_counters, unit.fixed_width) == (5, 8, 48, 4, 48)
    assert Leaf0A.of(5) == Leaf0A(0x07300805, 0, 0, 0x00000604)
    assert Leaf0D(7, 0x340, 0xA88, 1).xcr0_mask == 0x1_0000_0007
    assert (Leaf0D(7, 0x340, 0xA88, 0).size_now, Leaf0D(7, 0x340, 0xA88, 0).size_most) == (832, 2696)
    extended = Leaf0D1(0xF, 0x358, 0xD900, 0)
    assert (extended.xsaves, extended.size_compacted, extended.xss_mask >> 15 & 1) == (True, 0x358, 1)
    assert Leaf0D1(0x7, 0, 0, 0).xsaves is False


def test_component_15_is_808_bytes_supervisor_unaligned():
    assert tuple(LBR_COMPONENT) == (0x328, 0, 1, 0)
    assert (LBR_COMPONENT.size, LBR_COMPONENT.offset) == (808, 0)
    assert (LBR_COMPONENT.supervisor, LBR_COMPONENT.aligned) == (True, False)
    assert Leaf0DComponent(8, 0, 2, 0).aligned is True
