"""CPUID as the guest executes it: each leaf exact, and the compacted size of leaf 0DH.1 worked out by hand."""

from __future__ import annotations

import pytest

from archlbr.arch.cpuid import Leaf0A, Leaf0D, Leaf0D1, Leaf0DComponent, Leaf07, Leaf1C
from archlbr.lbr.state import architectural
from archlbr.vpmu.actions import CpuidInstruction, SupportedCpuid
from archlbr.vpmu.cpuid import Cpuid, refreshed, supported_xss
from archlbr.vpmu.designs import ARCHLBR, SERIES_V2
from tests.vpmu.parts import AVX, LBRS, OFF, SPR, Vcpu, leaves, old_part, pmu

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
    v = Vcpu(ARCHLBR, guest=OFF)
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


HOST = leaves((8, 16, 32), leaf0d1=Leaf0D1(0xF, 0x111, 0x8A00, 0x222), leaf07=Leaf07(edx=1 << 19 | 1 << 5))
OFFERED = HOST._replace(leaf0d1=Leaf0D1(0xF, 0x111, 0x8000, 0), leaf1c=Leaf1C(0x0B, 7, 7, 0))
NOTHING = OFFERED._replace(
    leaf07=Leaf07(edx=1 << 5), leaf0d1=Leaf0D1(0xF, 0x111, 0, 0), components=(AVX,), leaf1c=Leaf1C()
)
DEEPEST = OFFERED._replace(leaf1c=Leaf1C(0x08, 7, 7, 0))


@pytest.mark.parametrize(
    ("options", "archlbr", "series_v2"),
    [
        ({}, OFFERED, DEEPEST),
        # Without a PMU archlbr offers neither counters nor LBRs (P15); the series asks for the controls alone.
        ({"pmu": 0}, NOTHING._replace(leaf0a=Leaf0A()), DEEPEST._replace(leaf0a=Leaf0A())),
        ({"entry_controls": 0}, NOTHING, NOTHING),
        ({"exit_controls": 0}, NOTHING, NOTHING),
        # The host's kernel enables other components alone: bit 15 is not KVM's to give.
        (
            {"xss": 0x0A00},
            OFFERED._replace(leaf0d1=Leaf0D1(0xF, 0x111, 0, 0), components=(AVX,)),
            DEEPEST._replace(leaf0d1=Leaf0D1(0xF, 0x111, 0, 0), components=(AVX,)),
        ),
        ({"xss": 0x8A00}, OFFERED, DEEPEST),
        ({"vendor": "amd"}, NOTHING, DEEPEST),
    ],
)
def test_what_kvm_offers_on_a_host(options: dict[str, object], archlbr: Cpuid, series_v2: Cpuid) -> None:
    for design, expected in ((ARCHLBR, archlbr), (SERIES_V2, series_v2)):
        v = Vcpu(design, options, leaves(leaf07=Leaf07(), leaf1c=None), HOST)
        assert v.do(SupportedCpuid()) == expected


@pytest.mark.parametrize(
    ("options", "archlbr", "series_v2"),
    [
        ({}, 0x8000, 0x8000),
        ({"xss": 0x8A00}, 0x8000, 0x8000),
        ({"xss": 0x0A00}, 0, 0),
        ({"pmu": 0}, 0, 0x8000),
        ({"exit_controls": 0}, 0, 0),
    ],
)
def test_the_supervisor_components_kvm_supports(options: dict[str, int], archlbr: int, series_v2: int) -> None:
    for design, expected in ((ARCHLBR, archlbr), (SERIES_V2, series_v2)):
        assert supported_xss(design, Vcpu(design, options).platform) == expected


def test_what_follows_from_a_guest_s_leaves() -> None:
    guest = leaves((8, 16), leaf0a=Leaf0A.of(4, gp=3, gp_width=40, fixed=2, fixed_width=36))
    made = Vcpu(ARCHLBR, {"freezes_counters": 1}, guest).state.rules
    assert (made.usable, made.why, made.flavour, made.xss, made.pmu) == (1, "", 0x3F, 0x8000, 4)
    assert (made.gp, made.fixed, made.gp_mask, made.fixed_mask) == (3, 2, (1 << 40) - 1, (1 << 36) - 1)
    assert (made.direct, made.depths, made.ler, made.freezes_counters) == (1, (8, 16), 1, 1)
    assert (made.facility.max_depth, made.facility.pmu_version, made.facility.linear_width) == (16, 4, 48)
    assert (made.facility.xsaves, made.facility.tsx) == (1, 0)
    assert made.facility.leaf == Leaf1C(3, 7, 7, 0)
    # Call-stack mode is the host's and not the guest's: XSAVES may not go round KVM.
    less = leaves(leaf1c=Leaf1C(8, 3, 7, 0), leaf0a=Leaf0A.of(1, gp=3, fixed=2))
    poor = Vcpu(ARCHLBR, {"freezes_counters": 1}, less).state.rules
    assert (poor.direct, poor.pmu, poor.gp, poor.fixed, poor.freezes_counters) == (0, 1, 3, 0, 0)
    assert poor.facility.ctl_legal == 0x7F0007
    off = Vcpu(ARCHLBR, {"pmu": 0}).state.rules
    assert (off.usable, off.flavour, off.pmu, off.gp, off.fixed, off.ler) == (0, -1, 0, 0, 0, 0)


@pytest.mark.parametrize("there", [0, 1])
def test_tsx_needs_the_host_s_and_the_guest_s_leaf_7(there: int) -> None:
    rtm = Leaf07(ebx=1 << 11, edx=1 << 19)
    host = {"facility": architectural(leaves((8, 16, 32)).leaf1c, 5, tsx=bool(there))}
    assert Vcpu(ARCHLBR, host, leaves(leaf07=rtm)).state.rules.facility.tsx == there
    assert Vcpu(ARCHLBR, host).state.rules.facility.tsx == 0


def test_a_legacy_guest_has_its_own_pmu_version() -> None:
    v = old_part(ARCHLBR)
    w = old_part(ARCHLBR, v.state.cpuid._replace(leaf0a=pmu(2)))
    assert (v.state.rules.facility.pmu_version, w.state.rules.facility.pmu_version) == (4, 2)
    assert w.state.rules.facility == v.platform.facility._replace(pmu_version=2)
    # A leaf 1CH without the feature bit says nothing.
    told = old_part(ARCHLBR, v.state.cpuid._replace(leaf1c=Leaf1C(8, 7, 7, 0)))
    assert (told.state.rules.flavour, told.state.rules.facility) == (5, v.platform.facility)
