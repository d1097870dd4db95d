"""Where the engine hands control back: system calls, exceptions, faults, refused instructions, stores into code.

Compiled callbacks with Unicorn's hook signatures (uc.h, uc_cb_*). Each leaves its reason in the shared words and stops
the engine; `cpu.unicorn.engine` reads the words. They run without the interpreter, so that no Python frame is on the
stack when the engine unwinds (engine.md 3).
"""

from __future__ import annotations

from typing import Any

from numba import carray, types, uint64
from unicorn import unicorn_const as uc

from archlbr.cpu import words as at
from archlbr.cpu.address import call1, call5
from archlbr.native import callback

_WRITE_UNMAPPED, _WRITE_PROT = uc.UC_MEM_WRITE_UNMAPPED, uc.UC_MEM_WRITE_PROT
WORDS_POINTER = types.CPointer(types.uint64)
_syscall_hook = types.void(types.uint64, WORDS_POINTER)
_interrupt_hook = types.void(types.uint64, types.uint32, WORDS_POINTER)
_memory_hook = types.uint8(types.uint64, types.int32, types.uint64, types.int32, types.int64, WORDS_POINTER)
_store_hook = types.void(types.uint64, types.int32, types.uint64, types.int32, types.int64, WORDS_POINTER)
_invalid_hook = types.uint8(types.uint64, WORDS_POINTER)


@callback(_syscall_hook)
def on_syscall(engine: int, pointer: Any) -> None:
    """Stop at SYSCALL; the engine's RIP will be the next instruction."""
    words = carray(pointer, (at.TABLE,))
    words[at.REASON] = uint64(at.REASON_SYSCALL)
    call1(words[at.EMU_STOP], engine)


@callback(_interrupt_hook)
def on_interrupt(engine: int, vector: int, pointer: Any) -> None:
    """Stop at an exception or software interrupt and keep its vector."""
    words = carray(pointer, (at.TABLE,))
    if words[at.REASON] == at.REASON_FAULT:
        return  # the engine goes on to a vector of its own after an access that it could not make
    words[at.REASON] = uint64(at.REASON_EXCEPTION)
    words[at.VECTOR] = uint64(vector)
    call1(words[at.EMU_STOP], engine)


@callback(_memory_hook)
def on_fault(engine: int, access: int, address: int, _size: int, _value: int, pointer: Any) -> int:
    """Keep an access that no mapping allows; returning 0 makes the engine stop with an error at the instruction."""
    words = carray(pointer, (at.TABLE,))
    words[at.REASON] = uint64(at.REASON_FAULT)
    words[at.FAULT_ADDRESS] = address
    words[at.FAULT_ACCESS] = uint64(access)
    if words[at.LEAVE] != 0 and (access == _WRITE_UNMAPPED or access == _WRITE_PROT):
        # A store that failed returns into generated code, which would go on; a load or a fetch does not.
        call1(words[at.EMU_STOP], engine)
        call5(words[at.LEAVE], engine, uint64(0), uint64(0), uint64(0), uint64(0))
    return 0


@callback(_store_hook)
def on_store(_engine: int, _access: int, address: int, size: int, _value: int, pointer: Any) -> None:
    """Note a store into the block that is running; planted over writable code only."""
    words = carray(pointer, (at.WORDS,))
    current = words[at.CURRENT]
    if current != 0 and address < words[current + at.END] and address + uint64(size) > words[current + at.KEY]:
        words[at.UNUSUAL] |= uint64(at.UNUSUAL_STORED)


@callback(_invalid_hook)
def on_invalid(_engine: int, pointer: Any) -> int:
    """Keep that the engine refused an instruction; returning 0 stops it there."""
    words = carray(pointer, (at.TABLE,))
    words[at.REASON] = uint64(at.REASON_INVALID)
    return 0
