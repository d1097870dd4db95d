"""Decode one block of guest code: where its last instruction is and what kind of branch it is.

`cpu.unicorn.blocks` asks once a block. Instruction lengths and identities are capstone's; the kind of a JMP or CALL is
read off its own bytes, since capstone gives direct, indirect and some far forms one name. Classification follows
architecture.md 3.1 (LOOP and JRCXZ are conditional; CALL with displacement 0 is no branch for the LBRs, whatever the
mode).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import capstone
import numpy as np
import numpy.typing as npt
from capstone import x86_const as x86
from numba import uint64

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.cpu.address import Word, call5, load8, load64, store64
from archlbr.cpu.predictor import spread
from archlbr.native import native

if TYPE_CHECKING:
    from archlbr.cpu.words import Words

# What an instruction identity alone decides. DIRECT: the opcode byte must be read.
_DIRECT_JMP: Final = 32
_DIRECT_CALL: Final = 33

_COND = "JA JAE JB JBE JE JG JGE JL JLE JNE JNO JNP JNS JO JP JS JCXZ JECXZ JRCXZ LOOP LOOPE LOOPNE"  # Jcc and E0-E3
_FAR = (
    "LJMP LCALL RETF RETFQ IRET IRETD IRETQ SYSCALL SYSRET SYSRETQ SYSENTER SYSEXIT SYSEXITQ "
    "INT INT3 INT1 INTO RSM XABORT UD0 UD2 UD2B"
)


def _kinds() -> npt.NDArray[np.uint8]:
    table = np.zeros(x86.X86_INS_ENDING, np.uint8)
    for name in _COND.split():
        table[getattr(x86, f"X86_INS_{name}")] = BranchKind.COND
    for name in _FAR.split():
        identity = getattr(x86, f"X86_INS_{name}", None)
        if identity is not None:
            table[identity] = BranchKind.OTHER
    table[x86.X86_INS_RET] = BranchKind.RET
    table[x86.X86_INS_JMP] = _DIRECT_JMP
    table[x86.X86_INS_CALL] = _DIRECT_CALL
    return table


KIND_OF: Final = _kinds()

_NONE = int(BranchKind.NONE)
_OTHER = int(BranchKind.OTHER)
_REL_JMP, _IND_JMP = int(BranchKind.REL_JMP), int(BranchKind.IND_JMP)
_REL_CALL, _IND_CALL = int(BranchKind.REL_CALL), int(BranchKind.IND_CALL)


@native
def opcode_at(address: int) -> int:
    """Return the address of the opcode byte: past legacy prefixes and REX (SDM vol. 2, 2.1.1 and 2.2.1)."""
    while True:
        byte = load8(address)
        if not (
            byte == 0x66
            or byte == 0x67
            or byte == 0xF0
            or byte == 0xF2
            or byte == 0xF3
            or byte == 0x2E
            or byte == 0x36
            or byte == 0x3E
            or byte == 0x26
            or byte == 0x64
            or byte == 0x65
            or 0x40 <= byte <= 0x4F  # a REX before a legacy prefix means nothing, and is no opcode either
        ):
            return address
        address += uint64(1)


@native
def kind_of(identity: int, address: int) -> int:
    """Return the BranchKind of the instruction at an address, from capstone's identity and its own bytes."""
    kind = uint64(KIND_OF[identity]) if identity < uint64(KIND_OF.size) else uint64(0)
    if kind != _DIRECT_JMP and kind != _DIRECT_CALL:
        return kind
    opcode = opcode_at(address)
    if load8(opcode) == 0xFF:  # group 5: /2 and /4 are near, /3 and /5 far (SDM vol. 2, table A-6)
        if load8(opcode + uint64(1)) & uint64(0x08) != 0:
            return uint64(_OTHER)
        return uint64(_IND_JMP) if kind == _DIRECT_JMP else uint64(_IND_CALL)
    if kind == _DIRECT_JMP:
        return uint64(_REL_JMP)
    # CALL +0 pushes its own successor, has no return, and is not a branch to the LBRs (architecture.md 7, fact 8).
    zero = load8(opcode + 1) | load8(opcode + 2) | load8(opcode + 3) | load8(opcode + 4)
    return uint64(_NONE) if zero == 0 else uint64(_REL_CALL)


@native
def _calls_next(address: Word, after: Word) -> bool:
    # Whether the direct call at an address leads to `after`, where it ends: in 16-bit code its displacement has two
    # bytes, and what follows is another instruction's.
    displacement = uint64(0)
    for place in range(opcode_at(address) + uint64(1), after):
        displacement |= load8(place)
    return bool(displacement == 0)


