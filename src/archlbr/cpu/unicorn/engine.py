"""Unicorn as an engine for user programs: long mode, ring 3, no paging, guest memory at its own addresses.

`machine.userland` drives it. Decisions run in the compiled hooks of `blocks` and `intercepts`; this module plants them
and turns their words into a `Stop`. What Unicorn needs is in engine.md 2, 3 and 6b. The engine enters ring 3 by a real
IRETQ, so that privileged instructions fault as they should.
"""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import unicorn
from unicorn import unicorn_const as uc
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

from archlbr.cpu import words as at
from archlbr.cpu.decode import Decoder
from archlbr.cpu.engine import Protection, Stop, StopReason
from archlbr.cpu.unicorn import fpu, intercepts, shortcuts
from archlbr.cpu.unicorn.blocks import find_block, forget_blocks, retire_current
from archlbr.cpu.unicorn.hooks import plant
from archlbr.cpu.unicorn.opening import opened
from archlbr.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE: Final = 4096

GENERAL: Final = [
    "RAX",
    "RBX",
    "RCX",
    "RDX",
    "RSI",
    "RDI",
    "RBP",
    "RSP",
    "R8",
    "R9",
    "R10",
    "R11",
    "R12",
    "R13",
    "R14",
    "R15",
    "RIP",
    "EFLAGS",
]
_IDENTITY: Final = {name: getattr(x86, f"UC_X86_REG_{name}") for name in (*GENERAL, "FS_BASE", "GS_BASE")}

# Where the descriptor table lives, inside the engine only: no canonical address, so no program can have anything there.
_STUB: Final = 0x0008_0000_0000_0000
_USER_CS: Final = 0x33
_USER_SS: Final = 0x2B
_DESCRIPTORS: Final = struct.pack(
    "<8Q", 0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF, 0
)

_FLUSH_TLB: Final = uc.UC_CTL_IO_WRITE << 30 | uc.UC_CTL_TLB_FLUSH  # UC_CTL_WRITE of no arguments
_FETCH: Final = (uc.UC_MEM_FETCH_UNMAPPED, uc.UC_MEM_FETCH_PROT)
_WRITE: Final = (uc.UC_MEM_WRITE_UNMAPPED, uc.UC_MEM_WRITE_PROT)
_PRESENT: Final = (uc.UC_MEM_FETCH_PROT, uc.UC_MEM_WRITE_PROT, uc.UC_MEM_READ_PROT)


class Context(NamedTuple):
    """A guest thread's register state: Unicorn's own saved context."""

    registers: Any


class _Batch:
    # One prepared uc_reg_read_batch or write: the binding's own costs ten times as much a call.
    def __init__(self, library: Any, names: tuple[str, ...]) -> None:
        count = len(names)
        self.values = (ctypes.c_uint64 * count)()
        self._ids = (ctypes.c_int * count)(*[_IDENTITY[name] for name in names])
        address = ctypes.addressof(self.values)
        self._pointers = (ctypes.c_void_p * count)(*[address + 8 * index for index in range(count)])
        self._count = count
        self._read = library.uc_reg_read_batch
        self._write = library.uc_reg_write_batch

    def read(self, handle: Any) -> tuple[int, ...]:
        self._read(handle, self._ids, self._pointers, self._count)
        return tuple(self.values)

    def write(self, handle: Any, *content: int) -> None:
        self.values[:] = list(content)
        self._write(handle, self._ids, self._pointers, self._count)


