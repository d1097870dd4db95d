"""CPUID leaves 07H, 0AH, 0DH and 1CH as values: four registers, with a property a field.

`lbr.state` derives what the facility can do from leaf 1CH, `vpmu` decides what a guest is shown, `probe` reads a
host's. The layouts are those of reference architecture.md 1.1 (Intel SDM vol. 2A, CPUID).
"""

from __future__ import annotations

from typing import NamedTuple

from archlbr.arch.bits import Field, fields, union

_07_EBX = fields(Field("HLE", 4, 1), Field("RTM", 11, 1))
_07_EDX = fields(Field("ARCH_LBR", 19, 1))
_0A_EAX = fields(Field("VERSION", 0, 8), Field("GP", 8, 8), Field("GP_WIDTH", 16, 8), Field("EVENTS", 24, 8))
_0A_EDX = fields(Field("FIXED", 0, 5), Field("FIXED_WIDTH", 5, 8))
_0D_1_EAX = fields(Field("XSAVEOPT", 0, 1), Field("XSAVEC", 1, 1), Field("XGETBV_1", 2, 1), Field("XSAVES", 3, 1))
_0D_F_ECX = fields(Field("SUPERVISOR", 0, 1), Field("ALIGNED", 1, 1))
_1C_EAX = fields(Field("DEPTHS", 0, 8), Field("DEEP_C_RESET", 30, 1), Field("LIP", 31, 1))
_1C_EBX = fields(Field("CPL", 0, 1), Field("BRANCH", 1, 1), Field("CALL_STACK", 2, 1))
_1C_ECX = fields(Field("MISPRED", 0, 1), Field("TIMED", 1, 1), Field("BR_TYPE", 2, 1), Field("EVENTS", 16, 4))

ALL = 0xFFFFFFFF


class Leaf07(NamedTuple):
    """CPUID.07H.0: the feature bits that concern branch records."""

    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0

    @property
    def arch_lbr(self) -> bool:
        """Say whether the architectural facility is there: EDX[19]."""
        return bool(self.edx >> 19 & 1)

    @property
    def rtm(self) -> bool:
        """Say whether transactions are there: EBX[11]."""
        return bool(self.ebx >> 11 & 1)


class Leaf0A(NamedTuple):
    """CPUID.0AH: the performance monitoring unit."""

    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0

    @classmethod
    def of(cls, version: int, gp: int = 8, gp_width: int = 48, fixed: int = 4, fixed_width: int = 48) -> Leaf0A:
        """Build the leaf: version, numbers and widths (bits) of the counters; all seven classic events are there."""
        eax = version | gp << 8 | gp_width << 16 | 7 << 24
        return cls(eax, 0, 0, fixed | fixed_width << 5)

    @property
    def version(self) -> int:
        """Return the PMU's version: EAX[7:0]; from 4 on a PMI freezes by LBR_FRZ."""
        return self.eax & 0xFF

    @property
    def gp_counters(self) -> int:
        """Return the number of general-purpose counters: EAX[15:8]."""
        return self.eax >> 8 & 0xFF

    @property
    def gp_width(self) -> int:
        """Return the width of those counters in bits: EAX[23:16]."""
        return self.eax >> 16 & 0xFF

    @property
    def fixed_counters(self) -> int:
        """Return the number of fixed counters: EDX[4:0]."""
        return self.edx & 0x1F

    @property
    def fixed_width(self) -> int:
        """Return the width of those counters in bits: EDX[12:5]."""
        return self.edx >> 5 & 0xFF


class Leaf0D(NamedTuple):
    """CPUID.0DH.0: the components of XCR0 and the sizes they need."""

    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0

    @property
    def xcr0_mask(self) -> int:
        """Return the components XCR0 may enable: EDX:EAX."""
        return self.edx << 32 | self.eax

    @property
    def size_now(self) -> int:
        """Return the bytes of a standard-format area for XCR0 as set now: EBX."""
        return self.ebx

    @property
    def size_most(self) -> int:
        """Return the bytes of a standard-format area for all of XCR0: ECX."""
        return self.ecx


class Leaf0D1(NamedTuple):
    """CPUID.0DH.1: which XSAVE instructions there are, and the components of IA32_XSS."""

    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0

    @property
    def xsaves(self) -> bool:
        """Say whether XSAVES, XRSTORS and IA32_XSS are there: EAX[3]."""
        return bool(self.eax >> 3 & 1)

    @property
    def size_compacted(self) -> int:
        """Return the bytes of a compacted area for XCR0 | IA32_XSS as set now: EBX."""
        return self.ebx

    @property
    def xss_mask(self) -> int:
        """Return the components IA32_XSS may enable: EDX:ECX."""
        return self.edx << 32 | self.ecx


