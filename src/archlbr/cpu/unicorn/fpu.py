"""x87 and SSE state as FXSAVE64 lays it out, read from and written to the engine.

`cpu.unicorn.engine` offers it to signal frames. Layout: SDM vol. 1, 10.5.1, table 10-2.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from unicorn import x86_const as x86

SIZE: Final = 512
_HEAD: Final = struct.Struct("<HHBxHQQII")
_MXCSR_MASK: Final = 0x0000FFFF
_ST_AT: Final = 32
_XMM_AT: Final = 160


def _abridged(tags: int) -> int:
    # FXSAVE keeps one bit a register: 0 empty, 1 otherwise (10.5.1.1).
    return sum(1 << index for index in range(8) if tags >> 2 * index & 3 != 3)


def _full(abridged: int) -> int:
    # Valid and special tags are told apart by content, which no instruction looks up here: valid does.
    return sum(3 << 2 * index for index in range(8) if not abridged >> index & 1)


def read(engine: Any) -> bytes:
    """Return the engine's x87 and SSE state: 512 bytes."""
    get = engine.reg_read
    status = get(x86.UC_X86_REG_FPSW)
    head = _HEAD.pack(
        get(x86.UC_X86_REG_FPCW),
        status,
        _abridged(get(x86.UC_X86_REG_FPTAG)),
        get(x86.UC_X86_REG_FOP) & 0x7FF,
        get(x86.UC_X86_REG_FIP),
        get(x86.UC_X86_REG_FDP),
        get(x86.UC_X86_REG_MXCSR),
        _MXCSR_MASK,
    )
    image = bytearray(SIZE)
    image[: len(head)] = head
    top = status >> 11 & 7
    for index in range(8):  # the image holds ST(i), the engine names the physical registers
        mantissa, exponent = get(x86.UC_X86_REG_FP0 + (top + index) % 8)
        struct.pack_into("<QH", image, _ST_AT + 16 * index, mantissa, exponent)
    for index in range(16):
        image[_XMM_AT + 16 * index : _XMM_AT + 16 * index + 16] = get(x86.UC_X86_REG_XMM0 + index).to_bytes(
            16, "little"
        )
    return bytes(image)


def write(engine: Any, image: bytes) -> None:
    """Load the engine's x87 and SSE state from 512 bytes."""
    control, status, tags, opcode, instruction, data, mxcsr, _ = _HEAD.unpack_from(image)
    put = engine.reg_write
    put(x86.UC_X86_REG_FOP, opcode)
    put(x86.UC_X86_REG_FIP, instruction)
    put(x86.UC_X86_REG_FDP, data)
    put(x86.UC_X86_REG_FPCW, control)
    put(x86.UC_X86_REG_FPSW, status)
    put(x86.UC_X86_REG_FPTAG, _full(tags))
    put(x86.UC_X86_REG_MXCSR, mxcsr & _MXCSR_MASK)
    top = status >> 11 & 7
    for index in range(8):
        put(x86.UC_X86_REG_FP0 + (top + index) % 8, struct.unpack_from("<QH", image, _ST_AT + 16 * index))
    for index in range(16):
        put(
            x86.UC_X86_REG_XMM0 + index,
            int.from_bytes(image[_XMM_AT + 16 * index : _XMM_AT + 16 * index + 16], "little"),
        )
