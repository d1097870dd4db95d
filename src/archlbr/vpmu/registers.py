"""The hypervisor's word on each register, one block a register, each block in the same order.

exists: when the guest has it. reachable: which register of a series answers. reset: its value after a cold reset of the
vCPU. read: what RDMSR returns. write: what a write becomes, None for #GP(0). seen_by: who else reads or writes it.
The blocks stand in the order of `lbr.registers`: read side by side, their difference is the virtualization. `step`
sends the guest's RDMSR and WRMSR here, `migration` userspace's. Authority: reference kvm-series.md P4 to P8, P14.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs
from archlbr.errors import InternalError
from archlbr.lbr import legacy
from archlbr.lbr.freeze import wiped
from archlbr.lbr.legacy import sign_extended
from archlbr.lbr.state import ARCH, FORMAT_INFO, FORMAT_INFO2, Entry
from archlbr.vpmu.block import Register, always, refused, zero
from archlbr.vpmu.counter_registers import COUNTER_REGISTERS
from archlbr.vpmu.counters import status, status_legal, with_status
from archlbr.vpmu.interception import decided, enabled, guest_ctl, with_ctl, with_debugctl
from archlbr.vpmu.ownership import asked, resets_hardware
from archlbr.vpmu.state import State, with_guest, with_lbr

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.lbr import state as lbr_state
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform


def _arch(state: State) -> bool:
    """Say whether the guest has the architectural facility: flavours match, and its CPUID is sound (P4, P5)."""
    return state.rules.flavour == ARCH


def _legacy(state: State) -> bool:
    return 0 <= state.rules.flavour < ARCH


def _below_depth(state: State, x: int) -> bool:
    """Say whether x is below the guest's DEPTH, in the hardware and where the register is intercepted (row 20)."""
    return x < state.guest.depth


def _file(design: Design, state: State) -> lbr_state.State:
    """Return the registers that hold the guest's entries: the processor's while owned, else KVM's copy (P14)."""
    return state.lbr if state.owned or design.raw_records else state.guest


def _with_file(design: Design, state: State, file: lbr_state.State) -> State:
    return with_lbr(state, file) if state.owned or design.raw_records else with_guest(state, file)


# The architectural facility ----------------------------------------------------------------------------------------


def _write_ctl(design: Design, platform: Platform, state: State, _x: int, value: int) -> State | None:
    if value & ~state.rules.facility.ctl_legal:
        return None
    after = with_ctl(design, platform, state, value)
    return asked(design, platform, after) if value & msrs.CTL_LBREN and not after.event else after


CTL = Register(
    msrs.IA32_LBR_CTL,
    exists=_arch,
    reachable=always,
    reset=zero,
    read=lambda design, state, _x: guest_ctl(design, state),
    write=_write_ctl,
    seen_by="VM entry and exit (2816H); XSAVES; #DB, SMI, RSM, PMI and warm reset; asks for the LBRs when LBREn is 1",
)


def _write_depth(design: Design, _platform: Platform, state: State, _x: int, value: int) -> State | None:
    if value not in state.rules.facility.leaf.depths:
        return None
    after = with_guest(state, wiped(state.guest._replace(depth=value)))
    if resets_hardware(design, state):
        after = with_lbr(after, wiped(state.lbr._replace(depth=value)))
    return decided(design, after)


DEPTH = Register(
    msrs.IA32_LBR_DEPTH,
    exists=_arch,
    reachable=always,
    reset=lambda state: state.rules.facility.max_depth,
    read=lambda _d, state, _x: state.guest.depth,
    write=_write_depth,
    seen_by="XSAVES writes it, XRSTORS only compares it; moves with ownership, the entries after it",
)


def _entry_read(at: int) -> Callable[[Design, State, int], int]:
    def read(design: Design, state: State, x: int) -> int:
        file = state.lbr if state.owned or design.raw_records else state.guest
        return file.stack[x][at]

    return read


def _entry_write(
    at: int, writable: Callable[[Platform, int], bool] | None
) -> Callable[[Design, Platform, State, int, int], State | None]:
    """Return the write of one register of an entry; what the hardware refuses, KVM refuses."""

    def write(design: Design, platform: Platform, state: State, x: int, value: int) -> State | None:
        if writable is not None and not writable(platform, value):
            return None
        file = _file(design, state)
        stack = file.stack
        old = stack[x]
        entry = Entry._make((*old[:at], value, *old[at + 1 :]))
        return _with_file(design, state, type(file)._make((*file[:2], (*stack[:x], entry, *stack[x + 1 :]), *file[3:])))

    return write


def _canonical(platform: Platform, value: int) -> bool:
    return sign_extended(value, platform.facility.linear_width, 64)


_SEEN_BY = "recorded branches; DEPTH; XSAVES; moves with ownership; passed through while owned"

