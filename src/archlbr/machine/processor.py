"""What CPUID answers to a user program: a Sapphire Rapids without AVX.

`machine.userland` gives this to the engine. The C library picks its SSE2 and SSE4 paths from it, which the engine
executes; leaf 1CH and EDX[19] of leaf 7 say that the LBRs are architectural. Layouts: SDM vol. 2A, CPUID;
architecture.md 1.1.
"""

from __future__ import annotations

from typing import Final

from archlbr.arch.cpuid import GOLDEN_COVE, Leaf0A, Leaf1C

_HIGHEST: Final = 0x1C
_HIGHEST_EXTENDED: Final = 0x80000008
_BRAND: Final = b"archlbr model of a Sapphire Rapids".ljust(48, b"\0")


def _bits(*positions: int) -> int:
    return sum(1 << position for position in positions)


# 0: FPU 4: TSC 5: MSR 8: CX8 9: APIC 11: SEP 15: CMOV 19: CLFSH 23: MMX 24: FXSR 25: SSE 26: SSE2
_LEAF1_EDX: Final = _bits(0, 4, 5, 8, 9, 11, 15, 19, 23, 24, 25, 26)
# 0: SSE3 1: PCLMULQDQ 9: SSSE3 13: CX16 19: SSE4.1 20: SSE4.2 22: MOVBE 23: POPCNT 25: AES. No XSAVE, so no AVX.
_LEAF1_ECX: Final = _bits(0, 1, 9, 13, 19, 20, 22, 23, 25)
# 9: ERMS. 3: BMI1 8: BMI2 19: ADX, which need no YMM state.
_LEAF7_EBX: Final = _bits(3, 8, 9, 19)
_LEAF7_EDX: Final = _bits(19)
# 0: LAHF 5: LZCNT. 11: SYSCALL 20: NX 27: RDTSCP 29: long mode
_EXTENDED_ECX: Final = _bits(0, 5)
_EXTENDED_EDX: Final = _bits(11, 20, 27, 29)

# Leaf 4, deterministic cache parameters: L1D 48K, L1I 32K, L2 2M, L3 32M; lines of 64 bytes.
_CACHES: Final = (
    (0x1C004121, 11 << 22 | 63, 63),
    (0x1C004122, 7 << 22 | 63, 63),
    (0x1C004143, 15 << 22 | 63, 2047),
    (0x1C03C163, 15 << 22 | 63, 32767),
)


def answer_cpuid(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """Return EAX, EBX, ECX and EDX for a leaf and subleaf, as a user program of this machine sees them."""
    if leaf > _HIGHEST and not 0x80000000 <= leaf <= _HIGHEST_EXTENDED:
        leaf = _HIGHEST  # above the maximum: the data of the highest basic leaf (SDM vol. 2A, CPUID)
    match leaf:
        case 0:
            return _HIGHEST, 0x756E6547, 0x6C65746E, 0x49656E69  # "GenuineIntel"
        case 1:
            return 0x000806F8, 0x00010800, _LEAF1_ECX, _LEAF1_EDX  # family 6 model 8FH stepping 8
        case 2:
            return 0x00FEFF01, 0xF0, 0, 0  # ask leaf 4 and leaf 18H
        case 4:
            if subleaf < len(_CACHES):
                eax, ebx, sets = _CACHES[subleaf]
                return eax, ebx, sets, 0
            return 0, 0, 0, 0
        case 7:
            return (0, _LEAF7_EBX, 0, _LEAF7_EDX) if subleaf == 0 else (0, 0, 0, 0)
        case 0xA:
            return _registers(Leaf0A.of(5))
        case 0x1C:
            return _registers(GOLDEN_COVE) if subleaf == 0 else (0, 0, 0, 0)
        case 0x80000000:
            return _HIGHEST_EXTENDED, 0, 0, 0
        case 0x80000001:
            return 0, 0, _EXTENDED_ECX, _EXTENDED_EDX
        case 0x80000002 | 0x80000003 | 0x80000004:
            part = _BRAND[16 * (leaf - 0x80000002) :][:16]
            words = [int.from_bytes(part[4 * index : 4 * index + 4], "little") for index in range(4)]
            return words[0], words[1], words[2], words[3]
        case 0x80000006:
            return 0, 0, 0x08007040, 0  # 2M L2
        case 0x80000008:
            return 0x00003034, 0, 0, 0  # 52 physical, 48 linear address bits: leaf 7 says no LA57
    return 0, 0, 0, 0


def _registers(leaf: Leaf0A | Leaf1C) -> tuple[int, int, int, int]:
    return leaf.eax, leaf.ebx, leaf.ecx, leaf.edx
