"""One sample of a guest's stack, through its own vPMU: a pure step.

`machine` runs it, through its compiled twin (`machine.pmi`), for each sample. Here a sample is one step: the counter's
PMI freezes the stack, the profiler's handler reads it through the vPMU, and clearing LBR_FRZ, or setting LBREn again
where the PMU is older, lets it go on (reference architecture.md 3.6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs
from archlbr.lbr.actions import Rdmsr, Wrmsr
from archlbr.perf.handler import read_stack
from archlbr.vpmu.actions import DeliverPmi
from archlbr.vpmu.interception import guest_ctl
from archlbr.vpmu.step import step

if TYPE_CHECKING:
    from archlbr.lbr.state import Entry
    from archlbr.vpmu.actions import Outcome
    from archlbr.vpmu.designs import Design
    from archlbr.vpmu.state import Platform, State


def sample(design: Design, platform: Platform, state: State) -> tuple[State, tuple[Entry, ...]]:
    """Take one sample of the guest's branch stack: freeze, read through the vPMU, thaw."""
    enabled = guest_ctl(design, state)
    frozen, _ = step(design, platform, state, DeliverPmi())

    def rdmsr(msr: int) -> Outcome:
        return step(design, platform, frozen, Rdmsr(msr))[1]

    entries = read_stack(rdmsr, frozen.guest.depth)
    state = frozen
    if state.guest.frozen:
        state, _ = step(design, platform, state, Wrmsr(msrs.IA32_PERF_GLOBAL_STATUS_RESET.index, msrs.LBR_FRZ))
    if guest_ctl(design, state) != enabled:  # PMU v2/v3: the PMI cleared LBREn, and the handler sets it again
        state, _ = step(design, platform, state, Wrmsr(msrs.IA32_LBR_CTL.index, enabled))
    return state, entries