INFO = Register(
    msrs.IA32_LBR_INFO,
    exists=_arch,
    reachable=_below_depth,
    reset=zero,
    read=_entry_read(2),
    write=_entry_write(2, None),
    seen_by=_SEEN_BY,
)
FROM_IP = Register(
    msrs.IA32_LBR_FROM_IP,
    exists=_arch,
    reachable=_below_depth,
    reset=zero,
    read=_entry_read(0),
    write=_entry_write(0, _canonical),
    seen_by=_SEEN_BY,
)
TO_IP = Register(
    msrs.IA32_LBR_TO_IP,
    exists=_arch,
    reachable=_below_depth,
    reset=zero,
    read=_entry_read(1),
    write=_entry_write(1, _canonical),
    seen_by=_SEEN_BY,
)


def _ler_read(at: int) -> Callable[[Design, State, int], int]:
    def read(design: Design, state: State, _x: int) -> int:
        # Without LBRs, and in series v2, KVM answers 0 for the two old numbers (kvm-series.md row 21).
        if not design.virtual_ler or not state.rules.usable:
            return 0
        return (state.lbr if state.owned else state.guest).ler[at]

    return read


def _ler_write(at: int, address: bool) -> Callable[[Design, Platform, State, int, int], State | None]:
    def write(design: Design, platform: Platform, state: State, _x: int, value: int) -> State | None:
        if not design.virtual_ler or not state.rules.usable or (address and not _canonical(platform, value)):
            return None
        file = state.lbr if state.owned else state.guest
        ler = Entry._make((*file.ler[:at], value, *file.ler[at + 1 :]))
        file = file._replace(ler=ler)
        return with_lbr(state, file) if state.owned else with_guest(state, file)

    return write


LER_FROM_IP = Register(
    msrs.IA32_LER_FROM_IP,
    exists=always,
    reachable=always,
    reset=zero,
    read=_ler_read(0),
    write=_ler_write(0, address=True),
    seen_by="exceptions and interrupts; XSAVES; moves with ownership",
)
LER_TO_IP = Register(
    msrs.IA32_LER_TO_IP,
    exists=always,
    reachable=always,
    reset=zero,
    read=_ler_read(1),
    write=_ler_write(1, address=True),
    seen_by="exceptions and interrupts; XSAVES; moves with ownership",
)
LER_INFO = Register(
    msrs.IA32_LER_INFO,
    exists=_arch,
    reachable=always,
    reset=zero,
    read=_ler_read(2),
    write=_ler_write(2, address=False),
    seen_by="exceptions and interrupts; XSAVES; moves with ownership",
)

# The legacy facility: the same three series, a filter and a pointer -------------------------------------------------


def _write_select(design: Design, platform: Platform, state: State, _x: int, value: int) -> State | None:
    if value & ~platform.facility.select_legal:
        return None
    return _with_file(design, state, _file(design, state)._replace(select=value))


SELECT = Register(
    msrs.MSR_LBR_SELECT,
    exists=_legacy,
    reachable=always,
    reset=zero,
    read=lambda design, state, _x: _file(design, state).select,
    write=_write_select,
    seen_by="moves with ownership",
)


def _write_tos(design: Design, platform: Platform, state: State, _x: int, value: int) -> State | None:
    if value >= platform.facility.max_depth:
        return None
    return _with_file(design, state, _file(design, state)._replace(tos=value))


TOS = Register(
    msrs.MSR_LASTBRANCH_TOS,
    exists=_legacy,
    reachable=always,
    reset=zero,
    read=lambda design, state, _x: _file(design, state).tos,
    write=_write_tos,
    seen_by="recorded branches; moves with ownership",
)
LASTBRANCH_FROM_IP = FROM_IP._replace(
    msr=msrs.MSR_LASTBRANCH_FROM_IP,
    exists=_legacy,
    write=_entry_write(0, lambda platform, value: legacy.source_writable(platform.facility, value)),
)
LASTBRANCH_TO_IP = TO_IP._replace(
    msr=msrs.MSR_LASTBRANCH_TO_IP,
    exists=_legacy,
    write=_entry_write(1, lambda platform, value: legacy.target_writable(platform.facility, value)),
)
LBR_INFO = INFO._replace(msr=msrs.MSR_LBR_INFO, exists=lambda state: state.rules.flavour in (FORMAT_INFO, FORMAT_INFO2))

# What both facilities answer to -------------------------------------------------------------------------------------

# KVM takes BTF and LBR from anyone and drops them where they do nothing (vmx_set_msr; P6, row 55).
DROPPED = msrs.DEBUGCTL_LBR | msrs.IA32_DEBUGCTL.named("BTF").mask


