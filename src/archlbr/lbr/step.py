"""The facility as one pure step: an action comes in, the next state and what the guest sees go out.

`facility_bank` and the vPMU drive their registers by it; `compiled`, which a machine runs, is held equal to it.
Authority: reference architecture.md 1 to 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archlbr.arch.outcomes import DONE, GP, UD, Image, Outcome, Value
from archlbr.lbr import actions, freeze, registers, xsaves
from archlbr.lbr.record import record
from archlbr.lbr.state import Facility, State

if TYPE_CHECKING:
    from collections.abc import Callable

_Result = tuple[State, Outcome]


def _branch(facility: Facility, state: State, action: actions.Branch) -> _Result:
    return record(facility, state, action), DONE


def _rdmsr(facility: Facility, state: State, action: actions.Rdmsr) -> _Result:
    value = registers.rdmsr(facility, state, action.msr, action.cpl)
    return state, GP if value is None else Value(value)


def _wrmsr(facility: Facility, state: State, action: actions.Wrmsr) -> _Result:
    after = registers.wrmsr(facility, state, action.msr, action.value, action.cpl)
    return (state, GP) if after is None else (after, DONE)


def _event(change: Callable[[Facility, State], State]) -> Callable[[Facility, State, Any], _Result]:
    return lambda facility, state, _action: (change(facility, state), DONE)


def _rsm(facility: Facility, state: State, _action: actions.Rsm) -> _Result:
    after = freeze.rsm(facility, state)
    return (state, UD) if after is None else (after, DONE)


def _xsaves(facility: Facility, state: State, action: actions.Xsaves) -> _Result:
    if not facility.xsaves:
        return state, UD
    if action.cpl:
        return state, GP
    return state, Image(xsaves.xsaves(state, action.area, action.rfbm))


def _xrstors(facility: Facility, state: State, action: actions.Xrstors) -> _Result:
    if not facility.xsaves:
        return state, UD
    after = None if action.cpl else xsaves.xrstors(facility, state, action.area, action.rfbm)
    return (state, GP) if after is None else (after, DONE)


def _pebs(facility: Facility, state: State, action: actions.PebsRecord) -> _Result:
    return state, Image(xsaves.pebs_group(facility, state, action.data_cfg))


_STEPS: dict[type, Callable[[Facility, State, Any], _Result]] = {
    actions.Branch: _branch,
    actions.Rdmsr: _rdmsr,
    actions.Wrmsr: _wrmsr,
    actions.Pmi: _event(freeze.pmi),
    actions.Thaw: _event(freeze.thaw),
    actions.DebugException: _event(freeze.debug_exception),
    actions.Smi: _event(freeze.smi),
    actions.Rsm: _rsm,
    actions.Init: _event(freeze.init),
    actions.WarmReset: _event(freeze.warm_reset),
    actions.ColdReset: _event(freeze.cold_reset),
    actions.DeepCState: _event(freeze.deep_c_state),
    actions.Xsaves: _xsaves,
    actions.Xrstors: _xrstors,
    actions.PebsRecord: _pebs,
}


def step(facility: Facility, state: State, action: actions.Action) -> tuple[State, Outcome]:
    """Return the state after an action, and its outcome; faults of the guest are outcomes and change nothing."""
    return _STEPS[type(action)](facility, state, action)
