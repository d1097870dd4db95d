"""Every register of the supervisor engine's processor, read out and put into a fresh engine.

`machine.snapshot` saves and restores with it. General registers, flags, control registers and MSRs go through the
engine's own doors, which keep what the engine derives from them; descriptor caches have no door and are read in the
state (its shape: `longmode`), like hflags, which hold the CPL, the mode and the shadow of STI. Sources: SDM vol. 3A,
2.4, 2.5 and 3.4.3; target/i386 of the engine's QEMU.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final, NamedTuple

from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

from archlbr.cpu.unicorn import fpu, longmode
from archlbr.cpu.unicorn.engine import GENERAL
from archlbr.errors import InputError

EFER: Final = 0xC0000080
# What the engine's own WRMSR keeps, as far as a guest of ours can reach it: SYSENTER, PAT, the SYSCALL registers,
# KernelGSBase, TSC_AUX, MTRRs, machine check banks; FS and GS bases are in the descriptor caches.
MSRS: Final = (
    0x174, 0x175, 0x176, 0x277, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000102, 0xC0000103,
    0x2FF, *range(0x200, 0x210), 0x250, 0x258, 0x259, *range(0x268, 0x270), 0x17A, 0x17B, *range(0x400, 0x428),
)  # fmt: skip
CONTROL: Final = ("CR0", "CR2", "CR3", "CR4")
_DEBUG: Final = tuple(getattr(x86, f"UC_X86_REG_DR{index}") for index in (0, 1, 2, 3, 6, 7))
_DEBUG_NUMBERS: Final = (0, 1, 2, 3, 6, 7)
# ES CS SS DS FS GS LDTR TR GDTR IDTR, in the order of the state.
SEGMENTS: Final = 10
_LATER_FLAGS: Final = 180  # hflags2
# Of hflags2: NMIs are blocked.
_NMI: Final = 1 << 2
_SEGMENT_REGISTERS: Final = 6  # ES to GS
# The upper half of flat descriptors, less their base: 64-bit code, 32-bit code, 32-bit data, all accessed.
_CODE_64, _CODE_32, _DATA_32 = 0xAF9B00, 0xCF9B00, 0xCF9300
# Of hflags: what is kept of CS.L and CS.D, of SS.B, and that a base of DS, ES or SS is not 0.
_CODE_IS_64, _CODE_IS_32, _STACK_IS_32, _ADD_BASES = 1 << 15, 1 << 4, 1 << 5, 1 << 6


class Descriptor(NamedTuple):
    """A segment register with its cache, or a table register: flags as the engine keeps them."""

    selector: int
    base: int
    limit: int
    flags: int


class Registers(NamedTuple):
    """The processor between two blocks.

    general: in the order of `engine.GENERAL`. control: CR0, CR2, CR3, CR4. debug: DR0 to DR3, DR6, DR7. msrs: in the
    order of `MSRS`. derived: hflags. nmi: 1 while NMIs wait for IRET. fpu: x87 and SSE as FXSAVE64 lays them out.
    """

    general: tuple[int, ...]
    descriptors: tuple[Descriptor, ...]
    control: tuple[int, ...]
    debug: tuple[int, ...]
    efer: int
    msrs: tuple[int, ...]
    derived: int
    nmi: int
    fpu: bytes


def _word(address: int) -> ctypes.c_uint64:
    return ctypes.c_uint64.from_address(address)


def _half(address: int) -> ctypes.c_uint32:
    return ctypes.c_uint32.from_address(address)


def read(engine: Any, env: int) -> Registers:
    """Return the registers of a stopped engine whose state lies at `env`."""
    get = engine.reg_read
    place = env + longmode.SEGMENTS
    descriptors = tuple(
        Descriptor(_half(at).value, _word(at + 8).value, _half(at + 16).value, _half(at + 20).value)
        for at in range(place, place + longmode.SEGMENT * SEGMENTS, longmode.SEGMENT)
    )
    return Registers(
        tuple(get(getattr(x86, f"UC_X86_REG_{name}")) for name in GENERAL),
        descriptors,
        tuple(get(getattr(x86, f"UC_X86_REG_{name}")) for name in CONTROL),
        tuple(get(name) for name in _DEBUG),
        engine.msr_read(EFER),
        tuple(engine.msr_read(index) for index in MSRS),
        _half(env + longmode.HFLAGS).value,
        int(bool(_half(env + _LATER_FLAGS).value & _NMI)),
        fpu.read(engine),
    )


def load_flat(env: int, code: int, data: int, bits: int) -> None:
    """Load all six segment registers with flat segments of ring 0: selectors `code` and `data`, 32 or 64-bit code.

    The engine's own writes of CS, SS, DS and ES put nothing but the selector there: a 32-bit PUSH would go by a 16-bit
    stack pointer (SDM vol. 1, 6.2.3: the B flag of SS). Sources: SDM vol. 3A, 3.4.3; the flags' place is QEMU's.
    """
    for index in range(_SEGMENT_REGISTERS):
        at = env + longmode.SEGMENTS + longmode.SEGMENT * index
        is_code = longmode.SEGMENTS + longmode.SEGMENT * index == longmode.CS
        _half(at).value, _word(at + 8).value, _half(at + 16).value = code if is_code else data, 0, 0xFFFFFFFF
        _half(at + 20).value = (_CODE_64 if bits == 64 else _CODE_32) if is_code else _DATA_32
    derived = _half(env + longmode.HFLAGS)
    derived.value = derived.value & ~(_CODE_IS_64 | _ADD_BASES) | _CODE_IS_32 | _STACK_IS_32
    if bits == 64:
        derived.value |= _CODE_IS_64


def write(engine: Any, env: int, registers: Registers) -> None:
    """Put registers into an engine that has not run; InputError when they contradict each other."""
    put = engine.reg_write
    cr0, cr2, cr3, cr4 = registers.control
    put(x86.UC_X86_REG_CR4, cr4)
    put(x86.UC_X86_REG_CR3, cr3)
    put(x86.UC_X86_REG_CR2, cr2)
    engine.msr_write(EFER, registers.efer)
    put(x86.UC_X86_REG_CR0, cr0)
    for index, value in zip(MSRS, registers.msrs, strict=True):
        engine.msr_write(index, value)
    set_dr = uclib.helper_set_dr_x86_64
    for number, value in zip(_DEBUG_NUMBERS, registers.debug, strict=True):
        set_dr(ctypes.c_void_p(env), ctypes.c_int(number), ctypes.c_uint64(value))
    place = env + longmode.SEGMENTS
    for index, (selector, base, limit, flags) in enumerate(registers.descriptors):
        at = place + longmode.SEGMENT * index
        _half(at).value, _word(at + 8).value = selector, base
        _half(at + 16).value, _half(at + 20).value = limit, flags
    fpu.write(engine, registers.fpu)
    for name, value in zip(GENERAL, registers.general, strict=True):
        put(getattr(x86, f"UC_X86_REG_{name}"), value)
    _half(env + longmode.HFLAGS).value = registers.derived
    later = _half(env + _LATER_FLAGS)
    later.value = later.value & ~_NMI | _NMI * registers.nmi
    after = read(engine, env)
    if after != registers:
        wrong = [name for name, ours, theirs in zip(Registers._fields, after, registers, strict=True) if ours != theirs]
        raise InputError(f"the processor cannot hold this snapshot's registers ({', '.join(wrong)}); take a new one")
