"""The facility's configuration and its state: everything that persists between two actions.

`Facility` is what the processor is (CPUID.1CH, PMU version, flavour) and never changes while it runs; `State` is what
its registers hold. `step` and `compiled` take both. Authority: reference architecture.md 1, 2 and 5.
"""

from __future__ import annotations

from typing import NamedTuple

from archlbr.arch import msrs
from archlbr.arch.cpuid import Leaf1C
from archlbr.arch.xsave import MOST_ENTRIES
from archlbr.errors import InternalError

# IA32_PERF_CAPABILITIES[5:0]. 3FH says "no model-specific format": partly confirmed (architecture.md 1.2).
ARCH = 0x3F
FORMAT_32, FORMAT_LIP, FORMAT_EIP, FORMAT_EIP_FLAGS, FORMAT_EIP_FLAGS2, FORMAT_INFO, FORMAT_TIME, FORMAT_INFO2 = range(
    8
)

# DEBUGCTL[5:2] other than BLD and [63:16] are reserved. The freeze bits came with PMU version 2 (UNCONFIRMED, mem).
_DEBUGCTL = msrs.IA32_DEBUGCTL.mask
_FREEZE = msrs.DEBUGCTL_FREEZE_LBRS | msrs.DEBUGCTL_FREEZE_PERFMON


class Entry(NamedTuple):
    """One record as its three registers hold it; FROM = 0 marks an entry that holds none."""

    source: int
    target: int
    info: int


EMPTY = Entry(0, 0, 0)


class Facility(NamedTuple):
    """What the processor is; built by `architectural` or `legacy`.

    format: ARCH, or 0..7 for the legacy facility. leaf: CPUID.1CH, all 0 for legacy. pmu_version: CPUID.0AH:EAX[7:0].
    tsx: 1 when transactions are there. linear_width: 48, or 57 with CR4.LA57. xsaves: 1 when XSAVES serves component
    15. The rest is derived: legal bits of CTL, LBR_SELECT and DEBUGCTL, the largest depth, and the event lanes of
    INFO (2 bits a counter, at bit 0) that may count.
    """

    format: int
    leaf: Leaf1C
    pmu_version: int
    tsx: int
    linear_width: int
    xsaves: int
    max_depth: int
    ctl_legal: int
    select_legal: int
    debugctl_legal: int
    lanes: int


def architectural(
    leaf: Leaf1C, pmu_version: int = 5, *, tsx: bool = False, linear_width: int = 48, xsaves: bool = True
) -> Facility:
    """Return an architectural facility; InternalError when the leaf offers no depth, or XSAVES cannot hold it."""
    if not leaf.depths:
        raise InternalError(f"CPUID.1CH:EAX {leaf.eax:#x} offers no depth")
    if xsaves and leaf.max_depth > MOST_ENTRIES:
        raise InternalError(f"component 15 holds {MOST_ENTRIES} entries, the leaf offers {leaf.max_depth}")
    legal = msrs.CTL_LBREN
    legal |= (msrs.CTL_OS | msrs.CTL_USR) * leaf.cpl_filter
    legal |= msrs.CTL_KINDS * leaf.branch_filter
    legal |= msrs.CTL_CALL_STACK * leaf.call_stack
    lanes = 0
    for counter in range(4):
        if leaf.event_counters >> counter & 1:
            lanes |= 3 << 2 * counter
    return Facility(
        ARCH, leaf, pmu_version, int(tsx), linear_width, int(xsaves), leaf.max_depth, legal, 0,
        _debugctl_legal(pmu_version), lanes,
    )  # fmt: skip


def legacy(
    form: int, depth: int, pmu_version: int = 2, *, tsx: bool = False, linear_width: int = 48, call_stack: bool = True
) -> Facility:
    """Return a legacy facility; InternalError unless format is 0..7 and depth 4, 8, 16 or 32."""
    if not 0 <= form <= 7 or depth not in (4, 8, 16, 32):
        raise InternalError(f"there is no legacy facility of format {form} and depth {depth}")
    select = msrs.MSR_LBR_SELECT.mask & ~(0 if call_stack else msrs.SELECT_CALL_STACK)
    return Facility(
        form, Leaf1C(), pmu_version, int(tsx), linear_width, 0, depth, 0, select, _debugctl_legal(pmu_version), 0
    )


def _debugctl_legal(pmu_version: int) -> int:
    return _DEBUGCTL if pmu_version >= 2 else _DEBUGCTL & ~_FREEZE


class State(NamedTuple):
    """What the registers hold.

    ctl: IA32_LBR_CTL. depth: IA32_LBR_DEPTH, or the fixed depth of a legacy facility. stack: `depth` entries, newest
    first; by register number in the legacy facility, where `tos` is the newest. ler: the LER registers. debugctl:
    IA32_DEBUGCTL. frozen: GLOBAL_STATUS.LBR_FRZ. xss: IA32_XSS. select: MSR_LBR_SELECT. smm: 0, or 1 | saved LBREn <<
    1 | DEBUGCTL saved << 2; smm_debugctl: that saved value. since: model clock of the newest entry while `timed` is
    1, else 0. pending: event counts since that entry, 2 bits a counter.
    """

    ctl: int
    depth: int
    stack: tuple[Entry, ...]
    ler: Entry
    debugctl: int
    frozen: int
    xss: int
    select: int
    tos: int
    smm: int
    smm_debugctl: int
    since: int
    timed: int
    pending: int


def initial(facility: Facility) -> State:
    """Return the state after a cold reset: all 0, DEPTH at its maximum (architecture.md 3.6)."""
    depth = facility.max_depth
    return State(0, depth, (EMPTY,) * depth, EMPTY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def recording(facility: Facility, state: State) -> int:
    """Return 1 when branches are recorded: the enable bit, and not LBR_FRZ (architecture.md 7, fact 6)."""
    enable = state.ctl if facility.format == ARCH else state.debugctl
    return enable & 1 & ~state.frozen


def settled(facility: Facility, state: State) -> State:
    """Return the state with its cycle and event counts forgotten if recording has stopped.

    The next entry then has CYC_CNT_VALID = 0. When hardware invalidates the count is UNCONFIRMED (architecture.md
    3.4).
    """
    if recording(facility, state) or not (state.timed or state.pending):
        return state
    return state._replace(since=0, timed=0, pending=0)


def elapsed(since: int, clock: int) -> int:
    """Return the cycles between two entries, saturating at FFFFH (architecture.md 3.4)."""
    return min((clock - since) & (1 << 64) - 1, msrs.CYC_CNT_MAX)


def newest_first(facility: Facility, state: State) -> tuple[Entry, ...]:
    """Return all entries, newest first, whatever the flavour."""
    if facility.format == ARCH:
        return state.stack
    cut = state.tos + 1
    return state.stack[:cut][::-1] + state.stack[cut:][::-1]
