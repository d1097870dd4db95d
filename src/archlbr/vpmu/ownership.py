"""Whose the LBRs are: the vCPU asks, perf grants and takes back, the scheduler moves threads.

`step` sends perf's and the scheduler's actions here; a write of LBREn asks. Perf is not called: what it would answer is
`state.offer`, set by Grant, Release and Deny, which `host` routes. Invariant of a design that keeps records: while
owned, and only then, the processor's DEPTH, entries and LER are the guest's; before and after, nothing of it is left
there, so that no XRSTORS on either side ever meets the other's DEPTH (decision 020).
Authority: reference kvm-series.md B (6, 11 to 14); perf-kvm-contract.md F ("own").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs
from archlbr.lbr.state import ARCH, EMPTY, settled
from archlbr.vpmu.interception import decided, enabled, guest_ctl, loaded_debugctl, switches
from archlbr.vpmu.state import BUSY, FAILS, FREE, State, with_guest, with_lbr

if TYPE_CHECKING:
    from archlbr.lbr import state as lbr_state
    from archlbr.lbr.state import Facility
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform


def asked(design: Design, platform: Platform, state: State) -> State:
    """Return the state after the vCPU asked for the LBRs, because the guest set LBREn.

    Series v2 creates the vLBR event and ignores the error (B 6); perf resets the registers only if nobody of the host
    uses them (perf-kvm-contract.md I3). A design that keeps records is answered now or by a later Grant.
    """
    if state.event or not state.rules.usable:
        return state
    if not design.keeps_records and state.offer == FAILS:
        return state
    state = state._replace(event=1)
    return taken(design, platform, state, fresh=1) if state.offer == FREE and state.loaded else state


def taken(design: Design, platform: Platform, state: State, fresh: int = 0) -> State:
    """Return the state with the guest as the owner of the processor's LBRs.

    A session of the host's that records is in the way: a design that keeps records leaves the request standing.
    Otherwise perf resets the registers for a fresh event alone, and only if it is their one user (I3, I6).
    """
    lbr, guest = state.lbr, state.guest
    session = (state.kept.ctl if state.running else lbr.ctl) & msrs.CTL_LBREN
    if state.owned or (design.keeps_records and session):
        return state
    if design.keeps_records:
        lbr = _moved(guest, lbr)
    elif fresh and not session:
        lbr = _moved(blank(guest), lbr)
    ctl = guest_ctl(design, state)
    state = state._replace(owned=1)
    if state.running:
        loads = switches(design, platform, state)
        lbr = lbr._replace(
            ctl=ctl if loads else lbr.ctl, frozen=guest.frozen, debugctl=loaded_debugctl(design, state, guest.debugctl)
        )
    return decided(design, state._replace(lbr=lbr))


def given_up(design: Design, platform: Platform, state: State) -> State:
    """Return the state with the processor's LBRs back in the host's hands.

    A design that keeps records saves the guest's and leaves nothing of them; the other moves nothing (I4, I5).
    """
    if not state.owned:
        return state
    lbr, guest = state.lbr, state.guest
    if design.keeps_records:
        guest = _moved(lbr, guest)
        lbr = wiped(platform.facility, lbr)
    return decided(design, state._replace(lbr=lbr, guest=guest, owned=0))


def grant(design: Design, platform: Platform, state: State) -> State:
    """Return the state after perf offered the LBRs: taken at once if the vCPU had asked."""
    state = state._replace(offer=FREE)
    if state.event and state.loaded:
        return taken(design, platform, state)
    return state


def release(design: Design, platform: Platform, state: State) -> State:
    """Return the state after perf took the LBRs for the host; the vCPU's request stands."""
    return given_up(design, platform, state)._replace(offer=BUSY)


def host_control(design: Design, platform: Platform, state: State, ctl: int) -> State:
    """Return the state after perf wrote the processor's IA32_LBR_CTL for the host: recording, it takes the LBRs.

    Series v2 has no arbiter: the host's session and the vLBR event are scheduled together (perf-kvm-contract.md).
    """
    if design.keeps_records and ctl & msrs.CTL_LBREN:
        state = given_up(design, platform, state)
    state = with_lbr(state, settled(platform.facility, state.lbr._replace(ctl=ctl)))
    if design.keeps_records and state.event and state.loaded and state.offer == FREE:
        return taken(design, platform, state)
    return state


def deny(_design: Design, _platform: Platform, state: State) -> State:
    """Return the state in which perf answers the next request with an error."""
    return state._replace(offer=FAILS)


def sched_out(design: Design, platform: Platform, state: State) -> State:
    """Return the state after the thread left its processor: perf's task switch saves with the event (B 11)."""
    if not design.keeps_records and state.owned:
        state = with_guest(state, _moved(state.lbr, state.guest))
    return given_up(design, platform, state)._replace(loaded=0)


def sched_in(design: Design, platform: Platform, state: State) -> State:
    """Return the state after the thread came in on the processor whose registers `state.lbr` holds.

    With lazy release, once per time slice an event whose LBREn is 0 is released, contents and all (B 12).
    """
    state = state._replace(loaded=1)
    if state.event and state.offer == FREE:
        if not design.keeps_records:
            state = decided(design, state._replace(lbr=_moved(state.guest, state.lbr), owned=1))
        state = taken(design, platform, state)
    if design.lazy_release and state.event and not enabled(state.rules.flavour, state.guest):
        state = decided(design, with_guest(state, blank(state.guest))._replace(event=0, owned=0))
    return state


def put(design: Design, platform: Platform, state: State) -> State:
    """Return the state after vcpu_put() on a thread that goes on: perf sees no switch, its event stays ACTIVE.

    A design that keeps records does as at a switch; else the next vCPU of the thread finds this one's records.
    """
    return sched_out(design, platform, state) if design.keeps_records else state._replace(loaded=0)


def load(design: Design, platform: Platform, state: State) -> State:
    """Return the state after vcpu_load() on a thread that went on."""
    return sched_in(design, platform, state) if design.keeps_records else state._replace(loaded=1)


def closed(design: Design, platform: Platform, state: State) -> State:
    """Return the state after the vCPU was freed: no event, and the host owns the LBRs (row 102)."""
    return given_up(design, platform, state)._replace(event=0, loaded=0)


def blank(file: lbr_state.State) -> lbr_state.State:
    """Return a register file with no entries and the same DEPTH; LER, LBR_SELECT and TOS are 0."""
    return file._replace(stack=(EMPTY,) * file.depth, ler=EMPTY, select=0, tos=0, since=0, timed=0, pending=0)


def wiped(facility: Facility, lbr: lbr_state.State) -> lbr_state.State:
    """Return the processor's registers as the host takes them back: its own DEPTH, no entry, no LER.

    Perf uses the largest depth (intel_pmu_arch_lbr_init); to write DEPTH before any XRSTORS of its own is what keeps
    the host's records safe from a guest's depth (Jim Mattson's objection to v5 06/13).
    """
    return blank(lbr._replace(depth=facility.max_depth))


def _moved(source: lbr_state.State, target: lbr_state.State) -> lbr_state.State:
    """Return the target with the source's DEPTH, entries, LER, LBR_SELECT and TOS; the cycle count starts anew."""
    return target._replace(
        depth=source.depth,
        stack=source.stack,
        ler=source.ler,
        select=source.select,
        tos=source.tos,
        since=0,
        timed=0,
        pending=0,
    )


def resets_hardware(design: Design, state: State) -> bool:
    """Say whether a guest's write of DEPTH wipes the processor's entries: while owned, or always in series v2 (P5)."""
    return bool(state.owned or design.raw_depth) and state.rules.flavour == ARCH
