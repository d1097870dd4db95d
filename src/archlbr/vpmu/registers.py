"""The hypervisor's word on each register, one block a register, each block in the same order.

The slots are those of `block.Register`, and the blocks stand in the order of `lbr.registers`: read side by side, their
difference is the virtualization. `step` sends the guest's RDMSR and WRMSR here, `migration` userspace's.
Authority: reference kvm-series.md P4 to P8, P14.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs
from archlbr.errors import InternalError
from archlbr.lbr import legacy
from archlbr.lbr.state import ARCH, EMPTY, FORMAT_INFO, FORMAT_INFO2
from archlbr.vpmu.block import Register, always, refused, zero
from archlbr.vpmu.counter_registers import COUNTER_REGISTERS
from archlbr.vpmu.counters import status, status_legal, with_status
from archlbr.vpmu.entries import FROM, TO, canonical, entry_read, entry_write, file_of, ler_read, ler_write, with_file
from archlbr.vpmu.entries import INFO as INFO_AT
from archlbr.vpmu.interception import decided, enabled, guest_ctl, with_ctl, with_debugctl
from archlbr.vpmu.ownership import asked, resets_hardware
from archlbr.vpmu.state import XSS_AT, State, changed, with_both

if TYPE_CHECKING:
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
    if value not in state.rules.depths:
        return None
    lbr = _deep(state.lbr, value) if resets_hardware(design, state) else state.lbr
    return decided(design, with_both(state, lbr, _deep(state.guest, value)))


def _deep(file: lbr_state.State, depth: int) -> lbr_state.State:
    # lbr.freeze.wiped at another DEPTH, from slices: this is on the hot path.
    return tuple.__new__(type(file), (file[0], depth, (EMPTY,) * depth) + file[3:11] + (0, 0, 0))  # noqa: RUF005


DEPTH = Register(
    msrs.IA32_LBR_DEPTH,
    exists=_arch,
    reachable=always,
    reset=lambda state: state.rules.facility.max_depth,
    read=lambda _d, state, _x: state.guest.depth,
    write=_write_depth,
    seen_by="XSAVES writes it, XRSTORS only compares it; moves with ownership, the entries after it",
)


_SEEN_BY = "recorded branches; DEPTH; XSAVES; moves with ownership; passed through while owned"

INFO = Register(
    msrs.IA32_LBR_INFO,
    exists=_arch,
    reachable=_below_depth,
    reset=zero,
    read=entry_read(INFO_AT),
    write=entry_write(INFO_AT, None),
    seen_by=_SEEN_BY,
)
FROM_IP = Register(
    msrs.IA32_LBR_FROM_IP,
    exists=_arch,
    reachable=_below_depth,
    reset=zero,
    read=entry_read(FROM),
    write=entry_write(FROM, canonical),
    seen_by=_SEEN_BY,
)
TO_IP = Register(
    msrs.IA32_LBR_TO_IP,
    exists=_arch,
    reachable=_below_depth,
    reset=zero,
    read=entry_read(TO),
    write=entry_write(TO, canonical),
    seen_by=_SEEN_BY,
)


LER_FROM_IP = Register(
    msrs.IA32_LER_FROM_IP,
    exists=always,
    reachable=always,
    reset=zero,
    read=ler_read(FROM),
    write=ler_write(FROM, address=True),
    seen_by="exceptions and interrupts; XSAVES; moves with ownership",
)
LER_TO_IP = Register(
    msrs.IA32_LER_TO_IP,
    exists=always,
    reachable=always,
    reset=zero,
    read=ler_read(TO),
    write=ler_write(TO, address=True),
    seen_by="exceptions and interrupts; XSAVES; moves with ownership",
)
LER_INFO = Register(
    msrs.IA32_LER_INFO,
    exists=lambda state: bool(_arch(state) and state.rules.ler),
    reachable=always,
    reset=zero,
    read=ler_read(INFO_AT),
    write=ler_write(INFO_AT, address=False),
    seen_by="exceptions and interrupts; XSAVES; moves with ownership",
)

# The legacy facility: the same three series, a filter and a pointer -------------------------------------------------


def _write_select(design: Design, platform: Platform, state: State, _x: int, value: int) -> State | None:
    if value & ~platform.facility.select_legal:
        return None
    file = file_of(design, state)
    return state if file is None else with_file(design, state, file._replace(select=value))


SELECT = Register(
    msrs.MSR_LBR_SELECT,
    exists=_legacy,
    reachable=always,
    reset=zero,
    read=lambda design, state, _x: getattr(file_of(design, state), "select", 0),
    write=_write_select,
    seen_by="moves with ownership",
)


def _write_tos(design: Design, platform: Platform, state: State, _x: int, value: int) -> State | None:
    if value >= platform.facility.max_depth:
        return None
    file = file_of(design, state)
    return state if file is None else with_file(design, state, file._replace(tos=value))


TOS = Register(
    msrs.MSR_LASTBRANCH_TOS,
    exists=_legacy,
    reachable=always,
    reset=zero,
    read=lambda design, state, _x: getattr(file_of(design, state), "tos", 0),
    write=_write_tos,
    seen_by="recorded branches; moves with ownership",
)
LASTBRANCH_FROM_IP = FROM_IP._replace(
    msr=msrs.MSR_LASTBRANCH_FROM_IP,
    exists=_legacy,
    write=entry_write(FROM, lambda platform, value: legacy.source_writable(platform.facility, value)),
)
LASTBRANCH_TO_IP = TO_IP._replace(
    msr=msrs.MSR_LASTBRANCH_TO_IP,
    exists=_legacy,
    write=entry_write(TO, lambda platform, value: legacy.target_writable(platform.facility, value)),
)
LBR_INFO = INFO._replace(msr=msrs.MSR_LBR_INFO, exists=lambda state: state.rules.flavour in (FORMAT_INFO, FORMAT_INFO2))

# What both facilities answer to -------------------------------------------------------------------------------------

# KVM takes BTF and LBR from anyone and drops them where they do nothing (vmx_set_msr; P6, row 55).
BTF = msrs.IA32_DEBUGCTL.named("BTF").mask
DROPPED = msrs.DEBUGCTL_LBR | BTF


def _write_debugctl(design: Design, platform: Platform, state: State, _x: int, value: int) -> State | None:
    legal = DROPPED
    if state.rules.usable and state.rules.pmu >= 2:
        legal |= msrs.DEBUGCTL_FREEZE_LBRS
    if state.rules.freezes_counters:
        legal |= msrs.DEBUGCTL_FREEZE_PERFMON
    if value & ~legal:
        return None
    kept = value & ~(BTF if _legacy(state) else DROPPED)
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
    guest, lbr = state.guest, state.lbr
    guest = changed(guest, XSS_AT, value)
    if state.running:
        lbr = changed(lbr, XSS_AT, value)
    return with_both(state, lbr, guest)


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
