"""Instructions that the engine does not know, executed for it: their memory is reached as the engine would reach it.

`supervisor` plants the hook, `machine.observing` one of its own around `ask_undefined`. The work is Python's
(`Accesses.execute`), in steps; before a step that reads or writes memory the engine is asked for the bytes, from
compiled code: a page fault unwinds the stack, and no Python frame may lie on it. The engine's own XSAVE, which knows no
supervisor state and tracks no initial state, is taken out of its features. Design: docs/decisions/017.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Generator
from typing import Final, NamedTuple, TypeAlias

from numba import types, uint64
from unicorn.unicorn_py3.unicorn import uclib

from archlbr.cpu.address import Word, call1, call5, call6, load64, store64
from archlbr.cpu.unicorn import longmode, page
from archlbr.cpu.unicorn.location import STATE_BYTES
from archlbr.errors import InternalError
from archlbr.native import callback, native

BEGIN, GO_ON = 3, 4  # what the callback is asked, beside the register accesses of `supervisor`
KINDS: Final = (BEGIN, GO_ON)
READ, WRITE, FETCH = range(3)  # MMUAccessType of the engine's QEMU

_PAGE: Final = 4096
_ALL: Final = (1 << 64) - 1
_REACH: Final = 1 << 32  # the callback's answer: memory is asked for
# Privileged, with SMAP in force; user; privileged (cpu_mmu_index, target/i386/cpu.h).
_SMAP_INDEX, _USER_INDEX, _INDEX = range(3)
_HF_SMAP: Final = 1 << 23
_AC: Final = 1 << 18
_UNDEFINED: Final = types.uint8(types.uint64, types.uint64)
_XSAVE: Final = 1 << 26  # CPUID.1:ECX
_OSXSAVE: Final = 1 << 27


class Reach(NamedTuple):
    """A step that wants bytes at a linear address, at most 4096: READ, WRITE or FETCH."""

    address: int
    size: int
    access: int


class Memory(NamedTuple):
    """What lies there: (address in this process, bytes), one or two; an address of 0 is an empty bus."""

    pieces: tuple[tuple[int, int], ...]

    def read(self) -> bytes:
        """Return the bytes; an empty bus reads all ones."""
        return b"".join([ctypes.string_at(at, size) if at else b"\xff" * size for at, size in self.pieces])

    def write(self, offset: int, content: bytes) -> None:
        """Write some of the bytes; an empty bus takes nothing."""
        for at, size in self.pieces:
            if offset < size and content:
                here = content[: size - offset]
                if at:
                    ctypes.memmove(at + offset, here, len(here))
                content, offset = content[len(here) :], 0
            else:
                offset -= size


# They end with the instruction's length, 0 for #UD, or a vector as a negative number: its error code is 0.
Steps: TypeAlias = Generator[Reach, Memory, int]


class Asked:
    """The steps that run, by engine: what a callback is answered."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[Steps, int, int]] = {}

    def ask(self, env: int, begun: int | Steps | None) -> int:
        """Return what compiled code does next: `begun`, or with None the steps that wait for memory."""
        if isinstance(begun, int):
            return begun & _ALL
        try:
            if begun is not None:
                reach = next(begun)
            else:
                begun, address, size = self._running.pop(env)
                first = min(size, _PAGE - address % _PAGE)
                places = [(ctypes.c_uint64.from_address(page.REACHED).value, first)]
                if first < size:
                    places.append((ctypes.c_uint64.from_address(page.REACHED_NEXT).value, size - first))
                reach = begun.send(Memory(tuple(places)))
        except StopIteration as end:
            return int(end.value) & _ALL
        self._running[env] = (begun, reach.address, reach.size)
        for place, value in zip((page.REACH_ADDRESS, page.REACH_SIZE, page.REACH_ACCESS), reach, strict=True):
            _put(place, value)
        return _REACH


def _put(place: int, value: int) -> None:
    ctypes.c_uint64.from_address(place).value = value


