"""One vCPU's LBRs as one pure step: an action comes in, the next state and what came of it go out.

`machine` runs it behind a guest's instructions, `conformance` asks it case by case, `host.sampling` reads a stack
through it. A guest's instruction while the vCPU is out enters, executes and leaves; what the host does takes a running
vCPU out first. Refusals and faults are outcomes and change nothing of what they refuse; a failed entry leaves the guest
as it was. Authority: reference kvm-series.md, sections A to D; the design says which of its choices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archlbr.arch import msrs
from archlbr.arch.outcomes import DONE, GP, UD, Value
from archlbr.errors import InternalError
from archlbr.lbr import actions as lbr
from archlbr.lbr.record import record
from archlbr.lbr.state import initial
from archlbr.vpmu import actions, counters, freeze, migration, nested, ownership, registers, smm, vmcs, xsaves
from archlbr.vpmu import cpuid as leaves
from archlbr.vpmu.actions import INVALID_GUEST_STATE, Action, Outcome, Refused, Registers, VmFail
from archlbr.vpmu.state import FREE, Kept, Nested, Platform, Pmu, State, Vmcs, with_lbr

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.vpmu.cpuid import Cpuid
    from archlbr.vpmu.designs.protocol import Design

_Result = tuple[State, Outcome]

_CTL = msrs.IA32_LBR_CTL.index


def boot(design: Design, platform: Platform, cpuid: Cpuid) -> State:
    """Return a vCPU after its creation and a first KVM_SET_CPUID2, on a processor with nothing recorded.

    It is loaded and out of the guest, perf would give it the LBRs, and it has not asked. InternalError when the design
    refuses the CPUID: use a vCPU without leaf 1CH, and SetCpuid, to see the refusal.
    """
    refusal = leaves.einval(design, platform, cpuid)
    if refusal:
        raise InternalError(refusal)
    held = migration.capabilities(design, platform) if cpuid.pdcm else 0
    rules = leaves.rules(design, platform, cpuid, held)
    state = State(
        initial(platform.facility), initial(rules.facility), 0, 0, 1, 0, FREE, Vmcs(), Pmu(capabilities=held),
        Nested(), Kept(), cpuid, rules, 0, 1, 0,
    )  # fmt: skip
    return vmcs.prepared(design, platform, state._replace(pmu=freeze.reset_counters(state)))


# The guest's instructions and events: the vCPU is in the guest ------------------------------------------------------


def _rdmsr(design: Design, platform: Platform, state: State, action: lbr.Rdmsr) -> _Result:
    index = action.msr
    if action.cpl:
        return state, GP
    if (elsewhere := _of_l1(design, platform, state, index)) is not None:
        return state, elsewhere
    if index not in registers.BY_INDEX:
        capability = nested.capability(design, platform, state, index)
        if capability is not None:
            return state, Value(capability)
    value = registers.rdmsr(design, state, index)
    return state, GP if value is None else Value(value)


def _of_l1(design: Design, platform: Platform, state: State, index: int) -> Outcome | None:
    # What comes of an access by L2 that L1's choices keep from the registers.
    if not state.nested.active or index not in registers.LBR_INDICES:
        return None
    if nested.absent(design, platform, state):
        return GP
    return actions.Reflected() if nested.reflects(design, platform, state) else None


def _wrmsr(design: Design, platform: Platform, state: State, action: lbr.Wrmsr) -> _Result:
    index = action.msr
    if action.cpl:
        return state, GP
    if (elsewhere := _of_l1(design, platform, state, index)) is not None:
        return state, elsewhere
    after = registers.wrmsr(design, platform, state, index, action.value)
    if after is None:
        return state, GP
    if index == _CTL and after.lbr.ctl & ~platform.facility.ctl_legal:
        # Only a design with an unfiltered leaf gets here: the value is in the VMCS, and the next entry fails.
        return vmcs.left(design, platform, after), VmFail(INVALID_GUEST_STATE)
    return after, DONE


def _branch(_design: Design, platform: Platform, state: State, action: lbr.Branch) -> _Result:
    return with_lbr(state, record(platform.facility, state.lbr, action)), DONE


def _cpuid(design: Design, _platform: Platform, state: State, action: actions.CpuidInstruction) -> _Result:
    return state, Registers(*leaves.instruction(design, state, action.leaf, action.subleaf))


def _rdpmc(_design: Design, _platform: Platform, state: State, action: actions.Rdpmc) -> _Result:
    # CR4.PCE is taken to be 1: any ring may read.
    value = counters.rdpmc(state, action.counter)
    return state, GP if value is None else Value(value)


def _xsetbv(_design: Design, _platform: Platform, state: State, action: actions.Xsetbv) -> _Result:
    value = action.value
    if action.cpl or not value & 1 or value & ~(state.cpuid.leaf0d.xcr0_mask | 1):
        return state, GP
    return state._replace(xcr0=value), DONE


def _count(design: Design, platform: Platform, state: State, action: actions.Count) -> _Result:
    after, asked = counters.count(design, platform, state, action)
    return after, actions.Overflow(asked) if asked else DONE


def _event(change: Callable[[Design, Platform, State], State]) -> Callable[[Design, Platform, State, Any], _Result]:
    return lambda design, platform, state, _action: (change(design, platform, state), DONE)


def _rsm(design: Design, platform: Platform, state: State, _action: lbr.Rsm) -> _Result:
    after = smm.rsm(design, platform, state)
    return (state, UD) if after is None else (after, DONE)


def _smram(_design: Design, _platform: Platform, state: State, _action: actions.ReadSmram) -> _Result:
    return (state, Value(state.smram)) if state.guest.smm else (state, GP)


def _nested_entry(design: Design, platform: Platform, state: State, action: actions.NestedEntry) -> _Result:
    outside = vmcs.left(design, platform, state)
    after, error = nested.entered(design, platform, outside, action)
    if error:
        return state, VmFail(error)
    after, error = vmcs.enter(design, platform, after)
    return after, VmFail(error) if error else DONE


def _nested_exit(design: Design, platform: Platform, state: State, _action: actions.NestedExit) -> _Result:
    after, fields = nested.exited(design, platform, vmcs.left(design, platform, state))
    after, error = vmcs.enter(design, platform, after)
    return after, VmFail(error) if error else fields


# What the host does: the vCPU is out of the guest -------------------------------------------------------------------


def _nmi(design: Design, platform: Platform, state: State, action: actions.InjectNmi) -> _Result:
    return freeze.injected_nmi(design, platform, state, action.stale), DONE


def _vector(design: Design, platform: Platform, state: State, action: actions.InjectVector) -> _Result:
    if action.vector == freeze.DB_VECTOR:
        return freeze.injected_debug(design, platform, state), DONE
    return state, DONE


def _host_read(design: Design, platform: Platform, state: State, action: actions.HostRead) -> _Result:
    value = migration.host_read(design, platform, state, action.msr)
    if value is None:
        return state, Refused(f"KVM_GET_MSRS: MSR {action.msr:X}H is not there")
    return state, Value(value)


def _host_write(design: Design, platform: Platform, state: State, action: actions.HostWrite) -> _Result:
    after = migration.host_write(design, platform, state, action.msr, action.value)
    if after is None:
        return state, Refused(f"KVM_SET_MSRS: MSR {action.msr:X}H does not take {action.value:#x}")
    return after, DONE


def _set_cpuid(design: Design, platform: Platform, state: State, action: actions.SetCpuid) -> _Result:
    if state.ran and action.cpuid != state.cpuid:
        return state, Refused(f"{leaves.EINVAL}: the vCPU has run")
    refusal = leaves.einval(design, platform, action.cpuid)
    if refusal:
        return state, Refused(refusal)
    if action.cpuid == state.cpuid:
        return state, DONE
    held = state.pmu.capabilities if action.cpuid.pdcm else 0
    rules = leaves.rules(design, platform, action.cpuid, held)
    outside = ownership.given_up(design, platform, state)._replace(event=0)
    guest = initial(rules.facility)._replace(smm=outside.guest.smm)
    fresh = outside._replace(guest=guest, cpuid=action.cpuid, rules=rules)
    pmu = freeze.reset_counters(fresh)._replace(capabilities=held)
    return vmcs.prepared(design, platform, fresh._replace(pmu=pmu)), DONE


def _supported(design: Design, platform: Platform, state: State, _action: actions.SupportedCpuid) -> _Result:
    return state, actions.Leaves(leaves.supported(design, platform))


def _save_list(design: Design, platform: Platform, state: State, _action: actions.SaveList) -> _Result:
    return state, actions.Indices(migration.save_list(design, platform))


def _feature(design: Design, platform: Platform, state: State, action: actions.FeatureMsr) -> _Result:
    if action.msr != msrs.IA32_PERF_CAPABILITIES.index:
        return state, Refused(f"KVM_GET_MSRS on /dev/kvm: MSR {action.msr:X}H is no feature MSR of the PMU")
    return state, Value(migration.capabilities(design, platform))


def _dump(design: Design, platform: Platform, state: State, _action: actions.DumpVmcs) -> _Result:
    return state, actions.Text(vmcs.dump(design, platform, state))


def _host_control(design: Design, platform: Platform, state: State, action: actions.HostControl) -> _Result:
    return ownership.host_control(design, platform, state, action.ctl), DONE


def _host_branch(_design: Design, platform: Platform, state: State, action: actions.HostBranch) -> _Result:
    return with_lbr(state, record(platform.facility, state.lbr, action.branch)), DONE


def _vm_entry(design: Design, platform: Platform, state: State, _action: actions.VmEntry) -> _Result:
    after, error = vmcs.enter(design, platform, state)
    return after, VmFail(error) if error else DONE


# The guest's own instructions and events.
_INSIDE: dict[type, Callable[[Design, Platform, State, Any], _Result]] = {
    lbr.Rdmsr: _rdmsr,
    lbr.Wrmsr: _wrmsr,
    lbr.Branch: _branch,
    lbr.Xsaves: xsaves.execute,
    lbr.Xrstors: xsaves.execute,
    lbr.DebugException: _event(freeze.debug_exception),
    lbr.DeepCState: _event(freeze.deep_c_state),
    actions.CpuidInstruction: _cpuid,
    actions.Rdpmc: _rdpmc,
    actions.Xsetbv: _xsetbv,
    actions.Count: _count,
    actions.ReadSmram: _smram,
    lbr.Rsm: _rsm,
    actions.NestedEntry: _nested_entry,
    actions.NestedExit: _nested_exit,
}
# What KVM does on behalf of the guest: a running vCPU is taken out and goes back in.
_BETWEEN: dict[type, Callable[[Design, Platform, State, Any], _Result]] = {
    lbr.Smi: _event(smm.smi),
    lbr.Init: _event(freeze.init),
    actions.InjectDebug: _event(freeze.injected_debug),
    actions.InjectVector: _vector,
    actions.InjectNmi: _nmi,
    actions.DeliverPmi: _event(freeze.pmi),
    actions.HostControl: _host_control,
    actions.Grant: _event(ownership.grant),
    actions.Release: _event(ownership.release),
    actions.Deny: _event(ownership.deny),
}
# What needs the vCPU's mutex, or its thread: it stays out.
_OUTSIDE: dict[type, Callable[[Design, Platform, State, Any], _Result]] = {
    lbr.WarmReset: _event(freeze.warm_reset),
    lbr.ColdReset: _event(freeze.cold_reset),
    actions.HostRead: _host_read,
    actions.HostWrite: _host_write,
    actions.SetCpuid: _set_cpuid,
    actions.SupportedCpuid: _supported,
    actions.SaveList: _save_list,
    actions.FeatureMsr: _feature,
    actions.DumpVmcs: _dump,
    actions.HostBranch: _host_branch,
    actions.VmExit: _event(lambda _d, _p, state: state),
    actions.VmEntry: _vm_entry,
    actions.SchedOut: _event(ownership.sched_out),
    actions.SchedIn: _event(ownership.sched_in),
    actions.VcpuPut: _event(ownership.put),
    actions.VcpuLoad: _event(ownership.load),
    actions.Close: _event(ownership.closed),
}


def step(design: Design, platform: Platform, state: State, action: Action) -> tuple[State, Outcome]:
    """Return the state after an action, and its outcome; InternalError for a run of a vCPU that is scheduled out."""
    inside = _INSIDE.get(type(action))
    if inside is not None:
        if state.running or _short(design, state, action):
            return inside(design, platform, state, action)
        entered, error = vmcs.enter(design, platform, state)
        if error:
            return entered, VmFail(error)
        after, outcome = inside(design, platform, entered, action)
        return vmcs.left(design, platform, after), outcome
    between = _BETWEEN.get(type(action))
    if between is None:
        return _OUTSIDE[type(action)](design, platform, _out(design, platform, state, action), action)
    outside, outcome = between(design, platform, vmcs.left(design, platform, state), action)
    if not state.running:
        return outside, outcome
    back, error = vmcs.enter(design, platform, outside)
    return back, VmFail(error) if error else outcome


def _short(design: Design, state: State, action: Action) -> bool:
    """Say whether entering and leaving around a register access would change nothing that anybody sees."""
    seen = state.lbr.ctl or not state.ran or not state.loaded
    return not seen and not design.unfiltered_leaf and isinstance(action, lbr.Rdmsr | lbr.Wrmsr)


def _out(design: Design, platform: Platform, state: State, action: Action) -> State:
    if isinstance(action, actions.VmEntry):
        return state
    return vmcs.left(design, platform, state)
