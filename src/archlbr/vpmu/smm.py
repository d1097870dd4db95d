"""SMI and RSM of a guest: LBREn is saved and cleared on the way in, restored on the way out.

`step` dispatches here. KVM keeps the whole IA32_LBR_CTL in the 8 bytes at FF10H of the 64-bit SMRAM map, so that a
migration in SMM does not lose LBREn (Paolo Bonzini on v11 14/16); no architectural slot is documented (architecture.md
3.6). Authority: reference kvm-series.md P13 and its objections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs
from archlbr.lbr.state import ARCH
from archlbr.vpmu.interception import guest_ctl, with_ctl
from archlbr.vpmu.ownership import asked
from archlbr.vpmu.state import State, with_guest

if TYPE_CHECKING:
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform


def _saves(design: Design, state: State) -> bool:
    return state.rules.flavour == ARCH and bool(state.cpuid.long_mode or not design.smram_needs_lm)


def smi(design: Design, platform: Platform, state: State) -> State:
    """Return the state in SMM: CTL in SMRAM, LBREn 0, every other bit as it was. In SMM already: held back."""
    if state.guest.smm:
        return state
    if _saves(design, state):
        ctl = guest_ctl(design, state)
        state = with_ctl(design, platform, state._replace(smram=ctl), ctl & ~msrs.CTL_LBREN)
    return with_guest(state, state.guest._replace(smm=1))


def rsm(design: Design, platform: Platform, state: State) -> State | None:
    """Return the state after RSM, or None for #UD outside SMM.

    LBREn becomes what it was at the SMI, and the other bits stay as the handler left them (Sean Christopherson on P13);
    series v2 writes LBREn and loses the rest. LBREn asks for the LBRs if that has not happened yet.
    """
    if not state.guest.smm:
        return None
    state = with_guest(state, state.guest._replace(smm=0))
    if not _saves(design, state):
        return state
    saved = state.smram & msrs.CTL_LBREN
    kept = 0 if design.rsm_clobbers else guest_ctl(design, state) & ~msrs.CTL_LBREN
    state = with_ctl(design, platform, state._replace(smram=0), kept | saved)
    return asked(design, platform, state) if saved else state
