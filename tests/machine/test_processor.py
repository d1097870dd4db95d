"""What CPUID answers: by leaf, by hand, and through the instruction in guest code."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from archlbr.cpu import words as at
from archlbr.cpu.engine import StopReason
from archlbr.cpu.unicorn.engine import UnicornEngine
from archlbr.guest import stack
from archlbr.guest.kernel import Kernel
from archlbr.machine.launch import start
from archlbr.machine.memory import AddressSpace
from archlbr.machine.models import MODELS
from archlbr.machine.processor import answer_cpuid
from archlbr.recording.tracing import Tracer
from tests.machine.apart import apart

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.guests.build import Guests

CODE = 0x2100_1000_0000

# The leaves of architecture.md 1.1, and what the C library asks (SDM vol. 2A, CPUID).
ANSWERS = {
    (0, 0): (0x1C, 0x756E6547, 0x6C65746E, 0x49656E69),
    (7, 0): (0, 1 << 3 | 1 << 8 | 1 << 9 | 1 << 19, 0, 1 << 19),  # BMI1 BMI2 ERMS ADX; ARCH_LBR
    (7, 1): (0, 0, 0, 0),
    (0xA, 0): (0x07300805, 0, 0, 0x604),  # version 5, eight 48-bit counters, four fixed ones of 48 bits
    (0xD, 0): (0, 0, 0, 0),
    (0xD, 1): (0, 0, 0, 0),
    # Depths 8, 16 and 32, deep C-state reset; CPL, branch, call stack; mispredict, timed, type.
    (0x1C, 0): (0x4000000B, 7, 7, 0),
    (0x1C, 1): (0, 0, 0, 0),
    (0x80000000, 0): (0x80000008, 0, 0, 0),
    (0x80000001, 0): (0, 0, 1 | 1 << 5, 1 << 11 | 1 << 20 | 1 << 27 | 1 << 29),
    (0x80000008, 0): (0x3034, 0, 0, 0),
}


@pytest.mark.parametrize("leaf", ANSWERS, ids=lambda leaf: f"{leaf[0]:X}H.{leaf[1]}")
def test_a_leaf(leaf: tuple[int, int]) -> None:
    assert answer_cpuid(*leaf) == ANSWERS[leaf]


def test_the_features_of_leaf_1() -> None:
    signature, ebx, ecx, edx = answer_cpuid(1, 0)
    assert signature == 0x000806F8
    family = (signature >> 8 & 0xF) + (signature >> 20 & 0xFF)
    assert (family, (signature >> 12 & 0xF0) | (signature >> 4 & 0xF), signature & 0xF) == (6, 0x8F, 8)
    assert ebx >> 8 & 0xFF == 8  # CLFLUSH of 64 bytes
    # What the C library may use: SSE3 PCLMULQDQ SSSE3 CX16 SSE4.1 SSE4.2 MOVBE POPCNT AES.
    assert {bit for bit in range(32) if ecx >> bit & 1} == {0, 1, 9, 13, 19, 20, 22, 23, 25}
    # XSAVE, OSXSAVE, AVX, F16C, FMA are what would lead it to AVX.
    assert not ecx & (1 << 26 | 1 << 27 | 1 << 28 | 1 << 29 | 1 << 12)
    # FPU TSC MSR CX8 APIC SEP CMOV CLFSH MMX FXSR SSE SSE2: all that x86-64 requires of them.
    assert {bit for bit in range(32) if edx >> bit & 1} == {0, 4, 5, 8, 9, 11, 15, 19, 23, 24, 25, 26}


def test_the_caches() -> None:
    sizes = []
    for subleaf in range(5):
        eax, ebx, sets, _ = answer_cpuid(4, subleaf)
        ways, line = (ebx >> 22) + 1, (ebx & 0xFFF) + 1
        if eax & 0x1F:
            sizes.append((eax >> 5 & 7, eax & 0x1F, ways * line * (sets + 1) // 1024))
    # level, type (1 data, 2 instruction, 3 unified), KiB
    assert sizes == [(1, 1, 48), (1, 2, 32), (2, 3, 2048), (3, 3, 32768)]
    assert answer_cpuid(0x80000006, 0)[2] >> 16 == 2048


def test_the_name() -> None:
    parts = [answer_cpuid(0x80000002 + part, 0) for part in range(3)]
    text = b"".join(word.to_bytes(4, "little") for part in parts for word in part)
    assert text == b"archlbr model of a Sapphire Rapids" + bytes(14)


@pytest.mark.parametrize(
    "answer", [answer_cpuid, *(model.answer_cpuid for model in MODELS.values())], ids=["user", *MODELS]
)
def test_linear_addresses_are_as_wide_as_leaf_7_says(answer: Callable[[int, int], tuple[int, int, int, int]]) -> None:
    """SDM vol. 3A, 4.1.4: 57 bits with LA57, 48 without it; the LBRs' addresses are sign-extended from there."""
    wide = answer(7, 0)[2] >> 16 & 1
    assert answer(0x80000008, 0)[0] >> 8 & 0xFF == (57 if wide else 48)
    assert {model.facility.linear_width for model in MODELS.values()} == {57 if wide else 48}


def test_a_program_s_auxiliary_vector_says_of_the_processor_what_cpuid_says(guests: Guests, tmp_path: Path) -> None:
    def child() -> bytes:
        process, _ = start(str(guests.known), (b"known",), (), Tracer(str(tmp_path)))
        return process.auxv

    vector = dict(struct.iter_unpack("<QQ", apart(child)))
    assert vector[stack.AT_HWCAP] == answer_cpuid(1, 0)[3]


@pytest.mark.parametrize("leaf", [0x1D, 0x40, 0x40000000, 0x7FFFFFFF, 0x80000009, 0xFFFFFFFF])
def test_a_leaf_beyond_the_last(leaf: int) -> None:
    """SDM vol. 2A, CPUID: the data of the highest basic leaf, by the same subleaf."""
    assert answer_cpuid(leaf, 0) == ANSWERS[0x1C, 0]
    assert answer_cpuid(leaf, 1) == ANSWERS[0x1C, 1]


@pytest.mark.parametrize("leaf", [(0, 0), (1, 0), (4, 3), (7, 0), (0xA, 5), (0x1C, 0), (0x80000003, 0), (0x99, 0)])
def test_guest_code_reads_the_same(leaf: tuple[int, int]) -> None:
    engine = UnicornEngine(np.zeros(at.WORDS, np.uint64), 0, 0, answer_cpuid, lambda: None)
    memory = AddressSpace(Kernel(), engine, lambda region: None)
    try:
        memory.mmap(CODE, 4096, 7, 0x32, -1, 0)
        assert memory.write(CODE, bytes.fromhex("0fa2 0f05"))  # cpuid; syscall
        ones = 0xFFFFFFFF_00000000
        before = {"RAX": ones | leaf[0], "RCX": ones | leaf[1], "RBX": ones, "RDX": ones, "RSI": 7}
        engine.write_registers(before)
        stop = engine.run(CODE)
        assert (stop.reason, stop.rip) == (StopReason.SYSCALL, CODE + 4)
        after = engine.registers()
        # The upper halves become 0, and nothing else changes.
        assert tuple(after[name] for name in ("RAX", "RBX", "RCX", "RDX")) == answer_cpuid(*leaf)
        assert after["RSI"] == 7
    finally:
        memory.clear()
