"""A guest's XSAVES and XRSTORS of component 15: in the processor, or emulated where they must not reach it.

`step` dispatches here. While the guest owns the LBRs and the processor enforces the guest's leaf, both run in hardware.
Otherwise the XSS-exiting bitmap makes them exit, and KVM does the same to its own copy of the guest's registers, by the
facility the guest is told of: `lbr.xsaves` serves both. Series v2 never exits (perf-kvm-contract.md A2).
Authority: reference architecture.md 3.7, 4.2; kvm-series.md P11, rows 66 to 69; decision 022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch.outcomes import GP, UD
from archlbr.lbr import step as facility
from archlbr.vpmu import nested
from archlbr.vpmu.interception import enabled
from archlbr.vpmu.ownership import asked
from archlbr.vpmu.state import State, with_guest, with_lbr

if TYPE_CHECKING:
    from archlbr.arch import outcomes
    from archlbr.lbr.actions import Xrstors, Xsaves
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform


def execute(
    design: Design, platform: Platform, state: State, action: Xsaves | Xrstors
) -> tuple[State, outcomes.Outcome]:
    """Return the state after XSAVES or XRSTORS in the running guest, and what the guest sees."""
    if not state.cpuid.leaf0d1.xsaves or not platform.facility.xsaves:
        return state, UD
    if not state.vmcs.xss_exiting & action.rfbm & state.guest.xss:
        lbr, outcome = facility.step(platform.facility, state.lbr, action)
        return with_lbr(state, lbr), outcome
    if nested.absent(design, platform, state):
        return state, GP  # L2 has no such component: L1 was offered no way to switch it
    if state.owned:
        lbr, outcome = facility.step(state.rules.facility, state.lbr, action)
        return with_lbr(state, lbr), outcome
    guest, outcome = facility.step(state.rules.facility, state.guest, action)
    state = with_guest(state, guest)
    if design.xrstors_asks and enabled(state.rules.flavour, guest) and not state.event:
        state = asked(design, platform, state)
    return state, outcome
