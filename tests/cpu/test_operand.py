"""Where the operand of an instruction lies that the engine does not know: LEA with the same bytes says it, too."""

from __future__ import annotations

import ctypes
import struct

import pytest
import unicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unicorn import x86_const as x86

from archlbr.cpu.unicorn import longmode, operand
from archlbr.cpu.unicorn.location import locate

CODE = 0x10000
NAMES = ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", *(f"R{number}" for number in range(8, 16)))


class Processor:
    """An engine in 64-bit mode, which executes LEA."""

    def __init__(self) -> None:
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        _, self.env = locate(self.uc)
        self.uc.mem_map(CODE, 4096)

    def both(self, prefixes: bytes, rex: int, rest: bytes, values: list[int]) -> tuple[int, int]:
        """Return the address of XSAVES's operand, and what LEA RDX makes of the same ModRM, SIB and displacement."""
        place = ctypes.c_uint64.from_address(self.env + longmode.RIP)
        for name, value in zip(NAMES, values, strict=True):
            self.uc.reg_write(getattr(x86, f"UC_X86_REG_{name}"), value)
        saving = prefixes + bytes((0x48 | rex, 0x0F, 0xC7, rest[0] & 0xC7 | 5 << 3)) + rest[1:]
        instruction = operand.decode(saving.ljust(operand.LONGEST, b"\x90"), 0)
        assert instruction is not None
        assert (instruction.name, instruction.memory) == ("xsaves", 1)
        loading = prefixes + bytes((0x48 | rex, 0x8D, rest[0] & 0xC7 | 2 << 3)) + rest[1:]
        self.uc.mem_write(CODE, loading.ljust(operand.LONGEST, b"\x90"))
        self.uc.ctl_remove_cache(CODE, CODE + 32)
        place.value = CODE - 1  # one byte shorter, LEA ends as far behind as if it began one byte before
        found = operand.address(self.env, instruction)
        self.uc.emu_start(CODE, CODE + instruction.length - 1, count=1)
        return found, int(self.uc.reg_read(x86.UC_X86_REG_RDX))


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor()


@st.composite
def operands(draw: st.DrawFn) -> bytes:
    """A ModRM byte with a memory operand, its SIB byte and displacement."""
    mode, low = draw(st.integers(0, 2)), draw(st.integers(0, 7))
    sib = bytes([draw(st.integers(0, 255))]) if low == 4 else b""
    wide = mode == 2 or (mode == 0 and (low == 5 or (sib and sib[0] & 7 == 5)))
    size = 4 if wide else mode
    return bytes([mode << 6 | low]) + sib + draw(st.binary(min_size=size, max_size=size))


@settings(max_examples=400, deadline=None)
@given(operands(), st.integers(0, 3), st.booleans(), st.lists(st.integers(0, (1 << 64) - 1), min_size=16, max_size=16))
@example(bytes((0x04, 0x27)), 0, False, list(range(16)))  # a SIB byte without an index
@example(bytes((0x04, 0x25)) + struct.pack("<i", -4), 0, True, list(range(16)))
@example(bytes((0x05,)) + struct.pack("<i", -4), 0, False, list(range(16)))  # RIP
def test_lea_says_the_same(processor: Processor, rest: bytes, rex: int, short: bool, values: list[int]) -> None:
    found, loaded = processor.both(b"\x67" if short else b"", rex, rest, values)
    assert found == loaded


@settings(max_examples=400, deadline=None)
@given(
    st.binary(min_size=0, max_size=4),
    st.sampled_from((b"\x0f\xae", b"\x0f\xc7", b"\x0f\x01")),
    st.binary(min_size=8, max_size=8),
)
def test_any_bytes_are_an_instruction_or_none(before: bytes, opcode: bytes, rest: bytes) -> None:
    for size in range(3):
        instruction = operand.decode((before + opcode + rest)[: operand.LONGEST], size)
        assert instruction is None or 0 < instruction.length <= operand.LONGEST
