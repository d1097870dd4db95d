"""What kinds of instructions code is made of: which engine suits a program is read off this before it runs.

`cli.engines` asks for the text of a program. Code is decoded from its first byte to its last, so that data between
functions is counted as what it looks like; the shares are for a choice, not for a record. Design: docs/decisions/045.
"""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from capstone import x86_const as x86
from numba import carray, types, uint64

from archlbr.cpu import words as at
from archlbr.cpu.address import Word, load64, store64
from archlbr.cpu.decode import Decoder, identity, next_instruction, set_cursor
from archlbr.native import callback

if TYPE_CHECKING:
    from archlbr.cpu.words import Words

_FLOATING: Final = re.compile(
    r"V?(ADD|SUB|MUL|DIV|SQRT|MIN|MAX|U?COMI|CVT\w*2|CVTT\w*2|ROUND|FN?M(ADD|SUB)\w*|DP)[SP][SDH]|F(I?(ADD|SUB|MUL|DIV)R?P?|SQRT|I?LD|I?STP?)"
)
_WIDE: Final = re.compile(
    r"V(?!ER[RW]$|M(CALL|CLEAR|FUNC|LAUNCH|LOAD|MCALL|PTRLD|PTRST|READ|RESUME|RUN|SAVE|WRITE|XOFF|XON)$)"
)
_BARRED: Final = re.compile(r"(XBEGIN|RDGSBASE|WRGSBASE|WRFSBASE)$")
_CALLS: Final = re.compile(r"(SYSCALL|SYSENTER|INT)$")


def _classes() -> npt.NDArray[np.uint8]:
    table = np.zeros(x86.X86_INS_ENDING, np.uint8)
    for constant, instruction in vars(x86).items():
        if not constant.startswith("X86_INS_") or constant == "X86_INS_ENDING":
            continue
        name = constant.removeprefix("X86_INS_")
        for bit, pattern in enumerate((_FLOATING, _WIDE, _BARRED, _CALLS)):
            if pattern.match(name):
                table[instruction] |= 1 << bit
    return table


_CLASS_OF: Final = _classes()


class Contents(NamedTuple):
    """How many instructions there are, and of them: floating point, AVX, what Stalker bars, and calls of the kernel.

    barred: transactions, and what reads or writes the base of GS, or writes that of FS (docs/decisions/044).
    """

    instructions: int = 0
    floating: int = 0
    wide: int = 0
    barred: int = 0
    calls: int = 0


@callback(types.void(types.CPointer(types.uint64), types.uint64, types.uint64, types.CPointer(types.uint64)))
def _count(pointer: Any, code: Word, size: Word, counts: Any) -> None:
    words, found = carray(pointer, (at.WORDS,)), carray(counts, (5,))
    cursor = words[at.CURSOR]
    set_cursor(words, code, size, code)
    while load64(cursor + uint64(8)) != 0:
        if next_instruction(words) == 0:  # data: try the next byte
            store64(cursor, load64(cursor) + uint64(1))
            store64(cursor + uint64(8), load64(cursor + uint64(8)) - uint64(1))
            continue
        number = identity(words)
        kind = uint64(_CLASS_OF[number]) if number < uint64(_CLASS_OF.size) else uint64(0)
        found[0] += uint64(1)
        for bit in range(4):
            found[bit + 1] += kind >> uint64(bit) & uint64(1)


_FUNCTION: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p)


def contents(code: bytes) -> Contents:
    """Return what a piece of code is made of."""
    words: Words = np.zeros(at.WORDS, np.uint64)
    decoder = Decoder()
    decoder.install(words)
    bytes_, counts = np.frombuffer(code, np.uint8), np.zeros(5, np.uint64)
    if bytes_.size:
        _FUNCTION(_count.address)(words.ctypes.data, bytes_.ctypes.data, bytes_.size, counts.ctypes.data)
    return Contents(*(int(count) for count in counts))
