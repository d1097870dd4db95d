"""Instructions that the engine leaves undefined: which one stands there, and where its memory operand lies.

`machine.extended` decodes XSAVE and its kin with it. Which bytes are which instruction is capstone's word, remembered
by the bytes; the address is made of the engine's registers as they stand. Sources: SDM vol. 1, 3.7.5 and 3.7.5.1.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Final, NamedTuple

import capstone
from capstone import x86 as cs

from archlbr.cpu.unicorn import longmode

LONGEST: Final = 15
_MODES: Final = {0: capstone.CS_MODE_64, 1: capstone.CS_MODE_32, 2: capstone.CS_MODE_16}
# Each of these makes another instruction of it, or none: LOCK, REPNE, REP, operand size.
_PREFIXES: Final = frozenset(b"\xf0\xf2\xf3\x66")
_ESCAPE: Final = 0x0F
# The registers of an address, in the order of the engine's state.
_NAMES: Final = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
_NUMBERS: Final = {
    **{prefix + name: number for number, name in enumerate(_NAMES) for prefix in ("", "e", "r")},
    **{f"r{number}{suffix}": number for number in range(8, 16) for suffix in ("", "d")},
}
_NONE, _RIP = -1, 16
_NO_REGISTER: Final = ("riz", "eiz")  # a SIB byte without an index
_STACK: Final = (4, 5)  # an address made of SP or BP is the stack segment's
_SEGMENTS: Final = {"es": 0, "cs": 1, "ss": 2, "ds": 3, "fs": 4, "gs": 5}
_SS, _DS, _FS = 2, 3, 4
_CANONICAL: Final = 1 << 47


class Instruction(NamedTuple):
    """An instruction: its name, its bytes, and its memory operand, if `memory` says that there is one.

    base, scaled: of the engine's registers, -1 for none, 16 for RIP. segment: in the order ES CS SS DS FS GS. mask:
    what an address of its size can hold.
    """

    name: str
    length: int
    memory: int = 0
    base: int = _NONE
    scaled: int = _NONE
    scale: int = 1
    displacement: int = 0
    segment: int = _DS
    mask: int = 0


@lru_cache(maxsize=4096)
def decode(code: bytes, size: int) -> Instruction | None:
    """Return the instruction at the start of `code`, None where there is none, or one with a prefix that it forbids.

    size: 0 for 64-bit code, 1 for 32-bit, 2 for 16-bit. The names are without the 64 of REX.W.
    """
    decoder = capstone.Cs(capstone.CS_ARCH_X86, _MODES[size])
    decoder.detail = True
    found = next(decoder.disasm(code, 0, 1), None)
    if found is None or _ESCAPE not in found.bytes:
        return None
    if _PREFIXES & frozenset(found.bytes[: found.bytes.index(_ESCAPE)]):
        return None
    name = found.mnemonic.removesuffix("64")
    memory = next((operand.mem for operand in found.operands if operand.type == cs.X86_OP_MEM), None)
    if memory is None:
        return Instruction(name, found.size)
    base, index = (_number(found.reg_name(register)) for register in (memory.base, memory.index))
    segment = _SS if base in _STACK else _DS
    if memory.segment:
        named = _SEGMENTS[found.reg_name(memory.segment)]
        segment = named if named >= _FS or size != 0 else segment  # the others' overrides mean nothing in 64-bit code
    return Instruction(
        name, found.size, 1, base, index, memory.scale, memory.disp, segment, (1 << 8 * found.addr_size) - 1
    )


def _number(name: str | None) -> int:
    if not name or name in _NO_REGISTER:
        return _NONE
    return _RIP if name in ("rip", "eip") else _NUMBERS[name]


def address(env: int, instruction: Instruction) -> int:
    """Return the linear address of a memory operand."""
    registers = (ctypes.c_uint64 * 16).from_address(env)
    total = instruction.displacement
    if instruction.base == _RIP:
        total += ctypes.c_uint64.from_address(env + longmode.RIP).value + instruction.length
    elif instruction.base != _NONE:
        total += registers[instruction.base]
    if instruction.scaled != _NONE:
        total += registers[instruction.scaled] * instruction.scale
    total &= instruction.mask
    wide = code_size(env) == 0
    if not wide or instruction.segment >= _FS:
        total += segment_base(env, instruction.segment)
    return total & ((1 << 64) - 1 if wide else (1 << 32) - 1)


def is_canonical(linear: int) -> bool:
    """Say whether bits 63 to 47 of an address are the same."""
    return linear + _CANONICAL & (1 << 64) - 1 < 2 * _CANONICAL


def is_stack(instruction: Instruction) -> bool:
    """Say whether the operand is the stack segment's: its faults are #SS."""
    return instruction.segment == _SS


def segment_base(env: int, segment: int) -> int:
    """Return a segment's base, by its number in the order ES CS SS DS FS GS."""
    return ctypes.c_uint64.from_address(env + longmode.SEGMENTS + longmode.SEGMENT * segment + 8).value


def code_size(env: int) -> int:
    """Return 0 for 64-bit code, 1 for 32-bit code, 2 for 16-bit code: `longmode.code_size`, outside compiled code."""
    flags = ctypes.c_uint32.from_address(env + longmode.HFLAGS).value
    return 0 if flags & longmode.HF_CS64 else 2 - (flags >> 4 & 1)
