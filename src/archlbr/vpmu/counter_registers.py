"""The counters' registers, one block a register, in the order of `arch.msrs`: what only the PMU has.

`registers` joins them to its own; `counters` counts. GLOBAL_STATUS and its two companions stand in `registers`, since
the LBRs share them. Authority: SDM vol. 4; arch/x86/kvm/vmx/pmu_intel.c for what KVM refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs
from archlbr.vpmu.block import Register, always, zero
from archlbr.vpmu.counters import EVTSEL_LEGAL, FW_WRITE, fixed_ctrl_legal, global_legal
from archlbr.vpmu.state import FIXED_AT, FIXED_CTRL_AT, GLOBAL_CTRL_AT, GP_AT, SELECTS_AT, State, with_counters

if TYPE_CHECKING:
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform


def _has_gp(state: State) -> bool:
    return state.rules.pmu >= 1


def _has_global(state: State) -> bool:
    return state.rules.pmu >= 2


def _gp_there(state: State, x: int) -> bool:
    return x < state.rules.gp


def _fixed_there(state: State, x: int) -> bool:
    return x < state.rules.fixed


def _put(row: tuple[int, ...], x: int, value: int) -> tuple[int, ...]:
    return row[:x] + (value,) + row[x + 1 :]  # noqa: RUF005 a sum of tuples is the fastest way


def _write_pmc(_design: Design, _platform: Platform, state: State, x: int, value: int) -> State | None:
    # Without full-width writes bit 31 extends into the rest (SDM vol. 3B, IA32_PERF_CAPABILITIES.FW_WRITE).
    low = value & 0xFFFFFFFF
    extended = (low | -(low & 1 << 31)) & state.rules.gp_mask
    return with_counters(state, GP_AT, _put(state.pmu.gp, x, extended))


PMC = Register(
    msrs.IA32_PMC,
    exists=_has_gp,
    reachable=_gp_there,
    reset=zero,
    read=lambda _d, state, x: state.pmu.gp[x],
    write=_write_pmc,
    seen_by="counted events; RDPMC",
)


def _write_a_pmc(_design: Design, _platform: Platform, state: State, x: int, value: int) -> State | None:
    if value & ~state.rules.gp_mask:
        return None
    return with_counters(state, GP_AT, _put(state.pmu.gp, x, value))


A_PMC = Register(
    msrs.IA32_A_PMC,
    exists=lambda state: bool(state.rules.pmu and state.pmu.capabilities & FW_WRITE),
    reachable=_gp_there,
    reset=zero,
    read=lambda _d, state, x: state.pmu.gp[x],
    write=_write_a_pmc,
    seen_by="IA32_PMCx",
)


def _write_select(_design: Design, _platform: Platform, state: State, x: int, value: int) -> State | None:
    # Bit 35, event logging into LBR_INFO, is not virtualized: leaf 1CH:ECX[19:16] offers no counter.
    if value & ~EVTSEL_LEGAL:
        return None
    return with_counters(state, SELECTS_AT, _put(state.pmu.selects, x, value))


PERFEVTSEL = Register(
    msrs.IA32_PERFEVTSEL,
    exists=_has_gp,
    reachable=_gp_there,
    reset=zero,
    read=lambda _d, state, x: state.pmu.selects[x],
    write=_write_select,
    seen_by="nobody",
)


def _write_fixed(_design: Design, _platform: Platform, state: State, x: int, value: int) -> State | None:
    return with_counters(state, FIXED_AT, _put(state.pmu.fixed, x, value & state.rules.fixed_mask))


FIXED_CTR = Register(
    msrs.IA32_FIXED_CTR,
    exists=_has_global,
    reachable=_fixed_there,
    reset=zero,
    read=lambda _d, state, x: state.pmu.fixed[x],
    write=_write_fixed,
    seen_by="counted events; RDPMC",
)


def _write_fixed_ctrl(_design: Design, _platform: Platform, state: State, _x: int, value: int) -> State | None:
    return None if value & ~fixed_ctrl_legal(state) else with_counters(state, FIXED_CTRL_AT, value)


FIXED_CTR_CTRL = Register(
    msrs.IA32_FIXED_CTR_CTRL,
    exists=_has_global,
    reachable=always,
    reset=zero,
    read=lambda _d, state, _x: state.pmu.fixed_ctrl,
    write=_write_fixed_ctrl,
    seen_by="nobody",
)


def _write_global_ctrl(_design: Design, _platform: Platform, state: State, _x: int, value: int) -> State | None:
    return None if value & ~global_legal(state) else with_counters(state, GLOBAL_CTRL_AT, value)


GLOBAL_CTRL = Register(
    msrs.IA32_PERF_GLOBAL_CTRL,
    exists=_has_global,
    reachable=always,
    reset=lambda state: (1 << state.rules.gp) - 1,
    read=lambda _d, state, _x: state.pmu.global_ctrl,
    write=_write_global_ctrl,
    seen_by="VM entry and exit, where KVM loads it",
)

COUNTER_REGISTERS: tuple[Register, ...] = (PMC, A_PMC, PERFEVTSEL, FIXED_CTR, FIXED_CTR_CTRL, GLOBAL_CTRL)
