"""A setup's host and guest as the vPMU takes them: its platform and its CPUID.

`model` builds its states with these, and `machine` with it. Layouts: `arch.cpuid`; the sizes of the AVX component are
those of every part (SDM vol. 1, 13.4.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch.cpuid import LBR_COMPONENT, Leaf0A, Leaf0D, Leaf0D1, Leaf0DComponent, Leaf07, Leaf1C
from archlbr.arch.vmx import VM_ENTRY_LOAD_IA32_LBR_CTL, VM_EXIT_CLEAR_IA32_LBR_CTL
from archlbr.arch.xsave import COMPONENT, COMPONENT_BIT
from archlbr.lbr.state import FORMAT_INFO, architectural, legacy
from archlbr.vpmu.cpuid import Cpuid
from archlbr.vpmu.state import Platform, platform

if TYPE_CHECKING:
    from archlbr.conformance.questions import Guest, Host

ARCH_LBR = 1 << 19
XSAVE_ALL = 0xF  # XSAVEOPT, XSAVEC, XGETBV with ECX = 1, XSAVES
SAPPHIRE_RAPIDS = 0x806F8
AVX = (2, Leaf0DComponent(0x100, 0x240, 0, 0))
XCR0 = Leaf0D(7, 0x340, 0x340, 0)
SIZE = LBR_COMPONENT.size
LEGACY_DEPTH = 32


def as_platform(host: Host, *, nested: int) -> Platform:
    """Return the host as the vPMU's platform."""
    facility = (
        architectural(host.leaf, host.pmu_version)
        if host.arch_lbr
        else legacy(FORMAT_INFO, LEGACY_DEPTH, max(host.pmu_version, 2))
    )
    return platform(
        facility,
        _cpuid(SAPPHIRE_RAPIDS, host.arch_lbr, host.leaf, host.pmu_version, 1, host.arch_lbr, SIZE * host.arch_lbr, 1),
        entry_controls=VM_ENTRY_LOAD_IA32_LBR_CTL * host.entry_control,
        exit_controls=VM_EXIT_CLEAR_IA32_LBR_CTL * host.exit_control,
        xss=COMPONENT_BIT * host.arch_lbr,
        vendor=host.vendor,
        pmu=host.pmu,
        nested=nested,
    )


def as_cpuid(guest: Guest) -> Cpuid:
    """Return what the VMM gives to KVM_SET_CPUID2."""
    leaf = guest.leaf
    return _cpuid(
        guest.model or SAPPHIRE_RAPIDS, guest.arch_lbr, leaf, guest.pmu_version, guest.xsaves, guest.component,
        guest.component_size, guest.long_mode,
    )  # fmt: skip


def _cpuid(
    signature: int, arch_lbr: int, leaf: Leaf1C | None, version: int, xsaves: int, component: int, size: int,
    long_mode: int,
) -> Cpuid:  # fmt: skip
    components = (AVX, (COMPONENT, LBR_COMPONENT._replace(eax=size))) if size else (AVX,)
    return Cpuid(
        signature=signature,
        long_mode=long_mode,
        leaf07=Leaf07(edx=ARCH_LBR * arch_lbr),
        leaf0a=Leaf0A.of(version) if version else Leaf0A(),
        leaf0d=XCR0,
        leaf0d1=Leaf0D1(XSAVE_ALL if xsaves else 1, 0, COMPONENT_BIT * component, 0),
        components=components,
        leaf1c=leaf,
    )
