"""A guest that executes one privileged instruction, or takes one branch, and says what came of it.

The engine really executes; what it cannot answer (RDMSR, WRMSR, CPUID, XSAVES, XRSTORS) is asked of `Hypervisor`, and
a refusal is a #GP through the guest's own IDT. `conformance.targets.machine` puts the vPMU's step behind it. Branches
are single instructions at given addresses, in ring 0 or 3, stepped by the engine and decoded from memory.
"""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import capstone
from unicorn import x86_const as x86

from archlbr.arch.branches import BranchKind
from archlbr.cpu.decode import kind_of
from archlbr.cpu.unicorn.supervisor import SupervisorEngine
from archlbr.errors import InternalError
from archlbr.machine import msr_stubs as stubs

if TYPE_CHECKING:
    from archlbr.machine.msr_stubs import Report

# Where branches may lie, and their stack.
BRANCHES: Final = range(0x400000, 0x440000)
_BRANCH_STACK: Final = BRANCHES.stop - 0x800
_ZF: Final = 0x42
_NOWHERE: Final = 0xFFFF_FFF0
_XSAVE_LENGTH: Final = 4
_UNDEFINED_OPCODE: Final = 6
_OPERATIONS: Final = {0x28: "xsaves", 0x18: "xrstors"}  # ModRM.reg of 0F C7: /5 and /3