def _write_debugctl(design: Design, platform: Platform, state: State, _x: int, value: int) -> State | None:
    legal = DROPPED
    if state.rules.usable and state.rules.pmu >= 2:
        legal |= msrs.DEBUGCTL_FREEZE_LBRS
    if value & ~legal:
        return None
    kept = value & ~(msrs.IA32_DEBUGCTL.named("BTF").mask if _legacy(state) else DROPPED)
    if state.nested.active:
        held = value if design.strips_late else kept
        state = state._replace(nested=state.nested._replace(debugctl12=held))
    after = with_debugctl(design, platform, state, kept)
    asks = _legacy(after) and enabled(after.rules.flavour, after.guest) and not after.event
    return asked(design, platform, after) if asks else after


DEBUGCTL = Register(
    msrs.IA32_DEBUGCTL,
    exists=always,
    reachable=always,
    reset=zero,
    read=lambda _d, state, _x: state.guest.debugctl,
    write=_write_debugctl,
    seen_by="VM entry and exit (2802H); a PMI; vmcs12; bit 14 is the host's",
)
PERF_CAPABILITIES = Register(
    msrs.IA32_PERF_CAPABILITIES,
    exists=lambda state: bool(state.cpuid.pdcm),
    reachable=always,
    reset=lambda state: state.pmu.capabilities,
    read=lambda _d, state, _x: state.pmu.capabilities,
    write=refused,
    seen_by="userspace, before the first run",
)


def _write_xss(_design: Design, _platform: Platform, state: State, _x: int, value: int) -> State | None:
    if value & ~state.rules.xss:
        return None
    guest = state.guest
    after = with_guest(state, type(guest)._make((*guest[:6], value, *guest[7:])))
    if not state.running:
        return after
    lbr = state.lbr
    return with_lbr(after, type(lbr)._make((*lbr[:6], value, *lbr[7:])))


XSS = Register(
    msrs.IA32_XSS,
    exists=lambda state: state.cpuid.leaf0d1.xsaves,
    reachable=always,
    reset=zero,
    read=lambda _d, state, _x: state.guest.xss,
    write=_write_xss,
    seen_by="XSAVES and XRSTORS; CPUID.0DH.1:EBX; KVM loads it around each run",
)


def _has_global(state: State) -> bool:
    return state.rules.pmu >= 2


GLOBAL_STATUS = Register(
    msrs.IA32_PERF_GLOBAL_STATUS,
    exists=_has_global,
    reachable=always,
    reset=zero,
    read=lambda _d, state, _x: status(state),
    write=refused,
    seen_by="overflow; a PMI sets LBR_FRZ from PMU version 4 on; userspace writes it",
)


def _write_status_reset(design: Design, platform: Platform, state: State, _x: int, value: int) -> State | None:
    if value & ~status_legal(design, state):
        return None
    return with_status(platform, state, status(state) & ~value)


GLOBAL_STATUS_RESET = Register(
    msrs.IA32_PERF_GLOBAL_STATUS_RESET,
    exists=_has_global,
    reachable=always,
    reset=zero,
    read=lambda _d, _s, _x: 0,
    write=_write_status_reset,
    seen_by="IA32_PERF_GLOBAL_STATUS",
)


def _write_status_set(design: Design, platform: Platform, state: State, _x: int, value: int) -> State | None:
    if value & ~status_legal(design, state):
        return None
    return with_status(platform, state, status(state) | value)


GLOBAL_STATUS_SET = Register(
    msrs.IA32_PERF_GLOBAL_STATUS_SET,
    exists=lambda state: state.rules.pmu >= 4,
    reachable=always,
    reset=zero,
    read=lambda _d, _s, _x: 0,
    write=_write_status_set,
    seen_by="IA32_PERF_GLOBAL_STATUS",
)

REGISTERS: tuple[Register, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Register))
BY_INDEX: dict[int, tuple[Register, int]] = {
    register.msr.index + x: (register, x)
    for register in (*REGISTERS, *COUNTER_REGISTERS)
    for x in range(register.msr.count)
}
LBR_INDICES = frozenset(
    register.msr.index + x
    for register in (CTL, DEPTH, INFO, FROM_IP, TO_IP, LER_INFO)
    for x in range(register.msr.count)
)


def block(index: int) -> tuple[Register, int]:
    """Return a register's block and its number in the series; InternalError for one that is not ours."""
    found = BY_INDEX.get(index)
    if found is None:
        raise InternalError(f"MSR {index:X}H is no register of the vPMU")
    return found


def rdmsr(design: Design, state: State, index: int) -> int | None:
    """Return what a guest's RDMSR reads, or None for #GP(0)."""
    register, x = BY_INDEX.get(index) or block(index)
    if not register.exists(state) or not register.reachable(state, x):
        return None
    return register.read(design, state, x)


def wrmsr(design: Design, platform: Platform, state: State, index: int, value: int) -> State | None:
    """Return the state after a guest's WRMSR, or None for #GP(0)."""
    register, x = BY_INDEX.get(index) or block(index)
    if not register.exists(state) or not register.reachable(state, x):
        return None
    return register.write(design, platform, state, x, value)
