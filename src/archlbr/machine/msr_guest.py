"""A guest on the board that executes one privileged instruction, or takes one branch, and says what came of it.

The board runs it as it runs any guest: the vPMU answers what is privileged, a refusal is a #GP through the guest's own
IDT, the hooks record what it branches. `conformance.targets.machine` asks the table of it. Between two instructions the
machine stands still and the guest's registers are set from outside, as by KVM_SET_REGS: a jump of its own to the next
would be recorded. `msr_stubs` has the guest's code; `Layout` says where another image has the same.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from unicorn import x86_const as x86

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.errors import InternalError
from archlbr.machine import boot
from archlbr.machine import msr_stubs as stubs
from archlbr.machine.extended import CR4_OSXSAVE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from archlbr.machine.board import Board
    from archlbr.machine.msr_stubs import Report

# Where branches may lie, and their stack.
BRANCHES: Final = range(0x400000, 0x440000)
MEMORY: Final = 16 << 20
_BRANCH_STACK: Final = BRANCHES.stop - 0x800
_ZF: Final = 0x42
_USER_PAGE: Final = 4
_PAGE_SHIFT: Final = 21
# A run of so many instructions is over: one branch, or a stub without a loop.
_FEW: Final = 1000


class Layout(NamedTuple):
    """Where a guest in memory has what is asked of it.

    stubs: by name, where each begins; it ends in HLT, and so does each handler, which leaves its vector in the mailbox.
    mailbox, area: addresses, in the form of `msr_stubs`. stack: of the stubs. selectors: of code and data, by ring.
    """

    stubs: Mapping[str, int]
    mailbox: int
    area: int
    stack: int
    selectors: Mapping[int, tuple[int, int]]


STUBS: Final = Layout(
    {name: stub.start for name, stub in stubs.STUBS.items()},
    stubs.MAILBOX,
    stubs.AREA,
    stubs.STACK,
    {
        0: (stubs.CODE_SELECTOR, stubs.DATA_SELECTOR),
        3: (stubs.USER_CODE_SELECTOR, stubs.USER_DATA_SELECTOR),
    },
)


def put_stubs(board: Board) -> Layout:
    """Put the stubs' 64 KiB into a board that has run nothing, in ring 0 and long mode; return where they are."""
    board.start(stubs.STUBS["cpuid"].start)
    board.memory[: stubs.SIZE] = stubs.image()
    board.uc.reg_write(x86.UC_X86_REG_CR4, board.uc.reg_read(x86.UC_X86_REG_CR4) | CR4_OSXSAVE)
    board.uc.reg_write(x86.UC_X86_REG_GDTR, (0, stubs.GDT, len(stubs.DESCRIPTORS) - 1, 0))
    board.uc.reg_write(x86.UC_X86_REG_IDTR, (0, stubs.IDT, 16 * stubs.VECTORS - 1, 0))
    # Branches are taken in ring 3 too.
    directory = boot.PAGE_TABLES + 8192
    for entry in (boot.PAGE_TABLES, boot.PAGE_TABLES + 4096, directory + 8 * (BRANCHES.start >> _PAGE_SHIFT)):
        board.memory[entry] |= _USER_PAGE
    return STUBS


class MsrGuest:
    """A guest of a board's, at rest between two instructions."""

    def __init__(self, board: Board, layout: Layout) -> None:
        self._board = board
        self._layout = layout
        self._uc: Any = board.uc
        # Selectors are loaded by a real IRETQ, as the engine refuses to have ring 0's written.
        self._rings: dict[int, Any] = {}
        for cpl in layout.selectors:
            self._put(BRANCHES.start, _code(BRANCHES.start, 0, BranchKind.OTHER))
            self._push(BRANCHES.start + 16, cpl)
            self._go(BRANCHES.start, _BRANCH_STACK)
            self._run_to(BRANCHES.start + 16)
            if self._uc.reg_read(x86.UC_X86_REG_CS) != layout.selectors[cpl][0]:
                raise InternalError(f"the guest did not enter ring {cpl}; is this the pinned Unicorn?")
            self._rings[cpl] = self._uc.context_save()

    def run(self, name: str, index: int = 0, subindex: int = 0, value: int = 0) -> Report:
        """Execute a stub in ring 0 and return what it reports."""
        board, layout = self._board, self._layout
        self._uc.context_restore(self._rings[0])
        mailbox = stubs.question(index, subindex, value)
        board.memory[layout.mailbox : layout.mailbox + len(mailbox)] = mailbox
        self._go(layout.stubs[name], layout.stack)
        board.run()
        if board.cause:
            raise InternalError(f"the guest's stub {name} ended the machine: {board.cause}")
        return stubs.report(bytes(board.memory[layout.mailbox : layout.mailbox + len(mailbox)]))

    @property
    def area(self) -> bytes:
        """The XSAVE area in guest memory."""
        return bytes(self._board.memory[self._layout.area : self._layout.area + stubs.AREA_SIZE])

    @area.setter
    def area(self, content: bytes) -> None:
        self._board.memory[self._layout.area : self._layout.area + len(content)] = content

    def branch(self, source: int, target: int, kind: int, cpl: int) -> None:
        """Take one branch of a kind in a ring; InternalError when it went astray."""
        if source not in BRANCHES or target not in BRANCHES:
            raise InternalError(f"a branch from {source:#x} to {target:#x} does not lie in {BRANCHES}")
        self._uc.context_restore(self._rings[cpl])
        self._put(source, _code(source, target, kind))
        self._uc.reg_write(x86.UC_X86_REG_RAX, target)
        self._uc.reg_write(x86.UC_X86_REG_EFLAGS, _ZF)
        self._push(target, cpl)
        self._go(source, _BRANCH_STACK)
        self._run_to(target)

    def _put(self, address: int, code: bytes) -> None:
        self._board.memory[address : address + len(code)] = code
        self._uc.ctl_remove_cache(address, address + len(code))

    # What RET and IRETQ take from the stack.
    def _push(self, target: int, cpl: int) -> None:
        code, data = self._layout.selectors[cpl]
        frame = struct.pack("<5Q", target, code, 2, _BRANCH_STACK, data)
        self._board.memory[_BRANCH_STACK : _BRANCH_STACK + len(frame)] = frame

    def _go(self, rip: int, rsp: int) -> None:
        board = self._board
        if board.words[at.UNUSUAL]:  # stopped before a block, which will not run now
            board.words[at.UNUSUAL] = board.words[at.CURRENT] = 0
        board.status, board.halted = None, 0
        self._uc.reg_write(x86.UC_X86_REG_RSP, rsp)
        self._uc.reg_write(x86.UC_X86_REG_RIP, rip)

    # An instruction at a time: the board stops before the block after it.
    def _run_to(self, target: int) -> None:
        board = self._board
        for _ in range(_FEW):
            board.run(board.now() + 1)
            arrived = self._uc.reg_read(x86.UC_X86_REG_RIP)
            if arrived == target or board.status is not None:
                break
        if arrived != target:
            raise InternalError(f"a branch led to {arrived:#x}, not to {target:#x}")


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