@native
def _index(env: Word) -> Word:
    flags = load64(env + uint64(longmode.HFLAGS))
    if flags & uint64(3) == uint64(3):
        return uint64(_USER_INDEX)
    if flags & uint64(_HF_SMAP) != 0 and load64(env + uint64(longmode.RFLAGS)) & uint64(_AC) == 0:
        return uint64(_SMAP_INDEX)
    return uint64(_INDEX)


# A page that cannot be reached so is a page fault, and this does not return.
@native
def _reach(env: Word) -> None:
    address, size = load64(uint64(page.REACH_ADDRESS)), load64(uint64(page.REACH_SIZE))
    access, index, probe = load64(uint64(page.REACH_ACCESS)), _index(env), load64(uint64(page.PROBE))
    first = min(size, uint64(_PAGE) - address % uint64(_PAGE))
    store64(uint64(page.REACHED), call6(probe, env, address, first, access, index, uint64(0)))
    if first < size:
        store64(uint64(page.REACHED_NEXT), call6(probe, env, address + first, size - first, access, index, uint64(0)))


@native
def ask_undefined(env: Word) -> Word:
    """Ask for the work of the instruction at RIP, which the engine does not know; return its length, or 0 for #UD.

    Another fault is raised at the instruction, and this does not return.
    """
    rip = load64(env + uint64(longmode.RIP))
    answer = call5(load64(uint64(page.ASK)), env, uint64(BEGIN), rip, uint64(0), uint64(0))
    while answer == _REACH:
        _reach(env)
        answer = call5(load64(uint64(page.ASK)), env, uint64(GO_ON), rip, uint64(0), uint64(0))
    if answer >> uint64(63) != 0:
        call5(load64(uint64(page.RAISE)), env, ~answer + uint64(1), uint64(0), uint64(0), uint64(0))
    if answer != 0:
        longmode.retire(env, answer)
    return answer


@native
def trap(env: Word) -> None:
    """Raise #DB behind an instruction that was executed so, if TF asks for it; this does not return then."""
    if longmode.steps(env):
        call1(load64(uint64(page.SINGLE_STEP)), env)


# The engine takes an undefined instruction out of the exceptions' way: #UD is delivered from here.
@callback(_UNDEFINED)
def undefined(_engine: int, cpu: int) -> int:
    """Have an instruction that the engine does not know executed, or deliver #UD."""
    env = cpu + load64(uint64(page.CPU_BEFORE_ENV))
    if ask_undefined(env) == 0:
        call1(load64(uint64(page.DELIVER)), cpu)
    else:
        trap(env)
    return 1


def features_at(env: int) -> int:
    """Return where the state keeps CPUID.1:ECX; InternalError when it is not found once.

    The engine's own CPUID tells what it looks for: EDX and ECX of leaf 1, EBX of leaf 7, 64 bits each.
    """
    registers = (ctypes.c_uint64 * 4).from_address(env)
    before = list(registers)
    found = {}
    for leaf in (1, 7):
        registers[0], registers[1] = leaf, 0
        uclib.helper_cpuid_x86_64(ctypes.c_void_p(env))
        found[leaf] = [registers[place] for place in (0, 3, 1, 2)]  # the state's order is RAX RCX RDX RBX
    for place, value in enumerate(before):
        registers[place] = value
    pattern = struct.pack("<3Q", found[1][3], found[1][2] & ~_OSXSAVE, found[7][1])
    image = ctypes.string_at(env, STATE_BYTES)
    if image.count(pattern) != 1 or not found[1][2] & _XSAVE:
        raise InternalError("the engine's features were not found in its memory; install the pinned Unicorn")
    return image.index(pattern) + 8


def leave_xsave_out(at: int, offered: int) -> None:
    """Make XSAVE and its kin undefined for an engine whose CPUID.1:ECX stands at an address.

    offered: that of the guest; its XSAVE is noted in the place of OSXSAVE, for `longmode.cr_faults`.
    """
    word = ctypes.c_uint64.from_address(at)
    word.value = word.value & ~(_XSAVE | _OSXSAVE) | (_OSXSAVE if offered & _XSAVE else 0)
