"""The manual's word on each register, one block a register, each block in the same order.

exists: when the processor has it. reachable: which register of a series answers. reset: its value after a cold reset.
read: what RDMSR returns. write: what a write becomes, None for #GP(0). seen_by: who else reads or writes it.
`step` sends RDMSR and WRMSR here; `vpmu.registers` has the hypervisor's word on the same registers in the same order.
Authority: reference architecture.md 1.2, 1.3, 2, 4.3 and 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from archlbr.arch import msrs
from archlbr.arch.xsave import COMPONENT_BIT
from archlbr.errors import InternalError
from archlbr.lbr import freeze, legacy
from archlbr.lbr.legacy import sign_extended
from archlbr.lbr.state import ARCH, FORMAT_INFO, FORMAT_INFO2, Facility, State, settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.arch.msrs import Msr


class Register(NamedTuple):
    """One block; `x` is the number inside a series, 0 for a single register."""

    msr: Msr
    exists: Callable[[Facility], bool]
    reachable: Callable[[State, int], bool]
    reset: Callable[[Facility], int]
    read: Callable[[Facility, State, int], int]
    write: Callable[[Facility, State, int, int], State | None]
    seen_by: str


def _arch(facility: Facility) -> bool:
    return facility.format == ARCH


def _legacy(facility: Facility) -> bool:
    return facility.format != ARCH


def _always(_state: State, _x: int) -> bool:
    return True


def _below_depth(state: State, x: int) -> bool:
    """Say whether x is below the current DEPTH, not the maximum (2.4)."""
    return x < state.depth


def _zero(_facility: Facility) -> int:
    return 0


def _refused(_facility: Facility, _state: State, _x: int, _value: int) -> State | None:
    return None


def _canonical(facility: Facility, value: int) -> bool:
    """Say whether a register that holds an address takes the value; that others fault is UNCONFIRMED (mem; 2.4)."""
    return sign_extended(value, facility.linear_width, 64)


# The architectural facility ----------------------------------------------------------------------------------------


def _write_ctl(facility: Facility, state: State, _x: int, value: int) -> State | None:
    if value & ~facility.ctl_legal:
        return None
    return settled(facility, state._replace(ctl=value))


CTL = Register(
    msrs.IA32_LBR_CTL,
    exists=_arch,
    reachable=_always,
    reset=_zero,
    read=lambda _f, state, _x: state.ctl,
    write=_write_ctl,
    seen_by="XSAVES; VM entry and exit (2816H); #DB, SMI, RSM, PMI and warm reset clear or restore LBREn",
)


def _write_depth(facility: Facility, state: State, _x: int, value: int) -> State | None:
    # Depth 0 is not enumerated either, so it faults too (2.3).
    if value not in facility.leaf.depths:
        return None
    return freeze.wiped(state._replace(depth=value))


DEPTH = Register(
    msrs.IA32_LBR_DEPTH,
    exists=_arch,
    reachable=_always,
    reset=lambda facility: facility.max_depth,
    read=lambda _f, state, _x: state.depth,
    write=_write_depth,
    seen_by="XSAVES writes it, XRSTORS only compares it; each write clears the entries, LER stays (UNCONFIRMED, mem)",
)


def _entry_write(field: str, address: bool) -> Callable[[Facility, State, int, int], State | None]:
    """Return the write of one register of an entry; INFO takes any value and keeps it (UNCONFIRMED; 2.5)."""

    def write(facility: Facility, state: State, x: int, value: int) -> State | None:
        if address and not _canonical(facility, value):
            return None
        entry = state.stack[x]._replace(**{field: value})
        return state._replace(stack=(*state.stack[:x], entry, *state.stack[x + 1 :]))

    return write


INFO = Register(
    msrs.IA32_LBR_INFO,
    exists=_arch,
    reachable=_below_depth,
    reset=_zero,
    read=lambda _f, state, x: state.stack[x].info,
    write=_entry_write("info", address=False),
    seen_by="recorded branches; DEPTH; XSAVES; PEBS; deep C-states",
)
FROM_IP = Register(
    msrs.IA32_LBR_FROM_IP,
    exists=_arch,
    reachable=_below_depth,
    reset=_zero,
    read=lambda _f, state, x: state.stack[x].source,
    write=_entry_write("source", address=True),
    seen_by="recorded branches; DEPTH; XSAVES; PEBS; deep C-states",
)
TO_IP = Register(
    msrs.IA32_LBR_TO_IP,
    exists=_arch,
    reachable=_below_depth,
    reset=_zero,
    read=lambda _f, state, x: state.stack[x].target,
    write=_entry_write("target", address=True),
    seen_by="recorded branches; DEPTH; XSAVES; PEBS; deep C-states",
)


def _ler_write(field: str, address: bool) -> Callable[[Facility, State, int, int], State | None]:
    def write(facility: Facility, state: State, _x: int, value: int) -> State | None:
        if address and not _canonical(facility, value):
            return None
        return state._replace(ler=state.ler._replace(**{field: value}))

    return write


LER_FROM_IP = Register(
    msrs.IA32_LER_FROM_IP,
    exists=lambda _f: True,
    reachable=_always,
    reset=_zero,
    read=lambda _f, state, _x: state.ler.source,
    write=_ler_write("source", address=True),
    seen_by="exceptions and interrupts; XSAVES",
)
LER_TO_IP = Register(
    msrs.IA32_LER_TO_IP,
    exists=lambda _f: True,
    reachable=_always,
    reset=_zero,
    read=lambda _f, state, _x: state.ler.target,
    write=_ler_write("target", address=True),
    seen_by="exceptions and interrupts; XSAVES",
)
LER_INFO = Register(
    msrs.IA32_LER_INFO,
    exists=_arch,
    reachable=_always,
    reset=_zero,
    read=lambda _f, state, _x: state.ler.info,
    write=_ler_write("info", address=False),
    seen_by="exceptions and interrupts; XSAVES",
)

# The legacy facility: the same three series, a filter and a pointer -------------------------------------------------


def _write_select(facility: Facility, state: State, _x: int, value: int) -> State | None:
    return None if value & ~facility.select_legal else state._replace(select=value)


SELECT = Register(
    msrs.MSR_LBR_SELECT,
    exists=_legacy,
    reachable=_always,
    reset=_zero,
    read=lambda _f, state, _x: state.select,
    write=_write_select,
    seen_by="nobody: the hypervisor must switch it",
)


def _write_tos(_facility: Facility, state: State, _x: int, value: int) -> State | None:
    # Linux restores it with WRMSR; that a number past the ring faults is UNCONFIRMED.
    return state._replace(tos=value) if value < state.depth else None


TOS = Register(
    msrs.MSR_LASTBRANCH_TOS,
    exists=_legacy,
    reachable=_always,
    reset=_zero,
    read=lambda _f, state, _x: state.tos,
    write=_write_tos,
    seen_by="recorded branches",
)


def _legacy_entry_write(
    field: str, writable: Callable[[Facility, int], bool]
) -> Callable[[Facility, State, int, int], State | None]:
    store = _entry_write(field, address=False)

    def write(facility: Facility, state: State, x: int, value: int) -> State | None:
        return store(facility, state, x, value) if writable(facility, value) else None

    return write


LASTBRANCH_FROM_IP = Register(
    msrs.MSR_LASTBRANCH_FROM_IP,
    exists=_legacy,
    reachable=_below_depth,
    reset=_zero,
    read=lambda _f, state, x: state.stack[x].source,
    write=_legacy_entry_write("source", legacy.source_writable),
    seen_by="recorded branches",
)
LASTBRANCH_TO_IP = Register(
    msrs.MSR_LASTBRANCH_TO_IP,
    exists=_legacy,
    reachable=_below_depth,
    reset=_zero,
    read=lambda _f, state, x: state.stack[x].target,
    write=_legacy_entry_write("target", legacy.target_writable),
    seen_by="recorded branches",
)
LBR_INFO = Register(
    msrs.MSR_LBR_INFO,
    exists=lambda facility: facility.format in (FORMAT_INFO, FORMAT_INFO2),
    reachable=_below_depth,
    reset=_zero,
    read=lambda _f, state, x: state.stack[x].info,
    write=_entry_write("info", address=False),
    seen_by="recorded branches",
)

# What both facilities answer to -------------------------------------------------------------------------------------


def _write_debugctl(facility: Facility, state: State, _x: int, value: int) -> State | None:
    if value & ~facility.debugctl_legal:
        return None
    # With the architectural facility bit 0 may be written and always reads 0 (1.3).
    kept = value & ~msrs.DEBUGCTL_LBR if facility.format == ARCH else value
    return settled(facility, state._replace(debugctl=kept))


DEBUGCTL = Register(
    msrs.IA32_DEBUGCTL,
    exists=lambda _f: True,
    reachable=_always,
    reset=_zero,
    read=lambda _f, state, _x: state.debugctl,
    write=_write_debugctl,
    seen_by="VM entry and exit; #DB, SMI, RSM, PMI and resets clear or restore bits",
)
PERF_CAPABILITIES = Register(
    msrs.IA32_PERF_CAPABILITIES,
    exists=lambda _f: True,
    reachable=_always,
    reset=lambda facility: facility.format,
    read=lambda facility, _s, _x: facility.format,
    write=_refused,
    seen_by="the bits above 5:0 are the PMU's",
)


def _write_xss(_facility: Facility, state: State, _x: int, value: int) -> State | None:
    # The facility answers for bit 15 alone; the other components are the machine's.
    return None if value & ~COMPONENT_BIT else state._replace(xss=value)


XSS = Register(
    msrs.IA32_XSS,
    exists=lambda facility: bool(facility.xsaves),
    reachable=_always,
    reset=_zero,
    read=lambda _f, state, _x: state.xss,
    write=_write_xss,
    seen_by="XSAVES and XRSTORS",
)

# The PMU shares these three: the facility holds LBR_FRZ and lets the PMU's bits pass.
GLOBAL_STATUS = Register(
    msrs.IA32_PERF_GLOBAL_STATUS,
    exists=lambda facility: facility.pmu_version >= 2,
    reachable=_always,
    reset=_zero,
    read=lambda _f, state, _x: state.frozen * msrs.LBR_FRZ,
    write=_refused,
    seen_by="a PMI sets LBR_FRZ from PMU version 4 on",
)


def _write_status_reset(facility: Facility, state: State, _x: int, value: int) -> State | None:
    if not value & msrs.LBR_FRZ:
        return state
    return freeze.thaw(facility, state) if facility.pmu_version >= 4 else None


GLOBAL_STATUS_RESET = Register(
    msrs.IA32_PERF_GLOBAL_STATUS_RESET,
    exists=lambda facility: facility.pmu_version >= 2,
    reachable=_always,
    reset=_zero,
    read=lambda _f, _s, _x: 0,
    write=_write_status_reset,
    seen_by="IA32_PERF_GLOBAL_STATUS",
)


def _write_status_set(facility: Facility, state: State, _x: int, value: int) -> State | None:
    return settled(facility, state._replace(frozen=1)) if value & msrs.LBR_FRZ else state


GLOBAL_STATUS_SET = Register(
    msrs.IA32_PERF_GLOBAL_STATUS_SET,
    exists=lambda facility: facility.pmu_version >= 4,
    reachable=_always,
    reset=_zero,
    read=lambda _f, _s, _x: 0,
    write=_write_status_set,
    seen_by="IA32_PERF_GLOBAL_STATUS",
)

REGISTERS: tuple[Register, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Register))
BY_INDEX: dict[int, tuple[Register, int]] = {
    register.msr.index + x: (register, x) for register in REGISTERS for x in range(register.msr.count)
}


def rdmsr(facility: Facility, state: State, index: int, cpl: int = 0) -> int | None:
    """Return what RDMSR reads, or None for #GP(0); InternalError for a register that is not the facility's."""
    register, x = _register(index)
    if cpl or not register.exists(facility) or not register.reachable(state, x):
        return None
    return register.read(facility, state, x)


def wrmsr(facility: Facility, state: State, index: int, value: int, cpl: int = 0) -> State | None:
    """Return the state after WRMSR, or None for #GP(0); InternalError for a register that is not the facility's."""
    register, x = _register(index)
    if cpl or not register.exists(facility) or not register.reachable(state, x):
        return None
    return register.write(facility, state, x, value)


def _register(index: int) -> tuple[Register, int]:
    block = BY_INDEX.get(index)
    if block is None:
        raise InternalError(f"MSR {index:X}H is no register of the LBR facility")
    return block
