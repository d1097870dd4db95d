"""Branch kinds: one small integer a kind, and what each register, tool and profile calls it.

`cpu` classifies instructions into these, `lbr` filters and encodes them, `profile` writes them out. The kinds are those
of IA32_LBR_CTL[22:16] (SDM vol. 3B, "Last Branch Records"; reference architecture.md 2.2, 2.5, 3.1).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class BranchKind(IntEnum):
    """What sort of control transfer was taken; NONE is no branch at all."""

    NONE = 0
    COND = 1
    REL_JMP = 2
    IND_JMP = 3
    REL_CALL = 4
    IND_CALL = 5
    RET = 6
    OTHER = 7


class PerfBranch(IntEnum):
    """PERF_BR_* of include/uapi/linux/perf_event.h: the type a perf_branch_entry carries."""

    UNKNOWN = 0
    COND = 1
    UNCOND = 2
    IND = 3
    CALL = 4
    IND_CALL = 5
    RET = 6
    SYSCALL = 7
    SYSRET = 8
    COND_CALL = 9
    COND_RET = 10
    ERET = 11
    IRQ = 12


class KindRow(NamedTuple):
    """How one branch kind is named by each register and consumer.

    ctl_bit: the inclusion bit in IA32_LBR_CTL. br_type: IA32_LBR_x_INFO[59:56]. select_bit: the suppression bit in the
    legacy MSR_LBR_SELECT. perf: what Linux derives from br_type (arch_lbr_br_type_map in arch/x86/events/intel/lbr.c);
    OTHER is decoded in software there, so UNKNOWN here.
    """

    kind: BranchKind
    ctl_bit: int
    br_type: int
    select_bit: int
    perf: PerfBranch


# The CTL order and the BR_TYPE order differ: relative before indirect in CTL, indirect before relative in BR_TYPE
# (architecture.md 2.5 and 7, fact 7). OTHER_BRANCH has bit 3 set; 1000B is the value we emit (UNCONFIRMED).
KINDS: tuple[KindRow, ...] = (
    KindRow(BranchKind.COND, 16, 0b0000, 2, PerfBranch.COND),
    KindRow(BranchKind.REL_JMP, 17, 0b0010, 7, PerfBranch.UNCOND),
    KindRow(BranchKind.IND_JMP, 18, 0b0001, 6, PerfBranch.IND),
    KindRow(BranchKind.REL_CALL, 19, 0b0100, 3, PerfBranch.CALL),
    KindRow(BranchKind.IND_CALL, 20, 0b0011, 4, PerfBranch.IND_CALL),
    KindRow(BranchKind.RET, 21, 0b0101, 5, PerfBranch.RET),
    KindRow(BranchKind.OTHER, 22, 0b1000, 8, PerfBranch.UNKNOWN),
)

KIND_NAMES: tuple[str, ...] = tuple(kind.name for kind in BranchKind)
CTL_BIT: dict[BranchKind, int] = {row.kind: row.ctl_bit for row in KINDS}
BR_TYPE: dict[BranchKind, int] = {row.kind: row.br_type for row in KINDS}
SELECT_BIT: dict[BranchKind, int] = {row.kind: row.select_bit for row in KINDS}
PERF_TYPE: dict[BranchKind, PerfBranch] = {row.kind: row.perf for row in KINDS}