class Hypervisor(Protocol):
    """Who answers what the guest executes; None or False is #GP."""

    def rdmsr(self, msr: int) -> int | None:
        """Return a register's value."""

    def wrmsr(self, msr: int, value: int) -> bool:
        """Write a register; say whether it took the value."""

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Return the four registers."""

    def xsaves(self, area: bytes) -> bytes | int:
        """Return the area as XSAVES leaves it, or the vector of the fault."""

    def xrstors(self, area: bytes) -> int:
        """Load the area; return 0, or the vector of the fault."""


class Taken(NamedTuple):
    """A branch as it was executed."""

    source: int
    target: int
    kind: int
    cpl: int


class MsrGuest:
    """One engine with the stubs in its memory."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor
        self._engine = SupervisorEngine(self, hypervisor.cpuid)
        self._uc: Any = self._engine.uc
        self._uc.mem_map(0, stubs.SIZE)
        self._uc.mem_map(BRANCHES.start, len(BRANCHES))
        self._uc.mem_write(0, stubs.image())
        self._uc.reg_write(x86.UC_X86_REG_GDTR, (0, stubs.GDT, len(stubs.DESCRIPTORS) - 1, 0))
        self._uc.reg_write(x86.UC_X86_REG_IDTR, (0, stubs.IDT, 16 * stubs.VECTORS - 1, 0))
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        # Ring 0's selectors are loaded by a real IRETQ, as the engine refuses to have them written; so are ring 3's.
        self._rings: dict[int, Any] = {}
        for cpl, code, data in (
            (0, stubs.CODE_SELECTOR, stubs.DATA_SELECTOR),
            (3, stubs.USER_CODE_SELECTOR, stubs.USER_DATA_SELECTOR),
        ):
            self._uc.mem_write(stubs.STACK, struct.pack("<5Q", BRANCHES.start, code, 2, stubs.STACK, data))
            self._uc.mem_write(BRANCHES.start, b"\x48\xcf")  # iretq
            self._uc.reg_write(x86.UC_X86_REG_RSP, stubs.STACK)
            self._engine.run(BRANCHES.start, _NOWHERE, 1)
            if self._uc.reg_read(x86.UC_X86_REG_CS) != code:
                raise InternalError(f"the engine did not enter ring {cpl}; is this the pinned Unicorn?")
            self._rings[cpl] = self._uc.context_save()

    def execute(self, rip: int) -> int:
        """Answer the engine's question about an instruction it does not know; return its length, or how it faults."""
        code = bytes(self._uc.mem_read(rip, _XSAVE_LENGTH))
        name = _OPERATIONS.get(code[3] & 0x38) if code[:3] == b"\x48\x0f\xc7" else None
        if name is None:
            return 0
        area = bytes(self._uc.mem_read(stubs.AREA, stubs.AREA_SIZE))
        if name == "xsaves":
            saved = self._hypervisor.xsaves(area)
            vector = saved if isinstance(saved, int) else 0
            if isinstance(saved, bytes):
                self._uc.mem_write(stubs.AREA, saved)
        else:
            vector = self._hypervisor.xrstors(area)
        if vector == 0:
            return _XSAVE_LENGTH
        return 0 if vector == _UNDEFINED_OPCODE else -vector

    def rdmsr(self, msr: int) -> int | None:
        """Pass the engine's question on."""
        return self._hypervisor.rdmsr(msr)

    def wrmsr(self, msr: int, value: int) -> bool:
        """Pass the engine's question on."""
        return self._hypervisor.wrmsr(msr, value)

    def rdpmc(self, counter: int) -> int | None:
        """Refuse: no stub executes RDPMC."""
        raise InternalError(f"RDPMC of counter {counter:#x}")

    def run(self, name: str, index: int = 0, subindex: int = 0, value: int = 0) -> Report:
        """Execute a stub in ring 0 and return what it reports."""
        self._uc.context_restore(self._rings[0])
        self._uc.reg_write(x86.UC_X86_REG_RSP, stubs.STACK)
        self._uc.mem_write(stubs.MAILBOX, stubs.question(index, subindex, value))
        self._engine.run(stubs.STUBS[name].start, _NOWHERE)
        return stubs.report(bytes(self._uc.mem_read(stubs.MAILBOX, 28)))

    @property
    def area(self) -> bytes:
        """The XSAVE area in guest memory."""
        return bytes(self._uc.mem_read(stubs.AREA, stubs.AREA_SIZE))

    @area.setter
    def area(self, content: bytes) -> None:
        self._uc.mem_write(stubs.AREA, content)

    def branch(self, source: int, target: int, kind: int, cpl: int) -> Taken:
        """Take one branch and return it as the engine and the decoder saw it; InternalError when it went astray."""
        if source not in BRANCHES or target not in BRANCHES:
            raise InternalError(f"a branch from {source:#x} to {target:#x} does not lie in {BRANCHES}")
        uc = self._uc
        uc.context_restore(self._rings[cpl])
        code = _code(source, target, kind)
        uc.mem_write(source, code)
        uc.ctl_remove_cache(source, source + len(code))
        uc.reg_write(x86.UC_X86_REG_RAX, target)
        uc.reg_write(x86.UC_X86_REG_EFLAGS, _ZF)
        selectors = (stubs.CODE_SELECTOR, stubs.DATA_SELECTOR) if cpl == 0 else (
            stubs.USER_CODE_SELECTOR, stubs.USER_DATA_SELECTOR
        )  # fmt: skip
        uc.mem_write(_BRANCH_STACK, struct.pack("<5Q", target, selectors[0], 2, _BRANCH_STACK, selectors[1]))
        uc.reg_write(x86.UC_X86_REG_RSP, _BRANCH_STACK)
        self._engine.run(source, _NOWHERE, 1)
        arrived = uc.reg_read(x86.UC_X86_REG_RIP)
        if arrived != target:
            raise InternalError(f"a branch at {source:#x} led to {arrived:#x}, not to {target:#x}")
        return Taken(source, arrived, self._decoded(source), uc.reg_read(x86.UC_X86_REG_CS) & 3)

    def close(self) -> None:
        """Give the engine back."""
        self._engine.close()

    def _decoded(self, address: int) -> int:
        code = ctypes.create_string_buffer(bytes(self._uc.mem_read(address, 16)))
        instruction = next(self._decoder.disasm(code.raw, address))
        return int(kind_of(instruction.id, ctypes.addressof(code)))


def _code(source: int, target: int, kind: int) -> bytes:
    """Return a branch instruction of a kind; RAX, ZF or the stack lead an indirect one to its target."""
    match kind:
        case BranchKind.COND:
            return b"\x0f\x84" + struct.pack("<i", target - source - 6)  # jz
        case BranchKind.REL_JMP:
            return b"\xe9" + struct.pack("<i", target - source - 5)
        case BranchKind.REL_CALL:
            return b"\xe8" + struct.pack("<i", target - source - 5)
        case BranchKind.IND_JMP:
            return b"\xff\xe0"  # jmp rax
        case BranchKind.IND_CALL:
            return b"\xff\xd0"  # call rax
        case BranchKind.RET:
            return b"\xc3"
        case BranchKind.OTHER:
            return b"\x48\xcf"  # iretq, to the same ring
    raise InternalError(f"no instruction is of kind {kind}")
