"""The facility, the vPMU and perf composed: one state, pure steps, requests routed as values.

`machine` runs it, through its compiled twin (`machine.pmi`), for each sample. Here a sample is one step: the counter's
PMI freezes the stack, the profiler's handler reads it through the vPMU, and clearing LBR_FRZ, or setting LBREn again
where the PMU is older, lets it go on (reference architecture.md 3.6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from archlbr.arch import msrs
from archlbr.lbr import step as facility_step
from archlbr.lbr.actions import Pmi, Rdmsr, Thaw, Wrmsr
from archlbr.perf.handler import read_stack
from archlbr.vpmu import step as vpmu_step

if TYPE_CHECKING:
    from archlbr.arch.outcomes import Outcome
    from archlbr.lbr.state import Entry, Facility, State
    from archlbr.vpmu.state import Vpmu


class Host(NamedTuple):
    """One processor with its LBRs and the vPMU in front of them."""

    lbr: State
    vpmu: Vpmu


def guest_access(facility: Facility, host: Host, action: Rdmsr | Wrmsr) -> tuple[Host, Outcome]:
    """Return the host after a guest's RDMSR or WRMSR, and what the guest sees."""
    lbr, outcome = vpmu_step.access(facility, host.vpmu, host.lbr, action)
    return Host(lbr, host.vpmu), outcome


def sample(facility: Facility, host: Host) -> tuple[Host, tuple[Entry, ...]]:
    """Take one sample of the branch stack: freeze, read through the vPMU, thaw."""
    enabled = host.lbr.ctl
    lbr, _ = facility_step.step(facility, host.lbr, Pmi())
    frozen = Host(lbr, host.vpmu)
    entries = read_stack(lambda msr: guest_access(facility, frozen, Rdmsr(msr))[1], lbr.depth)
    lbr, _ = facility_step.step(facility, lbr, Thaw())
    if lbr.ctl != enabled:  # PMU v2/v3: the PMI cleared LBREn, and the handler sets it again
        lbr, _ = vpmu_step.access(facility, host.vpmu, lbr, Wrmsr(msrs.IA32_LBR_CTL.index, enabled))
    return Host(lbr, host.vpmu), entries
