"""The processor's state at an image's first instruction: long mode, or 32-bit protected mode.

`machine.board` calls `enter` once, before anything runs. Sources: Documentation/arch/x86/boot.rst, "64-bit boot
protocol"; Multiboot Specification 0.6.96, 3.2.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from unicorn import x86_const as x86

from archlbr.cpu.unicorn import registers
from archlbr.machine import boot

if TYPE_CHECKING:
    from archlbr.machine.images import Start

# CR4.PAE; IA32_EFER with LME and LMA; CR0 with PG, ET and PE.
_PAE, _EFER, _LONG_MODE, _PAGING, _PROTECTED = 1 << 5, 0xC0000080, 0x500, 0x80000011, 0x11
# Flat 32-bit code and data, at 10H and 18H like the 64-bit ones.
_FLAT: Final = struct.pack("<4Q", 0, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)


def enter(processor: Any, env: int, memory: memoryview, start: Start) -> None:
    """Put a processor that has run nothing, and whose state lies at `env`, into the state of `start`."""
    put = processor.reg_write
    put(x86.UC_X86_REG_GDTR, (0, boot.GDT, boot.GDT_LIMIT, 0))
    _turn_paging_on(processor, memory)
    if start.bits == 32:
        # Long mode is left as software leaves it: paging off, then EFER.LME.
        put(x86.UC_X86_REG_CR0, _PROTECTED)
        processor.msr_write(_EFER, 0)
        put(x86.UC_X86_REG_CR4, 0)
        put(x86.UC_X86_REG_CR3, 0)
        memory[boot.GDT : boot.GDT + len(_FLAT)] = _FLAT
    registers.load_flat(env, boot.CODE_SELECTOR, boot.DATA_SELECTOR, start.bits)
    put(x86.UC_X86_REG_RSP, boot.STACK)
    put(x86.UC_X86_REG_RAX, start.rax)
    put(x86.UC_X86_REG_RBX, start.rbx)
    put(x86.UC_X86_REG_RSI, start.rsi)
    put(x86.UC_X86_REG_RIP, start.rip)


def _turn_paging_on(processor: Any, memory: memoryview) -> None:
    boot.identity_map(memory)
    processor.reg_write(x86.UC_X86_REG_CR4, _PAE)
    processor.reg_write(x86.UC_X86_REG_CR3, boot.PAGE_TABLES)
    processor.msr_write(_EFER, _LONG_MODE)
    processor.reg_write(x86.UC_X86_REG_CR0, _PAGING)
