"""The guest's counters: enough of a PMU to count, overflow and interrupt.

`registers` has their blocks; `step` sends Count and RDPMC here. Counting is of three events, all architectural:
instructions, taken branches, cycles. On overflow the status bit is set, and where the control asks for it the PMI is
delivered at once, which may freeze the LBRs (`freeze.pmi`). Authority: SDM vol. 3B, architectural performance
monitoring; arch/x86/kvm/pmu.c for what KVM refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs
from archlbr.vpmu import freeze
from archlbr.vpmu.interception import with_frozen
from archlbr.vpmu.state import State, with_pmu

if TYPE_CHECKING:
    from archlbr.vpmu.actions import Count
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform

USR, OS, INT, EN = (msrs.IA32_PERFEVTSEL.named(name).mask for name in ("USR", "OS", "INT", "EN"))
# KVM takes the low 32 bits but ANY (arch/x86/kvm/vmx/pmu_intel.c, intel_pmu_refresh: reserved_bits).
EVTSEL_LEGAL = 0xFFFFFFFF & ~msrs.IA32_PERFEVTSEL.named("ANY").mask
FW_WRITE = msrs.IA32_PERF_CAPABILITIES.named("FW_WRITE").mask
FIXED_PMC = 1 << 30

# Event and unit mask -> what of a Count it counts (SDM vol. 3B, architectural events). The fixed counters likewise.
INSTRUCTIONS, BRANCHES, CYCLES = range(3)
EVENTS = {0x00C0: INSTRUCTIONS, 0x00C4: BRANCHES, 0x003C: CYCLES, 0x013C: CYCLES}
FIXED_EVENTS = (INSTRUCTIONS, CYCLES, CYCLES)


def status_legal(design: Design, state: State) -> int:
    """Return the bits of GLOBAL_STATUS that can be 1: counters, two conditions, and LBR_FRZ where it is emulated."""
    frz = msrs.LBR_FRZ if state.rules.pmu >= 4 and design.freezes_v4 and state.rules.usable else 0
    return global_legal(state) | 3 << 62 | frz


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
    state = with_pmu(state, state.pmu._replace(status=value & ~msrs.LBR_FRZ))
    return with_frozen(platform, state, int(bool(value & msrs.LBR_FRZ)))


def rdpmc(state: State, counter: int) -> int | None:
    """Return what RDPMC reads, or None for #GP: counter n, or 40000000H + n."""
    if not state.rules.pmu:
        return None
    values = state.pmu.fixed if counter & FIXED_PMC else state.pmu.gp
    x = counter & ~FIXED_PMC
    return values[x] if x < len(values) else None


def count(design: Design, platform: Platform, state: State, action: Count) -> tuple[State, int]:
    """Return the state after the guest retired what `action` says, and the status bits that asked for a PMI."""
    amounts = (action.instructions, action.branches, action.cycles)
    ring = USR if action.cpl else OS
    pmu, rules = state.pmu, state.rules
    overflowed = asks = 0
    gp, fixed = list(pmu.gp), list(pmu.fixed)
    for x, select in enumerate(pmu.selects):
        event = EVENTS.get(select & 0xFFFF)
        if event is None or not select & EN or not select & ring or not _on(state, x):
            continue
        gp[x], over = _advanced(gp[x], amounts[event], rules.gp_mask)
        overflowed |= over << x
        asks |= (over << x) if select & INT else 0
    for x in range(min(len(fixed), len(FIXED_EVENTS))):
        control = pmu.fixed_ctrl >> 4 * x & 0xF
        if not control & (2 if action.cpl else 1) or not _on(state, 32 + x):
            continue
        fixed[x], over = _advanced(fixed[x], amounts[FIXED_EVENTS[x]], rules.fixed_mask)
        overflowed |= over << 32 + x
        asks |= (over << 32 + x) if control & 8 else 0
    kept = pmu.status | overflowed if rules.pmu >= 2 else 0
    state = with_pmu(state, pmu._replace(gp=tuple(gp), fixed=tuple(fixed), status=kept))
    return (freeze.pmi(design, platform, state) if asks else state), asks


def _on(state: State, bit: int) -> int:
    return state.pmu.global_ctrl >> bit & 1 if state.rules.pmu >= 2 else 1


def _advanced(value: int, amount: int, mask: int) -> tuple[int, int]:
    total = value + amount
    return total & mask, int(total > mask)