class Leaf0DComponent(NamedTuple):
    """CPUID.0DH.n, n > 1: one component; for n = 0FH the LBRs."""

    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0

    @property
    def size(self) -> int:
        """Return the component's bytes: EAX."""
        return self.eax

    @property
    def offset(self) -> int:
        """Return its offset in the standard format, 0 for a supervisor component: EBX."""
        return self.ebx

    @property
    def supervisor(self) -> bool:
        """Say whether IA32_XSS, not XCR0, enables it: ECX[0]."""
        return bool(self.ecx & 1)

    @property
    def aligned(self) -> bool:
        """Say whether the compacted format aligns it to 64 bytes: ECX[1]."""
        return bool(self.ecx >> 1 & 1)


class Leaf1C(NamedTuple):
    """CPUID.1CH.0: what the architectural facility can do."""

    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0

    @classmethod
    def of(
        cls,
        depths: tuple[int, ...] = (8, 16, 32),
        *,
        deep_c_reset: bool = True,
        lip: bool = False,
        cpl_filter: bool = True,
        branch_filter: bool = True,
        call_stack: bool = True,
        mispredict: bool = True,
        timed: bool = True,
        branch_type: bool = True,
        event_counters: int = 0,
    ) -> Leaf1C:
        """Build the leaf from names; `depths` are multiples of 8 up to 64, `event_counters` the bitmap ECX[19:16]."""
        mask = 0
        for depth in depths:
            mask |= 1 << (depth // 8 - 1)
        eax, ebx, ecx = 0, 0, 0
        for member, content in zip(_1C_EAX, (mask, int(deep_c_reset), int(lip)), strict=True):
            eax = member.put(eax, content)
        for member, content in zip(_1C_EBX, (int(cpl_filter), int(branch_filter), int(call_stack)), strict=True):
            ebx = member.put(ebx, content)
        switches = (int(mispredict), int(timed), int(branch_type), event_counters)
        for member, content in zip(_1C_ECX, switches, strict=True):
            ecx = member.put(ecx, content)
        return cls(eax, ebx, ecx, 0)

    @property
    def depths(self) -> tuple[int, ...]:
        """Return the legal values of IA32_LBR_DEPTH: 8 * (n + 1) for each bit n of EAX[7:0]."""
        return tuple(8 * (n + 1) for n in range(8) if self.eax >> n & 1)

    @property
    def max_depth(self) -> int:
        """Return the largest legal depth, 0 when there is none."""
        return 8 * (self.eax & 0xFF).bit_length()

    @property
    def deep_c_reset(self) -> bool:
        """Say whether a C-state above C1 may clear the entries: EAX[30]."""
        return bool(self.eax >> 30 & 1)

    @property
    def lip(self) -> bool:
        """Say whether recorded addresses are linear rather than offsets in CS: EAX[31]."""
        return bool(self.eax >> 31 & 1)

    @property
    def cpl_filter(self) -> bool:
        """Say whether CTL[2:1] may be set: EBX[0]."""
        return bool(self.ebx & 1)

    @property
    def branch_filter(self) -> bool:
        """Say whether CTL[22:16] may be set: EBX[1]."""
        return bool(self.ebx >> 1 & 1)

    @property
    def call_stack(self) -> bool:
        """Say whether CTL[3] may be set: EBX[2]."""
        return bool(self.ebx >> 2 & 1)

    @property
    def mispredict(self) -> bool:
        """Say whether INFO[63] is meaningful: ECX[0]."""
        return bool(self.ecx & 1)

    @property
    def timed(self) -> bool:
        """Say whether INFO[15:0] and INFO[60] are meaningful: ECX[1]."""
        return bool(self.ecx >> 1 & 1)

    @property
    def branch_type(self) -> bool:
        """Say whether INFO[59:56] is meaningful: ECX[2]."""
        return bool(self.ecx >> 2 & 1)

    @property
    def event_counters(self) -> int:
        """Return the bitmap of counters 0 to 3 that can log into INFO: ECX[19:16]."""
        return self.ecx >> 16 & 0xF

    @property
    def reserved(self) -> tuple[int, int, int, int]:
        """Return the reserved bits that are set, a register each; all 0 on real parts."""
        return (
            self.eax & ALL & ~union(_1C_EAX),
            self.ebx & ALL & ~union(_1C_EBX),
            self.ecx & ALL & ~union(_1C_ECX),
            self.edx & ALL,
        )


# CPUID.1CH of real cores (architecture.md 1.1). The dumps show the last two; GOLDEN_COVE is UNCONFIRMED (mem).
GOLDEN_COVE = Leaf1C(0x4000000B, 7, 0x00000007)
LION_COVE = Leaf1C(0x4000000B, 7, 0x000F0007)
SKYMONT = Leaf1C(0xC000000B, 7, 0x000F0007)
PRESETS: dict[str, Leaf1C] = {"golden-cove": GOLDEN_COVE, "lion-cove": LION_COVE, "skymont": SKYMONT}

# CPUID.0DH.0FH wherever XSAVES serves the LBRs: 808 bytes, supervisor, not aligned (architecture.md 1.1).
LBR_COMPONENT = Leaf0DComponent(0x328, 0, 1, 0)
