"""Unicorn in ring 0: register accesses of guest code reach us, and faults go through the guest's own IDT.

Unicorn has no hook for RDMSR, WRMSR and RDPMC; it runs a helper of its own, which knows no LBR register and drops what
it does not know. Those helpers are exported symbols of the one pinned wheel: their first bytes are replaced by a jump
to compiled callbacks, which ask a Python function and raise #GP in the engine when it says so. Exceptions are delivered
by the engine's own routine, called from a compiled hook (reference engine.md 3). Both need the addresses of the
engine's CPU structures; they are found by calibration and checked by a self-test before anything runs
(docs/decisions/014).
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakValueDictionary

import capstone
import numpy as np
from numba import types, uint64
from unicorn import unicorn_const as uc
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

from archlbr.cpu.address import call1, call5, load64, store64
from archlbr.cpu.unicorn import fpu, longmode, page, shortcuts, undefined
from archlbr.cpu.unicorn.hooks import plant
from archlbr.cpu.unicorn.location import STATE_BYTES, locate
from archlbr.cpu.unicorn.opening import opened
from archlbr.errors import InternalError
from archlbr.native import callback

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.cpu.words import Words

_GENERAL_PROTECTION: Final = 13
_EFER: Final = 0xC0000080
_RDMSR, _WRMSR, _RDPMC = range(3)
_OWN: Final = 2  # the callback's answer for ENGINES_OWN
_LOW: Final = 0xFFFFFFFF
# CPUX86State begins with regs[16] in instruction order: RAX RCX RDX RBX (target/i386/cpu.h of the engine's QEMU).
_RCX_AT, _RDX_AT = 8, 16

_HELPER: Final = types.void(types.uint64)
_INTERRUPT: Final = types.void(types.uint64, types.uint32, types.uint64)
_JUMP_LENGTH: Final = 12


# An answer that leaves a register to the engine: EFER, the SYSCALL registers, segment bases and their like are its own.
ENGINES_OWN: Final = -1


class Accesses(Protocol):
    """Who answers the guest's register accesses; None or False is #GP."""

    def rdmsr(self, msr: int) -> int | None:
        """Return a register's value, or ENGINES_OWN."""

    def wrmsr(self, msr: int, value: int) -> bool | int:
        """Write a register; say whether it took the value, or ENGINES_OWN."""

    def rdpmc(self, counter: int) -> int | None:
        """Return a performance counter."""

    def execute(self, rip: int) -> int | undefined.Steps:
        """Do the work of an instruction that the engine does not know; return its length, 0 for #UD, -13 for #GP(0).

        Or return the steps that do it, which end so: each asks for memory, and may end in a page fault.
        """


@callback(_HELPER)
def _rdmsr(env: int) -> None:
    index = load64(env + uint64(_RCX_AT)) & uint64(_LOW)
    answer = call5(load64(uint64(page.ASK)), env, uint64(_RDMSR), index, uint64(0), uint64(0))
    if answer == 0:
        call5(load64(uint64(page.RAISE)), env, uint64(_GENERAL_PROTECTION), uint64(0), uint64(0), uint64(0))
    if answer == _OWN:
        call1(load64(uint64(page.OWN_RDMSR)), env)
        return
    value = load64(uint64(page.ANSWER))
    store64(env, value & uint64(_LOW))
    store64(env + uint64(_RDX_AT), value >> uint64(32))


@callback(_HELPER)
def _wrmsr(env: int) -> None:
    index = load64(env + uint64(_RCX_AT)) & uint64(_LOW)
    value = load64(env) & uint64(_LOW) | load64(env + uint64(_RDX_AT)) << uint64(32)
    answer = call5(load64(uint64(page.ASK)), env, uint64(_WRMSR), index, value, uint64(0))
    if answer == 0 or (index == _EFER and longmode.efer_faults(env, value)):
        call5(load64(uint64(page.RAISE)), env, uint64(_GENERAL_PROTECTION), uint64(0), uint64(0), uint64(0))
    if answer == _OWN:
        call1(load64(uint64(page.OWN_WRMSR)), env)


