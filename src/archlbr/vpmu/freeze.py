"""What stops a guest's recording and what starts it again: PMI, #DB, NMI, INIT, the resets, deep C-states.

`step` dispatches here, as `lbr.step` does to `lbr.freeze`; SMM has a module of its own. Each function is the
hypervisor's word on a row of reference architecture.md 3.6. Authority: kvm-series.md P6, P10, P12 and the objections
in C.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs
from archlbr.lbr import freeze as facility_freeze
from archlbr.lbr.state import ARCH, initial
from archlbr.vpmu.interception import decided, disabled, with_debugctl, with_frozen
from archlbr.vpmu.ownership import given_up
from archlbr.vpmu.state import Nested, Pmu, State, with_guest, with_lbr

if TYPE_CHECKING:
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform

DB_VECTOR = 1


def pmi(design: Design, platform: Platform, state: State) -> State:
    """Freeze when a guest counter's PMI is delivered and the guest's DEBUGCTL[11] asks for it.

    Guest PMU version 2 or 3: the enable bit is cleared, and nothing else (P6). From 4 on: LBR_FRZ of the guest's
    GLOBAL_STATUS, LBREn stays (architecture.md 3.6); series v2 does nothing.
    """
    if not state.guest.debugctl & msrs.DEBUGCTL_FREEZE_LBRS or not state.rules.usable:
        return state
    if state.rules.pmu >= 4:
        return with_frozen(platform, state, 1) if design.freezes_v4 else state
    return disabled(design, platform, state) if state.rules.pmu >= 2 else state


def debug_exception(design: Design, platform: Platform, state: State) -> State:
    """Clear the enable bit where the processor delivers #DB in the guest.

    While the guest does not own the LBRs the processor holds no enable bit of its own, so KVM lets #DB exit then and
    does what injection does (ours).
    """
    return disabled(design, platform, state) if state.rules.usable else state


def injected_debug(design: Design, platform: Platform, state: State) -> State:
    """Clear LBREn where KVM injects #DB: injection does not do it (architecture.md 3.7)."""
    if not state.rules.usable or (design.db_wants_event and not state.owned):
        return state
    return disabled(design, platform, state)


def injected_nmi(design: Design, platform: Platform, state: State, stale: int) -> State:
    """Keep LBREn; series v2 looks at the queue's stale vector and takes the NMI for a #DB."""
    if design.nmi_clears and stale == DB_VECTOR:
        return injected_debug(design, platform, state)
    return state


def init(design: Design, platform: Platform, state: State) -> State:
    """Keep everything: INIT is no warm reset (Sean Christopherson on P12)."""
    if design.init_clears and state.rules.usable and state.owned:
        return disabled(design, platform, state)
    return state


def warm_reset(design: Design, platform: Platform, state: State) -> State:
    """Clear LBREn and keep the other LBR registers, DEPTH and ownership; the PMU, DEBUGCTL, XSS and SMM become 0."""
    if design.warm_is_cold:
        return cold_reset(design, platform, state)
    kept_on = with_debugctl(design, platform, with_frozen(platform, state, 0), 0)
    guest = facility_freeze.warm_reset(state.rules.facility, kept_on.guest)
    return _restarted(design, with_guest(kept_on, guest))


def cold_reset(design: Design, platform: Platform, state: State) -> State:
    """Start over: every LBR register 0 but DEPTH, at its maximum; the request for the LBRs is gone (B 21).

    Series v2 writes CTL = 0, releases the event and leaves the records where they are.
    """
    if design.reset_wipes:
        state = given_up(design, platform, state)
        return _restarted(design, with_guest(state, initial(state.rules.facility))._replace(event=0))
    guest = state.guest._replace(ctl=0, debugctl=0, frozen=0, xss=0, smm=0, smm_debugctl=0)
    return _restarted(design, with_guest(state, guest)._replace(event=0, owned=0))


def _restarted(design: Design, state: State) -> State:
    pmu = reset_counters(state)
    return decided(design, state._replace(pmu=pmu, nested=Nested(), xcr0=1, smram=0))


def reset_counters(state: State) -> Pmu:
    """Return the PMU after a reset: all 0, but GLOBAL_CTRL enables the general-purpose counters (SDM vol. 3B)."""
    gp, fixed = state.rules.gp, state.rules.fixed
    enable = (1 << gp) - 1 if state.rules.pmu >= 2 else 0
    return Pmu((0,) * gp, (0,) * gp, (0,) * fixed, 0, enable, 0, state.pmu.capabilities)


def deep_c_state(_design: Design, platform: Platform, state: State) -> State:
    """Clear the entries in the processor where the guest may enter deep C-states by itself and owns them (3.6)."""
    if not state.owned or platform.facility.format != ARCH:
        return state
    return with_lbr(state, facility_freeze.deep_c_state(platform.facility, state.lbr))
