"""CPUID as the guest executes it: each leaf exact, and the compacted size of leaf 0DH.1 worked out by hand."""

from __future__ import annotations

import pytest

from archlbr.arch.cpuid import Leaf0A, Leaf0D, Leaf0D1, Leaf0DComponent, Leaf07, Leaf1C
from archlbr.vpmu.actions import CpuidInstruction
from archlbr.vpmu.cpuid import refreshed
from archlbr.vpmu.designs import ARCHLBR, SERIES_V2
from tests.vpmu.parts import AVX, LBRS, SPR, Vcpu, leaves

PDCM, LONG_MODE = 1 << 15, 1 << 29


def asked(v: Vcpu, leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
    return tuple(v.do(CpuidInstruction(leaf, subleaf)))


@pytest.mark.parametrize("pdcm", [0, 1])
@pytest.mark.parametrize("long_mode", [0, 1])
def test_each_leaf_is_what_userspace_set(pdcm: int, long_mode: int) -> None:
    set_ = leaves(pdcm=pdcm, long_mode=long_mode)
    v = Vcpu(ARCHLBR, guest=set_)
    assert asked(v, 1) == (SPR, 0, PDCM * pdcm, 0)
    assert asked(v, 7) == tuple(Leaf07(edx=1 << 19))
    assert asked(v, 7, 1) == (0, 0, 0, 0)
    assert asked(v, 0xA) == tuple(Leaf0A.of(5))
    assert asked(v, 0xD) == tuple(Leaf0D(7, 0, 0, 0))
    assert asked(v, 0xD, 2) == (256, 576, 0, 0)
    assert asked(v, 0xD, 15) == (808, 0, 1, 0)
    assert asked(v, 0xD, 9) == (0, 0, 0, 0)
    assert asked(v, 0x1C) == tuple(Leaf1C(8, 7, 7, 0))
    assert asked(v, 0x1C, 1) == (0, 0, 0, 0)
    assert asked(v, 0x80000001) == (0, 0, 0, LONG_MODE * long_mode)
    for leaf in (0, 2, 6, 8, 0xB, 0xC, 0xE, 0x1B, 0x1D, 0x80000000, 0x80000002):
        assert asked(v, leaf) == (0, 0, 0, 0)


def test_a_guest_without_lbrs_reads_a_leaf_1ch_of_zeros() -> None:
    v = Vcpu(ARCHLBR, guest=leaves(leaf07=Leaf07(), leaf1c=None, leaf0d1=Leaf0D1(0xF, 0, 0, 0), components=(AVX,)))
    assert asked(v, 0x1C) == (0, 0, 0, 0)


UNALIGNED, ALIGNED = (9, Leaf0DComponent(8, 0, 1, 0)), (11, Leaf0DComponent(16, 0, 3, 0))


@pytest.mark.parametrize(
    ("xcr0", "xss", "size"),
    [
        (1, 0, 576),
        (7, 0, 576 + 256),
        (1, 1 << 15, 576 + 808),
        (7, 1 << 15, 576 + 256 + 808),
        (1, 1 << 9 | 1 << 15, 576 + 8 + 808),
        # Component 11 begins at a multiple of 64: 576 is one, 576 + 8 is not.
        (1, 1 << 11, 576 + 16),
        (1, 1 << 9 | 1 << 11, 640 + 16),
        (7, 1 << 9 | 1 << 11 | 1 << 15, 576 + 256 + 64 + 16 + 808),
    ],
)
def test_the_compacted_size_follows_xcr0_and_xss(xcr0: int, xss: int, size: int) -> None:
    made = leaves(components=(LBRS, ALIGNED, UNALIGNED, AVX))
    for eax in (0xF, 8, 2):
        leaf = made._replace(leaf0d1=Leaf0D1(eax, 0x111, 0x8A00, 0x222))
        assert tuple(refreshed(ARCHLBR, leaf, xcr0, xss)) == (eax, size, 0x8A00, 0x222)
    # Without XSAVES and XSAVEC there is no compacted form.
    neither = made._replace(leaf0d1=Leaf0D1(5, 0x111, 0x8A00, 0x222))
    assert tuple(refreshed(ARCHLBR, neither, xcr0, xss)) == (5, 0x111, 0x8A00, 0x222)


def test_the_two_designs_differ_where_there_is_no_xsaves() -> None:
    # Patch 3 zeroes ECX and EDX together with the size where XSAVES is not there.
    leaf = leaves(leaf0d1=Leaf0D1(7, 0, 0x8000, 9))
    assert tuple(refreshed(ARCHLBR, leaf, 1, 0)) == (7, 576, 0x8000, 9)
    assert tuple(refreshed(SERIES_V2, leaf, 1, 0)) == (7, 576, 0, 0)
