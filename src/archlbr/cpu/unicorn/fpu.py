"""x87 and SSE state as FXSAVE64 lays it out, read from and written to the engine.

`cpu.unicorn.engine` offers it to signal frames, `cpu.unicorn.registers` to snapshots, through the engine's doors;
`machine.extended` has the same state out of the engine's memory, many times faster, for XSAVE and XRSTOR. Layout: SDM
vol. 1, 10.5.1, table 10-2.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any, Final

from unicorn import x86_const as x86

from archlbr.errors import InternalError

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


# The same in the engine's memory -----------------------------------------------------------------------------------

# fpstt, fpus, fpuc, fptags, then at 624 fpregs (target/i386/cpu.h of the engine's QEMU); `check` holds them against the
# doors. No instruction of the engine writes FOP, FIP and FDP.
_FPSTT: Final = 604
_X87: Final = struct.Struct("<IHH8B4x128s")
_MXCSR: Final = 816
_XMM: Final = 824
_XMM_STRIDE: Final = 64  # as wide as AVX-512 would have it, which the engine does not execute
_VECTORS: Final = struct.Struct("<" + "16s48x" * 16)
_TOP: Final = 0x3800


def image(env: int) -> bytes:
    """Return x87 and SSE state as XSAVE64 writes it, 512 bytes; FOP, FIP and FDP, which the engine has not, are 0."""
    top, status, control, *tags, stack = _X87.unpack(ctypes.string_at(env + _FPSTT, _X87.size))
    abridged = sum(1 << index for index, empty in enumerate(tags) if not empty)
    mxcsr = ctypes.c_uint32.from_address(env + _MXCSR).value
    written = bytearray(SIZE)
    _HEAD.pack_into(written, 0, control, status & ~_TOP | top << 11, abridged, 0, 0, 0, mxcsr, _MXCSR_MASK)
    for index in range(8):
        place = 16 * ((top + index) % 8)
        written[_ST_AT + 16 * index : _ST_AT + 16 * index + 10] = stack[place : place + 10]
    vectors = ctypes.string_at(env + _XMM, _VECTORS.size)
    written[_XMM_AT : _XMM_AT + 256] = b"".join(_VECTORS.unpack(vectors))
    return bytes(written)


def load(engine: Any, env: int, content: bytes) -> None:
    """Load x87 and SSE state from 512 bytes without FOP, FIP and FDP; what rounds goes through the engine's doors."""
    control, status, abridged, _, _, _, mxcsr, _ = _HEAD.unpack_from(content)
    top = status >> 11 & 7
    stack = bytearray(128)
    for index in range(8):
        place = 16 * ((top + index) % 8)
        stack[place : place + 10] = content[_ST_AT + 16 * index : _ST_AT + 16 * index + 10]
    tags = (1 - (abridged >> index & 1) for index in range(8))
    before = ctypes.c_uint16.from_address(env + _FPSTT + 6).value
    packed = _X87.pack(top, status & ~_TOP, before, *tags, bytes(stack))
    ctypes.memmove(env + _FPSTT, packed, len(packed))
    if control != before:
        engine.reg_write(x86.UC_X86_REG_FPCW, control)
    vectors = _VECTORS.pack(*(content[at : at + 16] for at in range(_XMM_AT, _XMM_AT + 256, 16)))
    ctypes.memmove(env + _XMM, vectors, len(vectors))
    if ctypes.c_uint32.from_address(env + _MXCSR).value != mxcsr:
        engine.reg_write(x86.UC_X86_REG_MXCSR, mxcsr)


def check(engine: Any, env: int) -> None:
    """Hold the state in the memory of an engine that runs nothing against its doors; InternalError when they differ."""
    given = bytearray(index * 7 & 0xFF for index in range(SIZE))
    _HEAD.pack_into(given, 0, 0x027F, 0x2841, 0x5A, 0, 0, 0, 0x1FA5, _MXCSR_MASK)
    for index in range(8):
        given[_ST_AT + 16 * index + 10 : _ST_AT + 16 * index + 16] = bytes(6)
    given[_XMM_AT + 256 :] = bytes(SIZE - _XMM_AT - 256)
    before, wanted = read(engine), bytes(given)
    write(engine, wanted)
    seen = image(env)
    write(engine, before)
    load(engine, env, wanted)
    if not seen == read(engine) == wanted:
        raise InternalError("the engine keeps its x87 and SSE state elsewhere; install the pinned Unicorn")
    write(engine, before)
