"""What can happen to the facility, as values: the closed set of inputs `step` takes.

`vpmu` sends what a guest does on to it, `facility_bank` what the host does; tests send all of them. Each names the
section of reference architecture.md that rules it.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from archlbr.arch.xsave import COMPONENT_BIT


class Branch(NamedTuple):
    """A taken branch, or an event that moved the instruction pointer (3.1).

    kind: a BranchKind. clock: model clock when it retired. mispredicted, in_tx, abort: 0 or 1. event: 1 for an
    exception, a hardware or a software interrupt, which updates LER. counts: event counts since the branch reported
    before, 2 bits a counter, at most 3 each; the caller counts only counters with IA32_PERFEVTSELx[35] set.
    """

    source: int
    target: int
    kind: int
    cpl_from: int = 3
    cpl_to: int = 3
    clock: int = 0
    mispredicted: int = 0
    in_tx: int = 0
    abort: int = 0
    event: int = 0
    counts: int = 0


class Rdmsr(NamedTuple):
    """Read a register (2)."""

    msr: int
    cpl: int = 0


class Wrmsr(NamedTuple):
    """Write a register (2)."""

    msr: int
    value: int
    cpl: int = 0


class Pmi(NamedTuple):
    """A counter overflowed and its interrupt is delivered (3.6)."""


class Thaw(NamedTuple):
    """Clear GLOBAL_STATUS.LBR_FRZ, as a write of bit 58 to 390H does (3.6)."""


class DebugException(NamedTuple):
    """#DB is delivered (3.6)."""


class Smi(NamedTuple):
    """#SMI is delivered (3.6)."""


class Rsm(NamedTuple):
    """RSM returns from SMM (3.6); the core reports its record afterwards, as a Branch with both addresses resumed."""


class Init(NamedTuple):
    """INIT (3.6); the core reports its record before, as a Branch."""


class WarmReset(NamedTuple):
    """#RESET with the power kept (3.6)."""


class ColdReset(NamedTuple):
    """Power-up (3.6)."""


class DeepCState(NamedTuple):
    """MWAIT into a C-state above C1 (1.1, 3.6)."""


class Xsaves(NamedTuple):
    """XSAVES into `area` (4); rfbm is EDX:EAX & bit 15, the area starts with the legacy region."""

    area: bytes
    rfbm: int = COMPONENT_BIT
    cpl: int = 0


class Xrstors(NamedTuple):
    """XRSTORS from `area` (4)."""

    area: bytes
    rfbm: int = COMPONENT_BIT
    cpl: int = 0


class PebsRecord(NamedTuple):
    """Write the LBR group of a PEBS record under MSR_PEBS_DATA_CFG = data_cfg (3.8)."""

    data_cfg: int


Action: TypeAlias = (
    Branch
    | Rdmsr
    | Wrmsr
    | Pmi
    | Thaw
    | DebugException
    | Smi
    | Rsm
    | Init
    | WarmReset
    | ColdReset
    | DeepCState
    | Xsaves
    | Xrstors
    | PebsRecord
)
