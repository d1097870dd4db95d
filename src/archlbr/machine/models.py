"""The processor models of a whole machine: what CPUID says, which LBR facility and which PMU there are.

`machine.board` builds a processor from one, `machine.vcpu` the vPMU's platform and the guest's CPUID. A feature that is
taken away is taken from the guest; the processor keeps it. Leaves: SDM vol. 2A, CPUID; architecture.md 1.1. No AVX: the
engine does not execute it.
"""

from __future__ import annotations

from typing import NamedTuple

from archlbr.arch.cpuid import GOLDEN_COVE, LBR_COMPONENT, Leaf0A, Leaf0D, Leaf0D1, Leaf07, Leaf1C
from archlbr.arch.xsave import COMPONENT, COMPONENT_BIT
from archlbr.lbr.state import Facility, architectural, legacy
from archlbr.vpmu.cpuid import Cpuid

# TSC and crystal: 1 GHz and 25 MHz, so that neither is calibrated (leaf 15H).
_CRYSTAL = 25_000_000
_RATIO = 40


def _bits(*positions: int) -> int:
    return sum(1 << position for position in positions)


# FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP PGE MCA CMOV PAT CLFSH MMX FXSR SSE SSE2
_LEAF1_EDX = _bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 14, 15, 16, 19, 23, 24, 25, 26)
# SSE3 SSSE3 CX16 PDCM SSE4.1 SSE4.2 MOVBE POPCNT XSAVE; OSXSAVE follows CR4.
_LEAF1_ECX = _bits(0, 9, 13, 15, 19, 20, 22, 23, 26)
PDCM, XSAVE, OSXSAVE = _bits(15), _bits(26), _bits(27)
# BMI1 BMI2 ERMS
_LEAF7_EBX = _bits(3, 8, 9)
_ARCH_LBR = _bits(19)
# x87 and SSE: 512 bytes and the header, for what XCR0 holds and for all it may hold. XSAVEOPT XSAVEC XGETBV_1 XSAVES.
_LEAF0D = Leaf0D(0b11, 576, 576, 0)
_LEAF0D_1_EAX = _bits(0, 1, 2, 3)


class Model(NamedTuple):
    """A processor: signature is leaf 1 EAX; pmu is leaf 0AH; lbr is leaf 1CH, all 0 for the legacy facility.

    lbr_format: PERF_CAPABILITIES[5:0]. hidden: the features that the guest is not told of, `arch-lbr`, `pmu`, `xsave`.
    """

    name: str
    signature: int
    pmu: Leaf0A
    lbr: Leaf1C
    lbr_format: int
    hidden: frozenset[str] = frozenset()

    @property
    def facility(self) -> Facility:
        """The LBR facility."""
        if self.lbr.depths:
            return architectural(self.lbr, self.pmu.version, xsaves=True)
        return legacy(self.lbr_format, 32, self.pmu.version)

    @property
    def cpuid(self) -> Cpuid:
        """What the processor says of its LBRs and its PMU; nothing is hidden."""
        new = bool(self.lbr.depths)
        return Cpuid(
            self.signature,
            leaf07=Leaf07(edx=_ARCH_LBR if new else 0),
            leaf0a=self.pmu,
            leaf0d=_LEAF0D,
            leaf0d1=Leaf0D1(_LEAF0D_1_EAX, ecx=COMPONENT_BIT if new else 0),
            components=((COMPONENT, LBR_COMPONENT),) if new else (),
            leaf1c=self.lbr if new else None,
        )

    def answer_cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Return EAX, EBX, ECX and EDX for a leaf and subleaf, as the processor has it."""
        highest = 0x1C if self.lbr.depths else 0x16
        if leaf > highest and not 0x80000000 <= leaf <= 0x80000008:
            leaf = highest
        match leaf:
            case 0:
                return highest, 0x756E6547, 0x6C65746E, 0x49656E69
            case 1:
                return self.signature, 0x00010800, _LEAF1_ECX, _LEAF1_EDX
            case 2:
                return 0x00FEFF01, 0xF0, 0, 0
            case 4:
                caches = ((0x121, 47185983, 63), (0x122, 29360191, 63), (0x143, 62914623, 2047))
                if subleaf < len(caches):
                    eax, ebx, sets = caches[subleaf]
                    return eax, ebx, sets, 0
                return 0, 0, 0, 0
            case 7 if subleaf == 0:
                return 0, _LEAF7_EBX, 0, _ARCH_LBR if self.lbr.depths else 0
            case 0xA:
                return self.pmu.eax, self.pmu.ebx, self.pmu.ecx, self.pmu.edx
            case 0x15:
                return 1, _RATIO, _CRYSTAL, 0
            case 0x16:
                return 1000, 1000, 25, 0
            case 0x1C if subleaf == 0 and self.lbr.depths:
                return self.lbr.eax, self.lbr.ebx, self.lbr.ecx, self.lbr.edx
            case 0x80000000:
                return 0x80000008, 0, 0, 0
            case 0x80000001:
                return 0, 0, _bits(0), _bits(11, 20, 27, 29)
            case 0x80000008:
                return 0x00003027, 0, 0, 0  # 39 physical, 48 linear address bits: leaf 7 says no LA57
        return 0, 0, 0, 0


# No caches, and so no events of the last level: what 0AH EBX says of architectural events that are not there.
_NO_LLC_REFERENCES, _NO_LLC_MISSES = _bits(3), _bits(4)


def _pmu(version: int, fixed: int) -> Leaf0A:
    return Leaf0A.of(version, fixed=fixed)._replace(ebx=_NO_LLC_REFERENCES | _NO_LLC_MISSES)


SAPPHIRE_RAPIDS = Model("sapphire-rapids", 0x000806F8, _pmu(5, fixed=4), GOLDEN_COVE, 0x3F)
SKYLAKE_SERVER = Model("skylake-server", 0x00050654, _pmu(4, fixed=3), Leaf1C(), 5)
MODELS: dict[str, Model] = {model.name: model for model in (SAPPHIRE_RAPIDS, SKYLAKE_SERVER)}


def without(model: Model, feature: str) -> Model:
    """Return a model whose guest is not told of `arch-lbr`, or of `pmu` and so of no LBRs to sample."""
    return model._replace(hidden=model.hidden | {feature})
