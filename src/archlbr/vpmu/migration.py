"""What userspace reads and writes of a vCPU: KVM_GET_MSRS, KVM_SET_MSRS, the save list, PERF_CAPABILITIES.

`step` sends the ioctls here; `snapshot` is a VMM that uses them. A value comes from where the guest's is, never from a
processor that another owns, and from any thread (rows 74, 75). What a guest may set is in the save list, in an order
that can be written back: XSS, DEPTH, records, CTL last (decision 024).
Authority: reference kvm-series.md P2, P8, P14, B 16, B 17; rows 7, 8, 14 to 16, 25, 34, 70 to 75, 99.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs
from archlbr.lbr.state import ARCH
from archlbr.vpmu import cpuid as leaves
from archlbr.vpmu import nested, registers
from archlbr.vpmu.counter_registers import A_PMC
from archlbr.vpmu.counters import status_legal, with_status
from archlbr.vpmu.cpuid import offers, supported_xss

if TYPE_CHECKING:
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform, State

LBR_FMT = msrs.IA32_PERF_CAPABILITIES.named("LBR_FMT").mask
FW_WRITE = msrs.IA32_PERF_CAPABILITIES.named("FW_WRITE").mask
_PMU = (msrs.IA32_PERFEVTSEL, msrs.IA32_PMC, msrs.IA32_FIXED_CTR, msrs.IA32_FIXED_CTR_CTRL,
        msrs.IA32_PERF_GLOBAL_STATUS, msrs.IA32_PERF_GLOBAL_CTRL)  # fmt: skip


def capabilities(design: Design, platform: Platform) -> int:
    """Return IA32_PERF_CAPABILITIES as KVM can offer it: LBR_FMT and full-width writes.

    LBR_FMT is hidden where the host has the architectural facility without both controls (P10), without a PMU, or on
    another vendor's processor.
    """
    if not platform.pmu:
        return 0
    shown = platform.capabilities & FW_WRITE
    hidden = platform.facility.format == ARCH and not offers(design, platform)
    return shown if hidden else shown | platform.capabilities & LBR_FMT


def save_list(design: Design, platform: Platform) -> tuple[int, ...]:
    """Return KVM_GET_MSR_INDEX_LIST's share of the LBRs and the PMU, in the order to restore it in.

    Series v2 has CTL before DEPTH, and no records (P8).
    """
    listed: list[int] = []
    if platform.pmu:
        leaf = platform.cpuid.leaf0a
        counts = {msrs.IA32_PERFEVTSEL: leaf.gp_counters, msrs.IA32_PMC: leaf.gp_counters,
                  msrs.IA32_FIXED_CTR: leaf.fixed_counters}  # fmt: skip
        listed.append(msrs.IA32_PERF_CAPABILITIES.index)
        listed += [msr.index + x for msr in _PMU for x in range(min(counts.get(msr, 1), msr.count))]
    if design.lists_debugctl:
        listed.append(msrs.IA32_DEBUGCTL.index)
    if supported_xss(design, platform):
        listed.append(msrs.IA32_XSS.index)
    if not offers(design, platform):
        return tuple(listed)
    if not design.lists_records:
        return (*listed, msrs.IA32_LBR_CTL.index, msrs.IA32_LBR_DEPTH.index)
    listed.append(msrs.IA32_LBR_DEPTH.index)
    listed += [msrs.IA32_LER_FROM_IP.index, msrs.IA32_LER_TO_IP.index, msrs.IA32_LER_INFO.index]
    for block in (msrs.IA32_LBR_FROM_IP, msrs.IA32_LBR_TO_IP, msrs.IA32_LBR_INFO):
        listed += [block.at(x) for x in range(platform.facility.max_depth)]
    return (*listed, msrs.IA32_LBR_CTL.index)


def host_read(design: Design, platform: Platform, state: State, index: int) -> int | None:
    """Return what KVM_GET_MSRS reads, or None when it does not know the register.

    A listed register that the guest does not have reads 0 (rows 14, 16; UNCONFIRMED that DEPTH's rule is the same).
    """
    if _is_l1_ctl(design, platform, state, index):
        return state.nested.l1_ctl
    register, x = registers.block(index)
    if register.exists(state) and register.reachable(state, x):
        return register.read(design, state, x)
    return 0 if index in save_list(design, platform) else None


def host_write(design: Design, platform: Platform, state: State, index: int, value: int) -> State | None:
    """Return the state after KVM_SET_MSRS, or None when it refuses.

    Values are judged as the guest's are (row 34). A listed register that the guest does not have takes 0.
    """
    if index == msrs.IA32_PERF_CAPABILITIES.index:
        return _write_capabilities(design, platform, state, value)
    if _is_l1_ctl(design, platform, state, index):
        legal = state.rules.facility.ctl_legal
        return None if value & ~legal else state._replace(nested=state.nested._replace(l1_ctl=value))
    register, x = registers.block(index)
    if register.exists(state) and register.reachable(state, x):
        if register.msr is msrs.IA32_PMC:
            # Userspace writes all bits of a counter, the guest 32 of them (kvm_pmu, intel_pmu_set_msr).
            return A_PMC.write(design, platform, state, x, value)
        if index == msrs.IA32_PERF_GLOBAL_STATUS.index:
            legal = status_legal(design, state)
            return None if value & ~legal else with_status(platform, state, value)
        return register.write(design, platform, state, x, value)
    return state if value == 0 and index in save_list(design, platform) else None


def _is_l1_ctl(design: Design, platform: Platform, state: State, index: int) -> bool:
    """Say whether userspace means L1's IA32_LBR_CTL: L2 runs and has none."""
    return (
        index == msrs.IA32_LBR_CTL.index and bool(nested.absent(design, platform, state)) and bool(state.rules.usable)
    )


def _write_capabilities(design: Design, platform: Platform, state: State, value: int) -> State | None:
    """Take LBR_FMT 0 or the host's, full-width writes if the host has them, and no other bit; nothing after a run."""
    offered = capabilities(design, platform)
    if not state.cpuid.pdcm:
        return state if value == 0 else None
    if value & ~offered & ~LBR_FMT or value & LBR_FMT not in (0, offered & LBR_FMT):
        return None
    if state.ran:
        return state if value == state.pmu.capabilities else None
    rules = leaves.rules(design, platform, state.cpuid, value)
    return state._replace(pmu=state.pmu._replace(capabilities=value), rules=rules)