@callback(_HELPER)
def _rdpmc(env: int) -> None:
    index = load64(env + uint64(_RCX_AT)) & uint64(_LOW)
    if call5(load64(uint64(page.ASK)), env, uint64(_RDPMC), index, uint64(0), uint64(0)) == 0:
        call5(load64(uint64(page.RAISE)), env, uint64(_GENERAL_PROTECTION), uint64(0), uint64(0), uint64(0))
    value = load64(uint64(page.ANSWER))
    store64(env, value & uint64(_LOW))
    store64(env + uint64(_RDX_AT), value >> uint64(32))


# No Python frame may lie between the engine and this call: a fault during delivery unwinds the stack.
@callback(_INTERRUPT)
def _deliver(_engine: int, _vector: int, cpu: int) -> None:
    call1(load64(uint64(page.DELIVER)), cpu)


_ASKED: Final = ctypes.CFUNCTYPE(
    ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64
)


class _Replacements:
    # The patched helpers serve every engine of the process: whose access it is shows in the CPU structure's address.
    def __init__(self) -> None:
        # Weak, or no machine's engine and memory would ever be given back; the engine's object holds its own.
        self.accesses: WeakValueDictionary[int, Accesses] = WeakValueDictionary()
        self.failure: BaseException | None = None
        self._steps = undefined.Asked()
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        flags = 0x22 | 0x100000  # MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
        if libc.mmap(page.AT, page.SIZE, 3, flags, -1, 0) != page.AT:
            raise InternalError(f"the page for register accesses at {page.AT:#x} is taken in this process")
        self._asked = _ASKED(self._ask)
        self._answer = ctypes.c_uint64.from_address(page.ANSWER)
        for place, function in (
            (page.RAISE, "raise_exception_err_x86_64"),
            (page.DELIVER, "x86_cpu_do_interrupt_x86_64"),
            (page.PROBE, "probe_access_x86_64"),
            (page.SINGLE_STEP, "helper_single_step_x86_64"),
        ):
            ctypes.c_uint64.from_address(place).value = _symbol(function)
        ctypes.c_uint64.from_address(page.ASK).value = ctypes.cast(self._asked, ctypes.c_void_p).value or 0
        self._before = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._calibrate_registers()
        ctypes.c_uint64.from_address(page.COMPUTE_FLAGS).value = _symbol("helper_cc_compute_all_x86_64")
        ctypes.c_uint64.from_address(page.HARDWARE_INTERRUPT).value = _symbol("do_interrupt_x86_hardirq_x86_64")
        kept = (
            (page.OWN_RDMSR, "rdmsr"),
            (page.OWN_WRMSR, "wrmsr"),
            (page.OWN_WRITE_CR, "write_crN"),
            (page.OWN_INVLPG, "invlpg"),
            (page.OWN_SYSCALL, "syscall"),
        )
        for place, name in kept:
            ctypes.c_uint64.from_address(place).value = self._keep(_symbol(f"helper_{name}_x86_64"))
        replacements = {
            "rdmsr": _rdmsr,
            "wrmsr": _wrmsr,
            "rdpmc": _rdpmc,
            "syscall": longmode.syscall,
            "rdtsc": longmode.rdtsc,
            "rdtscp": longmode.rdtscp,
            "rdrand": longmode.rdrand,
            "write_crN": longmode.write_cr,
            "invlpg": longmode.invlpg,
        }
        for name, replacement in replacements.items():
            address = _symbol(f"helper_{name}_x86_64")
            code = ctypes.c_void_p(address & -4096)
            if libc.mprotect(code, 8192, 7):
                raise InternalError(f"the engine's code cannot be changed: errno {ctypes.get_errno()}")
            jump = _jump_to(replacement.address)
            ctypes.memmove(address, jump, len(jump))
            libc.mprotect(code, 8192, 5)

    # Where the state keeps the registers of SYSCALL, found on a scratch engine before anything is replaced; the places
    # that `longmode` takes for granted are checked on the way.
    def _calibrate_registers(self) -> None:
        scratch = opened()
        _, env = locate(scratch)
        fpu.check(scratch, env)
        self.features = undefined.features_at(env)
        ctypes.c_uint64.from_address(page.FEATURES).value = self.features
        values = {page.STAR: 0x0023_0010_5AB1_0001, page.LSTAR: 0x5AB1_0000_0002, page.FMASK: 0x5AB1_0003}
        for msr, value in zip((0xC0000081, 0xC0000082, 0xC0000084), values.values(), strict=True):
            scratch.msr_write(msr, value)
        values[page.TSC_AUX] = 0x5AB1_0004
        scratch.msr_write(0xC0000103, values[page.TSC_AUX])
        fs, cr3 = 0x5AB1_0000_1000, 0x5AB1_2000
        scratch.reg_write(x86.UC_X86_REG_FS_BASE, fs)
        scratch.reg_write(x86.UC_X86_REG_CR3, cr3)
        image = ctypes.string_at(env, STATE_BYTES // 4)
        for place, value in values.items():
            offset = image.find(struct.pack("<Q", value))
            if offset < 0 or offset % 8:
                raise InternalError(f"the engine keeps no {value:#x} that it was given; install the pinned Unicorn")
            ctypes.c_uint64.from_address(place).value = offset
        for place, value in ((longmode.FS_BASE, fs), (longmode.CR3, cr3)):
            if struct.unpack_from("<Q", image, place)[0] != value:
                raise InternalError(f"the engine's state differs at byte {place}; install the pinned Unicorn")
        # int error_code, int exception_is_int, uint64 exception_next_eip, then DR0 (target/i386/cpu.h).
        scratch.reg_write(x86.UC_X86_REG_DR0, 0x5AB1_0000_3000)
        place = ctypes.string_at(env, STATE_BYTES // 4).find(struct.pack("<Q", 0x5AB1_0000_3000))
        if place < 0 or place % 8:
            raise InternalError("the engine keeps no DR0 that it was given; install the pinned Unicorn")
        ctypes.c_uint64.from_address(page.ERROR_CODE).value = place - 16
        # Beside the state lies memory of others, of which a word may change by 1 as well, but not in this rhythm.
        rhythm = np.array((0, 1, 1, 0, 1, 0, 0, 1), np.uint64)
        images = []
        for enabled in rhythm.tolist():
            scratch.msr_write(0xC0000080, 0x500 | enabled)
            images.append(np.frombuffer(ctypes.string_at(env, STATE_BYTES // 4), np.uint64))
        [changed] = np.nonzero(np.all(np.array(images) - images[0] == rhythm[:, None], axis=0))
        if len(changed) != 1:
            raise InternalError(f"the engine keeps EFER in {len(changed)} places; install the pinned Unicorn")
        ctypes.c_uint64.from_address(page.EFER).value = 8 * int(changed[0])
        self.tell_time_from(np.zeros(1, np.uint64))

    def tell_time_from(self, clock: Words) -> None:
        """Let RDTSC read the first of these words, which are kept: any engine of the process may ask, at any time."""
        self._clock = clock
        ctypes.c_uint64.from_address(page.CLOCK).value = clock.ctypes.data

    # A helper as it was: its first whole instructions, which must not depend on where they lie, and a jump to the rest.
    def _keep(self, address: int) -> int:
        length = 0
        decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        for _, size, mnemonic, operands in decoder.disasm_lite(ctypes.string_at(address, 32), address):
            if "rip" in operands or mnemonic[0] == "j" or mnemonic in ("call", "ret"):
                break
            length += size
            if length >= _JUMP_LENGTH:
                start = ctypes.addressof(ctypes.c_char.from_buffer(self._before)) + self._before.tell()
                self._before.write(ctypes.string_at(address, length) + _jump_to(address + length, scratch=b"\x49\xbb"))
                return start
        raise InternalError(f"the engine's helper at {address:#x} begins in an unknown way; install the pinned Unicorn")

    def _ask(self, env: int, what: int, index: int, value: int, _unused: int) -> int:
        try:
            accesses = self.accesses[env]
            if what in undefined.KINDS:
                return self._steps.ask(env, accesses.execute(index) if what == undefined.BEGIN else None)
            if what == _WRMSR:
                took = accesses.wrmsr(index, value)
                return _OWN if took is ENGINES_OWN else int(took)
            read = accesses.rdmsr(index) if what == _RDMSR else accesses.rdpmc(index)
        except BaseException as error:  # nothing may propagate through the engine: it is raised once the engine stops
            self.failure = self.failure or error
            return 0
        if read is None:
            return 0
        if read is ENGINES_OWN:
            return _OWN
        self._answer.value = read
        return 1


def _jump_to(address: int, scratch: bytes = b"\x48\xb8") -> bytes:
    # movabs rax, imm64; jmp rax. With R11 (49 BB, 41 FF E3) where RAX may hold something.
    return scratch + struct.pack("<Q", address) + (b"\xff\xe0" if scratch == b"\x48\xb8" else b"\x41\xff\xe3")


def _symbol(name: str) -> int:
    try:
        return ctypes.cast(getattr(uclib, name), ctypes.c_void_p).value or 0
    except AttributeError:
        raise InternalError(f"this Unicorn exports no {name}; install the pinned one") from None


_installed: list[_Replacements] = []


def _replaced() -> _Replacements:
    if not _installed:
        _installed.append(_Replacements())
    return _installed[0]


class SupervisorEngine:
    """A Unicorn processor in ring 0 and long mode, without paging until the guest turns it on.

    `accesses` answers RDMSR, WRMSR and RDPMC, and executes what the engine does not know (XSAVES, XRSTORS); `cpuid` is
    a function of (eax, ecx) to four registers. `uc` is the engine itself, for memory, ports and hooks.
    """

    def __init__(self, accesses: Accesses, cpuid: Callable[[int, int], tuple[int, int, int, int]]) -> None:
        self.uc: Any = opened()
        self._cpuid = cpuid
        self._shared = _replaced()
        self.cpu, self.env = locate(self.uc)
        self._shared.accesses[self.env] = self._accesses = accesses
        ctypes.c_uint64.from_address(page.CPU_BEFORE_ENV).value = self.env - self.cpu
        undefined.leave_xsave_out(self.env + self._shared.features, cpuid(1, 0)[2])
        self._delivery = plant(self.uc._uch, uc.UC_HOOK_INTR, _deliver.address, self.cpu)
        self._unknown = plant(self.uc._uch, uc.UC_HOOK_INSN_INVALID, undefined.undefined.address, self.cpu)
        self.uc.hook_add(uc.UC_HOOK_INSN, self._answer_cpuid, None, 1, 0, x86.UC_X86_INS_CPUID)

    def run(self, rip: int, until: int, instructions: int = 0) -> None:
        """Execute from `rip` until HLT, the address `until`, or a number of instructions (0: no limit).

        What `accesses` raised is raised here, once the engine has stopped.
        """
        shortcuts.take(shortcuts.ACCESSES)
        try:
            self.uc.emu_start(rip, until, 0, instructions)
        finally:
            failure, self._shared.failure = self._shared.failure, None
            if failure is not None:
                raise failure

    def deliver_with(self, function: int, undefined: int, pointer: int) -> None:
        """Let compiled callbacks of ours deliver exceptions and #UD, in place of the plain ones."""
        for hook in (self._delivery, self._unknown):
            uclib.uc_hook_del(self.uc._uch, ctypes.c_size_t(hook))
        self._delivery = plant(self.uc._uch, uc.UC_HOOK_INTR, function, pointer)
        self._unknown = plant(self.uc._uch, uc.UC_HOOK_INSN_INVALID, undefined, pointer)

    def _answer_cpuid(self, engine: Any, _data: object) -> int:
        leaf = engine.reg_read(x86.UC_X86_REG_EAX) & _LOW
        subleaf = engine.reg_read(x86.UC_X86_REG_ECX) & _LOW
        for register, value in zip("ABCD", self._cpuid(leaf, subleaf), strict=True):
            engine.reg_write(getattr(x86, f"UC_X86_REG_R{register}X"), value)
        return 1


def set_clock(clock: Words) -> None:
    """Let RDTSC read the first of these words of 64 bits, plus the idle time of `set_idle`."""
    _replaced().tell_time_from(clock)


def set_idle(ticks: int) -> None:
    """Add time to RDTSC that passed without instructions."""
    ctypes.c_uint64.from_address(page.CLOCK_IDLE).value = ticks
