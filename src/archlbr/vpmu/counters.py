"""The guest's counters: enough of a PMU to count, overflow and interrupt.

`registers` has their blocks; `step` sends Count and RDPMC here. Counted are instructions, branches, cycles and
mispredicted branches, all architectural, and near branches taken. On overflow the status bit is set, and where the
control asks for it the PMI is delivered at once, which may freeze the LBRs (`freeze.pmi`) and the counters. Authority:
SDM vol. 3B, architectural performance monitoring; arch/x86/kvm/pmu.c for what KVM refuses; Intel's event list for
Golden Cove for what is not architectural.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from archlbr.arch import msrs
from archlbr.vpmu import freeze
from archlbr.vpmu.actions import Count
from archlbr.vpmu.interception import with_frozen
from archlbr.vpmu.state import Pmu, State, with_pmu

if TYPE_CHECKING:
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform

USR, OS, INT, EN = (msrs.IA32_PERFEVTSEL.named(name).mask for name in ("USR", "OS", "INT", "EN"))
# KVM takes the low 32 bits but ANY (arch/x86/kvm/vmx/pmu_intel.c, intel_pmu_refresh: reserved_bits).
EVTSEL_LEGAL = 0xFFFFFFFF & ~msrs.IA32_PERFEVTSEL.named("ANY").mask
FW_WRITE = msrs.IA32_PERF_CAPABILITIES.named("FW_WRITE").mask
FIXED_PMC = 1 << 30

# Event and unit mask -> what of a Count it counts, by its place there (SDM vol. 3B, architectural events; 01C0H
# INST_RETIRED.PREC_DIST and 20C4H BR_INST_RETIRED.NEAR_TAKEN of Golden Cove). The fixed counters likewise. Another
# event counts 0.
INSTRUCTIONS, BRANCHES, CYCLES, TAKEN, MISPREDICTED = (
    Count._fields.index(name) for name in ("instructions", "branches", "cycles", "taken", "mispredicted")
)
EVENTS = {
    0x00C0: INSTRUCTIONS, 0x01C0: INSTRUCTIONS, 0x00C4: BRANCHES, 0x20C4: TAKEN, 0x00C5: MISPREDICTED,
    0x003C: CYCLES, 0x013C: CYCLES,
}  # fmt: skip
FIXED_EVENTS = (INSTRUCTIONS, CYCLES, CYCLES)
_INV, _CMASK = (msrs.IA32_PERFEVTSEL.named(name) for name in ("INV", "CMASK"))


def status_legal(design: Design, state: State) -> int:
    """Return the bits of GLOBAL_STATUS that can be 1: counters, two conditions, and LBR_FRZ where it is emulated."""
    frz = msrs.LBR_FRZ if state.rules.pmu >= 4 and design.freezes_v4 and state.rules.usable else 0
    counters = msrs.CTR_FRZ if state.rules.pmu >= 4 and state.rules.freezes_counters else 0
    return global_legal(state) | 3 << 62 | frz | counters


def global_legal(state: State) -> int:
    """Return the bits of GLOBAL_CTRL: one a counter."""
    return (1 << state.rules.gp) - 1 | ((1 << state.rules.fixed) - 1) << 32


def fixed_ctrl_legal(state: State) -> int:
    """Return the bits of FIXED_CTR_CTRL: enable and PMI of each fixed counter; ANY is refused as KVM refuses it."""
    legal = 0
    for x in range(state.rules.fixed):
        legal |= 0xB << 4 * x
    return legal


def status(state: State) -> int:
    """Return IA32_PERF_GLOBAL_STATUS as the guest reads it."""
    return state.pmu.status | state.guest.frozen * msrs.LBR_FRZ


def with_status(platform: Platform, state: State, value: int) -> State:
    """Return the state with another GLOBAL_STATUS, LBR_FRZ included."""
    frozen = int(bool(value & msrs.LBR_FRZ))
    state = with_pmu(state, state.pmu._replace(status=value & ~msrs.LBR_FRZ))
    thawed = not (frozen or state.guest.frozen or state.lbr.frozen)
    return state if thawed else with_frozen(platform, state, frozen)


def rdpmc(state: State, counter: int) -> int | None:
    """Return what RDPMC reads, or None for #GP: counter n, or 40000000H + n."""
    if not state.rules.pmu:
        return None
    values = state.pmu.fixed if counter & FIXED_PMC else state.pmu.gp
    x = counter & ~FIXED_PMC
    return values[x] if x < len(values) else None


