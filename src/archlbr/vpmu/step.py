"""The guest's register accesses as the hypervisor lets them through: one pure step.

`host` feeds it what the guest executes; accesses that pass reach `lbr.step`. FROM, TO and INFO pass through while the
guest owns the LBRs and are intercepted otherwise; CTL and DEPTH are always intercepted (reference kvm-series.md A,
patches 05, 06 and 07). An intercepted entry reads 0 and keeps nothing written (intel_pmu_handle_lbr_msrs_access in
arch/x86/kvm/vmx/pmu_intel.c); the index check is the processor's in both cases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs
from archlbr.arch.outcomes import DONE, GP, Outcome, Value
from archlbr.lbr import step as facility_step
from archlbr.lbr.actions import Rdmsr, Wrmsr

if TYPE_CHECKING:
    from archlbr.lbr.state import Facility, State
    from archlbr.vpmu.state import Vpmu

_ENTRIES = (msrs.IA32_LBR_FROM_IP, msrs.IA32_LBR_TO_IP, msrs.IA32_LBR_INFO)


def is_entry(index: int) -> int:
    """Return 1 when an MSR index is one of the FROM, TO and INFO registers."""
    return int(any(block.index <= index < block.index + msrs.ENTRIES for block in _ENTRIES))


def access(facility: Facility, vpmu: Vpmu, lbr: State, action: Rdmsr | Wrmsr) -> tuple[State, Outcome]:
    """Return the LBR state after a guest's RDMSR or WRMSR, and what the guest sees."""
    after, outcome = facility_step.step(facility, lbr, action)
    if vpmu.owned or not is_entry(action.msr) or outcome == GP:
        return after, outcome
    return lbr, Value(0) if isinstance(action, Rdmsr) else DONE