class UnicornEngine:
    """A Unicorn processor in ring 3 over this process's memory.

    `words` is the shared array of `cpu.words`, zeroed; `on_block` is the address of a compiled block hook and `pointer`
    what it gets as its last argument; the intercepts get the words' own address. CPUID answers come from `cpuid`, a
    function of (eax, ecx) to four registers. `settle` is called after each run, before anything reads the words.
    """

    def __init__(
        self, words: npt.NDArray[np.uint64], on_block: int, pointer: int, cpuid: Any, settle: Callable[[], None]
    ) -> None:
        self.words = words
        self._cpuid = cpuid
        self._settle = settle
        self._uc = opened()
        self._handle = self._uc._uch
        self._library = uclib
        self._decoder = Decoder()
        self._decoder.install(words)
        words[at.EMU_STOP] = ctypes.cast(self._library.uc_emu_stop, ctypes.c_void_p).value or 0
        self._syscall = _Batch(self._library, ("RAX", "RDI", "RSI", "RDX", "R10", "R8", "R9", "EFLAGS"))
        self._result = _Batch(self._library, ("RAX", "RCX", "R11"))
        self._general = _Batch(self._library, tuple(GENERAL))
        self._rip = _Batch(self._library, ("RIP",))
        self._fs = _Batch(self._library, ("FS_BASE",))
        self._gs = _Batch(self._library, ("GS_BASE",))
        self._enter_ring_3()
        self._store_hook: int | None = None
        self._hooks: list[Any] = []
        here = words.ctypes.data
        self.shortcuts = shortcuts.NONE
        if on_block:  # none: bare execution, for comparison
            plant(self._handle, uc.UC_HOOK_BLOCK, on_block, pointer)
            self.shortcuts = shortcuts.ACCESSES | shortcuts.BLOCKS | shortcuts.STORES
            words[at.LEAVE] = shortcuts.leaving()
        plant(self._handle, uc.UC_HOOK_INSN, intercepts.on_syscall.address, here, x86.UC_X86_INS_SYSCALL)
        plant(self._handle, uc.UC_HOOK_INTR, intercepts.on_interrupt.address, here)
        plant(self._handle, uc.UC_HOOK_MEM_INVALID, intercepts.on_fault.address, here)
        plant(self._handle, uc.UC_HOOK_INSN_INVALID, intercepts.on_invalid.address, here)
        self._uc.hook_add(uc.UC_HOOK_INSN, self._answer_cpuid, None, 1, 0, x86.UC_X86_INS_CPUID)

    def map(self, start: int, length: int, protection: int) -> None:
        """Let the guest see this process's memory at the same addresses; lengths in whole pages."""
        if protection != Protection.NONE:
            self._uc.mem_map_ptr(start, length, protection, start)
        if protection & Protection.EXEC and protection & Protection.WRITE:
            self._watch(start, start + length)

    def unmap(self, start: int, length: int) -> None:
        """Take mapped memory away; the whole range must be mapped."""
        self._unwatch(start, start + length)
        self._uc.mem_unmap(start, length)

    def protect(self, start: int, length: int, protection: int) -> None:
        """Change the rights of mapped memory; NONE takes it from the guest's view."""
        if protection == Protection.NONE:
            self.unmap(start, length)
            return
        self._unwatch(start, start + length)
        self._uc.mem_protect(start, length, protection)
        self._forget_pages()  # a page that could be written directly may not be now
        if protection & Protection.EXEC and protection & Protection.WRITE:
            self._watch(start, start + length)

    def forget_code(self, start: int, length: int) -> None:
        """Drop translations and decoded blocks of a range whose bytes or rights changed."""
        self._uc.ctl_remove_cache(start, start + length)
        self._forget()

    def run(self, rip: int) -> Stop:
        """Execute from `rip` until a system call, fault, exception, full buffer, slice end or signal."""
        words = self.words
        words[at.REASON] = at.REASON_NONE
        shortcuts.take(self.shortcuts)
        status = self._library.uc_emu_start(self._handle, ctypes.c_uint64(rip), ctypes.c_uint64(0), 0, 0)
        self._settle()
        (stopped,) = self._rip.read(self._handle)
        reason = int(words[at.REASON])
        if reason == at.REASON_NONE and status == uc.UC_ERR_OK:
            # The address that ends emulation is 0, where no program has code: a branch led there.
            words[at.FAULT_ADDRESS], words[at.FAULT_ACCESS] = stopped, uc.UC_MEM_FETCH_UNMAPPED
            reason = at.REASON_FAULT
        # A fetch that failed is where a branch led: the recorder accounts for it (machine.hooks, the landings).
        fetch = reason == at.REASON_FAULT and int(words[at.FAULT_ACCESS]) in _FETCH
        if reason not in (at.REASON_SLICE, at.REASON_FLUSH, at.REASON_SIGNAL) and not fetch:
            retire_current(words, np.uint64(stopped))
        if reason == at.REASON_FAULT:
            access = int(words[at.FAULT_ACCESS])
            verb = "fetch" if access in _FETCH else "write" if access in _WRITE else "read"
            return Stop(
                StopReason.FAULT,
                stopped,
                address=int(words[at.FAULT_ADDRESS]),
                access=verb,
                present=int(access in _PRESENT),
            )
        if reason == at.REASON_NONE and status != uc.UC_ERR_OK:
            if status == uc.UC_ERR_INSN_INVALID:
                return Stop(StopReason.INVALID, stopped)
            raise InternalError(f"the engine stopped at {stopped:#x} with error {status}: {unicorn.UcError(status)}")
        return Stop(StopReason(reason), stopped, vector=int(words[at.VECTOR]))

    def save(self) -> Context:
        """Return the register state, to be given to `restore` later."""
        return Context(self._uc.context_save())

    def restore(self, context: Context) -> None:
        """Put a saved register state back."""
        self._uc.context_restore(context.registers)

    def resume_before(self, block: tuple[int, int] | None) -> None:
        """Say that a block [start, end), accounted for before it ran, comes next; None when whatever comes is new."""
        words = self.words
        words[at.CURRENT] = 0
        words[at.UNUSUAL] &= np.uint64(at.UNUSUAL_VOLATILE)
        if block is not None:
            words[at.CURRENT] = find_block(words, np.uint64(block[0]), np.uint64(block[1] - block[0]))
            words[at.UNUSUAL] |= np.uint64(at.UNUSUAL_REPEATED)

    def syscall_arguments(self) -> tuple[int, ...]:
        """Return RAX, RDI, RSI, RDX, R10, R8, R9 and RFLAGS: a system call's number, arguments and flags."""
        return self._syscall.read(self._handle)

    def finish_syscall(self, result: int, rip: int, flags: int) -> None:
        """Write a system call's result the way SYSRET leaves it: RAX, RCX = RIP, R11 = RFLAGS."""
        self._result.write(self._handle, result & (1 << 64) - 1, rip, flags)

    def registers(self) -> dict[str, int]:
        """Return the general registers, RIP and EFLAGS by name."""
        return dict(zip(GENERAL, self._general.read(self._handle), strict=True))

    def write_registers(self, content: dict[str, int]) -> None:
        """Write registers by name: the general ones, RIP, EFLAGS, FS_BASE, GS_BASE."""
        for name, value in content.items():
            self._uc.reg_write(_IDENTITY[name], value)

    @property
    def fs_base(self) -> int:
        """The guest's thread pointer."""
        return self._fs.read(self._handle)[0]

    @property
    def gs_base(self) -> int:
        """The guest's GS base."""
        return self._gs.read(self._handle)[0]

    def read_fpu(self) -> bytes:
        """Return the x87 and SSE state as FXSAVE64 lays it out (512 bytes)."""
        return fpu.read(self._uc)

    def write_fpu(self, image: bytes) -> None:
        """Load x87 and SSE state from an FXSAVE64 image of 512 bytes."""
        fpu.write(self._uc, image)

    def close(self) -> None:
        """Free the engine; nothing may use it afterwards."""
        self._hooks.clear()
        self._uc = None

    def _watch(self, start: int, end: int) -> None:
        # Writable code: blocks in it are decoded each time they run, and stores into the running block are seen.
        words = self.words
        count = int(words[at.VOLATILE_COUNT])
        if count == at.VOLATILE_RANGES:  # more ranges than slots: one range over all is exact too, only slower
            low = min(start, *(int(words[at.VOLATILE + 2 * index]) for index in range(count)))
            high = max(end, *(int(words[at.VOLATILE + 2 * index + 1]) for index in range(count)))
            words[at.VOLATILE], words[at.VOLATILE + 1], words[at.VOLATILE_COUNT] = low, high, 1
        else:
            words[at.VOLATILE + 2 * count], words[at.VOLATILE + 2 * count + 1] = start, end
            words[at.VOLATILE_COUNT] = count + 1
        words[at.UNUSUAL] |= np.uint64(at.UNUSUAL_VOLATILE)
        if self._store_hook is None:
            self._store_hook = plant(self._handle, uc.UC_HOOK_MEM_WRITE, intercepts.on_store.address, words.ctypes.data)
            self.shortcuts &= ~shortcuts.STORES
            self._uc.ctl_flush_tb()
            self._forget_pages()

    def _unwatch(self, start: int, end: int) -> None:
        words = self.words
        pairs = [
            (int(words[at.VOLATILE + 2 * index]), int(words[at.VOLATILE + 2 * index + 1]))
            for index in range(int(words[at.VOLATILE_COUNT]))
        ]
        kept = [pair for pair in pairs if not (start <= pair[0] and pair[1] <= end)]
        for index, pair in enumerate(kept):
            words[at.VOLATILE + 2 * index], words[at.VOLATILE + 2 * index + 1] = pair
        words[at.VOLATILE_COUNT] = len(kept)
        if not kept:
            words[at.UNUSUAL] &= ~np.uint64(at.UNUSUAL_VOLATILE)

    def _forget_pages(self) -> None:
        # How a page may be reached was looked up under other rights, or with other shortcuts; uc_ctl_flush_tlb (uc.h).
        self._library.uc_ctl(self._handle, ctypes.c_int(_FLUSH_TLB))

    def _forget(self) -> None:
        # The running block's entry goes too; whoever changes code has stopped the engine, so nothing follows it.
        self.words[at.CURRENT] = 0
        forget_blocks(self.words)

    def _answer_cpuid(self, engine: Any, _data: object) -> int:
        leaf = engine.reg_read(x86.UC_X86_REG_EAX) & 0xFFFFFFFF
        subleaf = engine.reg_read(x86.UC_X86_REG_ECX) & 0xFFFFFFFF
        answer = self._cpuid(leaf, subleaf)
        for register, value in zip(("EAX", "EBX", "ECX", "EDX"), answer, strict=True):
            engine.reg_write(getattr(x86, f"UC_X86_REG_R{register[1:]}"), value)
        return 1  # the engine's own CPUID is skipped

    def _enter_ring_3(self) -> None:
        # A GDT with user segments and one IRETQ: the engine refuses to load SS and CS of another ring otherwise.
        self._uc.mem_map(_STUB, PAGE)
        self._uc.mem_write(_STUB, _DESCRIPTORS)
        self._uc.mem_write(_STUB + 0x100, b"\x48\xcf\xeb\xfe")  # iretq; jmp .
        frame = struct.pack("<5Q", _STUB + 0x102, _USER_CS, 0x202, _STUB + 0x800, _USER_SS)
        self._uc.mem_write(_STUB + 0x200, frame)
        self._uc.reg_write(x86.UC_X86_REG_GDTR, (0, _STUB, len(_DESCRIPTORS) - 1, 0))
        self._uc.reg_write(x86.UC_X86_REG_RSP, _STUB + 0x200)
        self._uc.emu_start(_STUB + 0x100, 0, 0, 1)
        if self._uc.reg_read(x86.UC_X86_REG_CS) != _USER_CS:
            raise InternalError("the engine did not enter ring 3; is this the pinned Unicorn?")
        self._uc.mem_protect(_STUB, PAGE, uc.UC_PROT_READ)  # far transfers of the guest look descriptors up