class Running(NamedTuple):
    """A counter that counts. bit: in GLOBAL_STATUS. event: what it counts. rings: USR and OS of PERFEVTSEL. asks: 1
    when its overflow asks for a PMI.
    """

    bit: int
    event: int
    rings: int
    asks: int


def running(state: State) -> tuple[Running, ...]:
    """Return the counters that count now, the general-purpose ones first."""
    pmu = state.pmu
    if pmu.status & msrs.CTR_FRZ:
        return ()
    enabled = pmu.global_ctrl if state.rules.pmu >= 2 else (1 << 64) - 1
    return _selected(pmu.selects, pmu.fixed_ctrl, enabled, len(pmu.fixed))


# With a mask, cycles are counted in which the event happened so often, or less often with INV (SDM vol. 3B, 20.2.1.1).
# A cycle of the model's has one instruction, and so one event at most.
def _event(select: int) -> int | None:
    event = EVENTS.get(select & 0xFFFF)
    mask = select >> _CMASK.low & 0xFF
    if event is None or mask == 0:
        return event
    if select & _INV.mask:
        return CYCLES if mask > 1 else None
    return event if mask == 1 else None


@lru_cache(maxsize=1024)
def _selected(selects: tuple[int, ...], fixed_ctrl: int, enabled: int, fixed: int) -> tuple[Running, ...]:
    # The controls change far more rarely than the counters are looked at.
    found = []
    for x, select in enumerate(selects):
        event = _event(select)
        if event is not None and select & EN and select & (USR | OS) and enabled >> x & 1:
            found.append(Running(x, event, select & (USR | OS), int(bool(select & INT))))
    for x in range(min(fixed, len(FIXED_EVENTS))):
        control = fixed_ctrl >> 4 * x & 0xF
        if control & 3 and enabled >> 32 + x & 1:
            found.append(Running(32 + x, FIXED_EVENTS[x], OS * (control & 1) | USR * (control >> 1 & 1), control >> 3))
    return tuple(found)


def left(state: State, counter: Running) -> int:
    """Return how many events are left until a counter overflows."""
    if counter.bit < 32:
        return state.rules.gp_mask + 1 - state.pmu.gp[counter.bit]
    return state.rules.fixed_mask + 1 - state.pmu.fixed[counter.bit - 32]


def count(design: Design, platform: Platform, state: State, action: Count) -> tuple[State, int]:
    """Return the state after the guest retired what `action` says, and the status bits that asked for a PMI."""
    counters = running(state)
    if not counters:
        return state, 0
    ring = USR if action.cpl else OS
    pmu, rules = state.pmu, state.rules
    held_gp, selects, held_fixed, fixed_ctrl, global_ctrl, kept, capabilities = pmu
    overflowed = asks = 0
    gp, fixed = list(held_gp), list(held_fixed)
    for bit, event, rings, asked in counters:
        if rings & ring:
            if bit < 32:
                values, x, mask = gp, bit, rules.gp_mask
            else:
                values, x, mask = fixed, bit - 32, rules.fixed_mask
            value = values[x] + action[event]
            if value > mask:
                value &= mask
                overflowed |= 1 << bit
                asks |= asked << bit
            values[x] = value
    kept = kept | overflowed if rules.pmu >= 2 else 0
    counted = (tuple(gp), selects, tuple(fixed), fixed_ctrl, global_ctrl, kept, capabilities)
    state = with_pmu(state, tuple.__new__(Pmu, counted))
    return (_frozen(freeze.pmi(design, platform, state)) if asks else state), asks


# A PMI stops the counters where the guest's DEBUGCTL[12] asks for it: by CTR_FRZ from version 4 on, by GLOBAL_CTRL
# before (SDM vol. 3B, "Freezing LBR and performance counters on PMI").
def _frozen(state: State) -> State:
    if not state.guest.debugctl & msrs.DEBUGCTL_FREEZE_PERFMON:
        return state
    pmu = state.pmu
    if state.rules.pmu >= 4:
        return with_pmu(state, pmu._replace(status=pmu.status | msrs.CTR_FRZ))
    return with_pmu(state, pmu._replace(global_ctrl=0))
