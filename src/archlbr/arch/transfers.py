"""Every operation that moves the instruction pointer: its branch kind, what FROM holds, whether it is an event.

`cpu` names what happened with these, `lbr` records it. Authority: reference architecture.md 3.1; UIRET and
user-interrupt delivery are confirmed by the manual's page of UIRET, the rest is UNCONFIRMED (mem) but agrees with
arch/x86/events/utils.c.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NamedTuple

from archlbr.arch.branches import BranchKind


class Source(Enum):
    """What FROM holds: the operation's own address, the next one, the address resumed, or there is no record."""

    INSTRUCTION = "address of the instruction"
    NEXT = "address of the instruction that would have run"
    RESUMED = "address resumed"
    NOTHING = "no record"


class Transfer(IntEnum):
    """An operation that moves the instruction pointer."""

    JCC = 0
    JRCXZ = 1
    LOOP = 2
    JMP_REL = 3
    JMP_IND = 4
    CALL_REL = 5
    CALL_NEXT = 6
    CALL_IND = 7
    RET_NEAR = 8
    JMP_FAR = 9
    CALL_FAR = 10
    RET_FAR = 11
    SYSCALL = 12
    SYSRET = 13
    SYSENTER = 14
    SYSEXIT = 15
    INT_N = 16
    INT3 = 17
    INTO = 18
    INT1 = 19
    IRET = 20
    INTERRUPT = 21
    EXCEPTION = 22
    RSM = 23
    INIT = 24
    SIPI = 25
    TSX_ABORT = 26
    ENCLAVE = 27
    USER_INTERRUPT = 28
    UIRET = 29
    DEBUG_EXCEPTION = 30
    SMI = 31
    VM_ENTRY = 32
    VM_EXIT = 33


class TransferRow(NamedTuple):
    """How one operation is recorded.

    kind: NONE when it leaves no record. source: what FROM holds. event: 1 when LER takes the branch before it
    (exceptions, hardware interrupts, software interrupts; architecture.md 4.3).
    """

    transfer: Transfer
    kind: BranchKind
    source: Source
    event: int = 0


_OTHER, _HERE = BranchKind.OTHER, Source.INSTRUCTION

TRANSFERS: tuple[TransferRow, ...] = (
    TransferRow(Transfer.JCC, BranchKind.COND, _HERE),
    TransferRow(Transfer.JRCXZ, BranchKind.COND, _HERE),
    TransferRow(Transfer.LOOP, BranchKind.COND, _HERE),
    TransferRow(Transfer.JMP_REL, BranchKind.REL_JMP, _HERE),
    TransferRow(Transfer.JMP_IND, BranchKind.IND_JMP, _HERE),
    TransferRow(Transfer.CALL_REL, BranchKind.REL_CALL, _HERE),
    # A direct call to the next instruction only reads the instruction pointer; it has no return to match.
    TransferRow(Transfer.CALL_NEXT, BranchKind.NONE, Source.NOTHING),
    TransferRow(Transfer.CALL_IND, BranchKind.IND_CALL, _HERE),
    TransferRow(Transfer.RET_NEAR, BranchKind.RET, _HERE),
    TransferRow(Transfer.JMP_FAR, _OTHER, _HERE),
    TransferRow(Transfer.CALL_FAR, _OTHER, _HERE),
    TransferRow(Transfer.RET_FAR, _OTHER, _HERE),
    TransferRow(Transfer.SYSCALL, _OTHER, _HERE),
    TransferRow(Transfer.SYSRET, _OTHER, _HERE),
    TransferRow(Transfer.SYSENTER, _OTHER, _HERE),
    TransferRow(Transfer.SYSEXIT, _OTHER, _HERE),
    TransferRow(Transfer.INT_N, _OTHER, _HERE, 1),
    TransferRow(Transfer.INT3, _OTHER, _HERE, 1),
    TransferRow(Transfer.INTO, _OTHER, _HERE, 1),
    # INT1 raises #DB, which is never recorded; whether the instruction itself is, is UNCONFIRMED: we say it is not.
    TransferRow(Transfer.INT1, BranchKind.NONE, Source.NOTHING),
    TransferRow(Transfer.IRET, _OTHER, _HERE),
    TransferRow(Transfer.INTERRUPT, _OTHER, Source.NEXT, 1),
    TransferRow(Transfer.EXCEPTION, _OTHER, _HERE, 1),
    TransferRow(Transfer.RSM, _OTHER, Source.RESUMED),
    TransferRow(Transfer.INIT, _OTHER, Source.NEXT),
    TransferRow(Transfer.SIPI, _OTHER, Source.NEXT),
    TransferRow(Transfer.TSX_ABORT, _OTHER, _HERE),
    TransferRow(Transfer.ENCLAVE, _OTHER, _HERE),
    TransferRow(Transfer.USER_INTERRUPT, _OTHER, Source.NEXT),
    TransferRow(Transfer.UIRET, _OTHER, _HERE),
    # #DB and #SMI clear LBREn first (architecture.md 3.6); VM entry and exit are no branches (UNCONFIRMED, mem).
    TransferRow(Transfer.DEBUG_EXCEPTION, BranchKind.NONE, Source.NOTHING),
    TransferRow(Transfer.SMI, BranchKind.NONE, Source.NOTHING),
    TransferRow(Transfer.VM_ENTRY, BranchKind.NONE, Source.NOTHING),
    TransferRow(Transfer.VM_EXIT, BranchKind.NONE, Source.NOTHING),
)

KIND: dict[Transfer, BranchKind] = {row.transfer: row.kind for row in TRANSFERS}
EVENT: dict[Transfer, int] = {row.transfer: row.event for row in TRANSFERS}


def recorded_ip(ip: int, cs_base: int, *, lip: bool, long_mode: bool) -> int:
    """Return the address a record holds for an instruction at offset `ip` in CS.

    lip: CPUID.1CH:EAX[31]; 1 records linear addresses, 0 offsets. long_mode: CS.L = 1, where the base counts as 0;
    compatibility mode is not long mode here. Authority: architecture.md 3.1 (IP format).
    """
    if long_mode or not lip:
        return ip
    return (cs_base + ip) & 0xFFFFFFFF