@native
def repeats(address: int) -> int:
    """Return 1 when the instruction is a string instruction under REP, which the engine runs one pass a block."""
    opcode = opcode_at(address)
    rep = False
    while address != opcode:
        prefix = load8(address)
        rep = rep or prefix == 0xF2 or prefix == 0xF3
        address += uint64(1)
    byte = load8(opcode)
    # INS OUTS 6C-6F, MOVS CMPS A4-A7, STOS LODS SCAS AA-AF (SDM vol. 2, REP/REPE/REPNE)
    string = 0x6C <= byte <= 0x6F or 0xA4 <= byte <= 0xA7 or 0xAA <= byte <= 0xAF
    return uint64(1) if rep and string else uint64(0)


@native
def direct_target(last: Word, end: Word) -> Word:
    """Return where the direct branch at `last`, whose next instruction is at `end`, leads."""
    opcode = load8(opcode_at(last))
    if opcode == 0xE8 or opcode == 0xE9 or opcode == 0x0F:
        displacement = load64(end - uint64(4)) & uint64(0xFFFFFFFF)
        return end + ((displacement ^ uint64(0x80000000)) - uint64(0x80000000))
    displacement = load8(end - uint64(1))
    return end + ((displacement ^ uint64(0x80)) - uint64(0x80))


@native
def set_cursor(words: Words, code: Word, size: Word, address: Word) -> None:
    """Let decoding go on at `size` bytes of code, which lie at `code` and run at `address`."""
    cursor = words[at.CURSOR]
    store64(cursor, code)
    store64(cursor + uint64(8), size)
    store64(cursor + uint64(16), address)


@native
def next_instruction(words: Words) -> Word:
    """Decode the instruction at the cursor and go past it; return 0 when there is none, and stay (cs_disasm_iter)."""
    cursor = words[at.CURSOR]
    decoded = call5(
        words[at.DISASM], words[at.DISASM_HANDLE], cursor, cursor + uint64(8), cursor + uint64(16), words[at.INSN]
    )
    return decoded & uint64(0xFF)


@native
def identity(words: Words) -> Word:
    """Return capstone's identity of the instruction that was decoded last."""
    return load64(words[at.INSN]) & uint64(0xFFFFFFFF)


@native
def decode_block(words: Words, entry: int, address: int, size: int) -> None:
    """Fill the table entry at `entry` for the block of `size` bytes at `address`."""
    decode_bytes(words, entry, address, address, size, address)


@native
def decode_bytes(words: Words, entry: int, key: int, address: int, size: int, code: int) -> None:
    """Fill the table entry at `entry` for the block of `size` bytes at `address`, found by `key`, read at `code`."""
    end = address + size
    cursor = words[at.CURSOR]
    set_cursor(words, code, size, address)
    last = address
    count = uint64(0)
    while load64(cursor + uint64(8)) != 0:
        start = load64(cursor + uint64(16))
        if next_instruction(words) == 0:
            break
        last = start
        count += uint64(1)
    meta = count << uint64(at.META_COUNT_SHIFT)
    if load64(cursor + uint64(8)) != 0:
        meta |= uint64(at.META_UNDECODED)
    elif count != 0:
        kind = kind_of(identity(words), last - address + code)
        if kind == _REL_CALL and _calls_next(last - address + code, load64(cursor)):
            kind = uint64(_NONE)
        meta |= kind
        if repeats(last - address + code) != 0:
            meta |= uint64(at.META_REP)
        meta |= spread(last) << uint64(at.META_HASH_SHIFT)
    words[entry + at.KEY] = key
    words[entry + at.END] = end
    words[entry + at.LAST] = last
    words[entry + at.META] = meta


@native
def count_to(words: Words, address: int, end: int) -> int:
    """Return how many instructions start in [address, end)."""
    cursor = words[at.CURSOR]
    set_cursor(words, address, uint64(4096), address)
    count = uint64(0)
    while load64(cursor + uint64(16)) < end:
        if next_instruction(words) == 0:
            break
        count += uint64(1)
    return count


class Decoder:
    """Own the capstone handle and the scratch memory that compiled code decodes with."""

    def __init__(self) -> None:
        # By the size of code: 64, 32, 16 bits.
        modes = (capstone.CS_MODE_64, capstone.CS_MODE_32, capstone.CS_MODE_16)
        self._capstones = [capstone.Cs(capstone.CS_ARCH_X86, mode) for mode in modes]
        self._insn = np.zeros(64, np.uint64)  # cs_insn is 240 bytes; detail stays off

    def install(self, words: Words) -> None:
        """Write the decoder's addresses into the shared words."""
        import ctypes

        library = capstone._cs
        words[at.DISASM] = ctypes.cast(library.cs_disasm_iter, ctypes.c_void_p).value or 0
        words[at.DISASM_HANDLE] = self.handles[0]
        words[at.INSN] = self._insn.ctypes.data
        words[at.CURSOR] = words.ctypes.data + 8 * at.CURSOR_CODE

    @property
    def handles(self) -> tuple[int, ...]:
        """The decoder's handles for 64-, 32- and 16-bit code."""
        return tuple(int(decoder.csh.value) for decoder in self._capstones)
