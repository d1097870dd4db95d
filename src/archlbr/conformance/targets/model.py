"""The vPMU's pure step as a target: each question is one action, or the few that it stands for.

`machine` runs guest code in front of it. A design is chosen by name; known differences are named by it. The host's
session is what perf does with a CPU-pinned event: it takes the LBRs, programs CTL, and gives them back
(perf-kvm-contract.md A3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import msrs, vmx, xsave
from archlbr.arch.branches import BranchKind
from archlbr.arch.outcomes import DONE, Done, GeneralProtection, Image, UndefinedOpcode, Value
from archlbr.conformance import questions as q
from archlbr.conformance.answers import FAILED, Indices, Reflected, Registers, VmFail
from archlbr.conformance.targets.shapes import as_cpuid, as_platform
from archlbr.errors import InternalError
from archlbr.lbr import actions as lbr
from archlbr.lbr.state import initial
from archlbr.vpmu import actions as vpmu
from archlbr.vpmu.designs import ARCHLBR, Design
from archlbr.vpmu.snapshot import restore, save
from archlbr.vpmu.step import boot, step

if TYPE_CHECKING:
    from archlbr.arch.msrs import Msr
    from archlbr.conformance.answers import Answer
    from archlbr.vpmu.cpuid import Cpuid
    from archlbr.vpmu.state import Platform, State

_ENTRIES = (msrs.IA32_LBR_FROM_IP, msrs.IA32_LBR_TO_IP, msrs.IA32_LBR_INFO)
_HOST_BRANCH = lbr.Branch(q.HOST_FROM, q.HOST_TO, BranchKind.IND_JMP, 0, 0)

_PLAIN = q.Guest(arch_lbr=0, leaf=None, component=0, component_size=0)

_ACTIONS: dict[q.Event, vpmu.Action] = {
    q.Event.SMI: lbr.Smi(),
    q.Event.RSM: lbr.Rsm(),
    q.Event.INIT: lbr.Init(),
    q.Event.COLD_RESET: lbr.ColdReset(),
    q.Event.WARM_RESET: lbr.WarmReset(),
    q.Event.INJECT_DB: vpmu.InjectDebug(),
    q.Event.INJECT_BP: vpmu.InjectVector(3),
    q.Event.INJECT_NMI: vpmu.InjectNmi(stale=1),
    q.Event.OVERFLOW: vpmu.DeliverPmi(),
    q.Event.ENTRY: vpmu.VmEntry(),
    q.Event.EXIT: vpmu.VmExit(),
    q.Event.L2_EXIT: vpmu.NestedExit(),
    q.Event.SCHED_OUT: vpmu.SchedOut(),
    q.Event.SCHED_IN: vpmu.SchedIn(),
    q.Event.HOST_BRANCH: vpmu.HostBranch(_HOST_BRANCH),
    q.Event.EVENT_FAILS: vpmu.Deny(),
    q.Event.FREE: vpmu.Close(),
}


class ModelTarget:
    """The pure step, by a design."""

    def __init__(self, design: Design = ARCHLBR) -> None:
        self.design = design
        self.name = "model" if design is ARCHLBR else f"model:{design.name}"
        self.known_as: tuple[str, ...] = ("model", design.name)
        self._clock = 0

    def lacks(self, setup: q.Setup, asked: tuple[q.Question, ...]) -> str:
        """Name a leaf that the model has no table for; everything else can be asked."""
        for question in asked:
            if isinstance(question, q.Offered | q.Cpuid) and question.leaf not in (7, 0xA, 0xD, 0x1C):
                return f"CPUID leaf {question.leaf:X}H in the model"
            if isinstance(question, q.Look) and question.place is q.Place.USER_XSAVE:
                return "KVM_GET_XSAVE2 in the model"
        return ""

    def start(self, setup: q.Setup) -> Answer:
        """Boot the vCPUs, and give each the setup's CPUID."""
        self._clock = 0
        host = setup.host or q.Host()
        self.platform: Platform = as_platform(host, nested=setup.guest.lbr_controls)
        self._area = bytes(xsave.AREA_SIZE)
        self._fields = vpmu.Fields(0, 0)
        self._vcpus: list[State] = []
        self._now = 0
        for self._now in range(setup.vcpus):
            self._vcpus.append(boot(self.design, self.platform, as_cpuid(_PLAIN)))
            answer = self._boot(as_cpuid(setup.guest))
            if not isinstance(answer, Done):
                return answer
            # A format that the host does not have is refused; the guest then goes without.
            self.act(vpmu.HostWrite(msrs.IA32_PERF_CAPABILITIES.index, setup.guest.lbr_format))
            if self._now:
                self.act(vpmu.SchedOut())
        self._now = 0
        return DONE

    def _boot(self, cpuid: Cpuid) -> Answer:
        # KVM_SET_CPUID2 is an act of its own, for a design may refuse it.
        self.state = boot(self.design, self.platform, as_cpuid(_PLAIN))
        answer = self.act(vpmu.SetCpuid(cpuid))
        self.act(vpmu.Grant())
        return answer

    def new_vm(self, setup: q.Setup) -> Answer:
        """Start over."""
        return self.start(setup)

    def offered(self, leaf: int, subleaf: int) -> Answer:
        """Return the leaf as KVM_GET_SUPPORTED_CPUID has it."""
        outcome = self.outcome(vpmu.SupportedCpuid())
        if not isinstance(outcome, vpmu.Leaves):
            raise InternalError(f"SupportedCpuid came to {outcome}")
        return _leaf(outcome.cpuid, leaf, subleaf)

    def msr_list(self) -> Answer:
        """Return the save list, ascending."""
        return self.act(vpmu.SaveList())

    def feature(self, msr: int) -> Answer:
        """Return a feature register."""
        return self.act(vpmu.FeatureMsr(msr))

    def set_cpuid(self, guest: q.Guest) -> Answer:
        """Give the vCPU another CPUID."""
        return self.act(vpmu.SetCpuid(as_cpuid(guest)))

    def get_msr(self, msr: int, other_thread: int) -> Answer:
        """Read as userspace; from another thread the vCPU's own is on another processor, or on none."""
        return self._elsewhere(vpmu.HostRead(msr)) if other_thread else self.act(vpmu.HostRead(msr))

    def set_msr(self, msr: int, value: int, other_thread: int) -> Answer:
        """Write as userspace."""
        action = vpmu.HostWrite(msr, value)
        return self._elsewhere(action) if other_thread else self.act(action)

    def execute(self, instruction: q.Instruction) -> Answer:
        """Let the guest execute one instruction; XSAVES and XRSTORS share one area a VM."""
        match instruction:
            case q.Rdmsr(msr):
                return self.act(lbr.Rdmsr(msr))
            case q.Wrmsr(msr, value):
                return self.act(lbr.Wrmsr(msr, value))
            case q.Cpuid(leaf, subleaf):
                return self.act(vpmu.CpuidInstruction(leaf, subleaf))
            case q.Xsaves():
                answer = self.act(lbr.Xsaves(self._area))
                if isinstance(answer, Image):
                    self._area = answer.content
                return answer
            case q.Xrstors(stores):
                self._area = patched(self._area, stores)
                return self.act(lbr.Xrstors(self._area))

    def branch(self, branch: q.Branch) -> Answer:
        """Let the guest take a branch, one tick of the model clock after the last."""
        self._clock += 1
        source, target, kind, cpl = branch
        return self.act(lbr.Branch(source, target, kind, cpl, cpl, self._clock))

    def happen(self, event: q.Event | q.EnterL2) -> Answer:
        """Let an event happen: one action, or what the event stands for."""
        if isinstance(event, q.EnterL2):
            return self.act(vpmu.NestedEntry(*event))
        match event:
            case q.Event.HOST_PINNED:
                self.act(vpmu.Release())
                self.act(vpmu.HostControl(q.HOST_CTL))
            case q.Event.HOST_PINNED_GONE:
                self.act(vpmu.HostControl(0))
                self.act(vpmu.Grant())
            case q.Event.OTHER_VCPU:
                self.act(vpmu.SchedOut())
                processor = self.state.lbr
                self._now = (self._now + 1) % len(self._vcpus)
                self.state = self.state._replace(lbr=processor)
                self.act(vpmu.SchedIn())
            case q.Event.OTHER_CPU:
                self.act(vpmu.SchedOut())
                self.state = self.state._replace(lbr=initial(self.platform.facility))
                self.act(vpmu.SchedIn())
            case q.Event.L2_EXIT if not self.state.nested.active:
                return FAILED  # it was not entered
            case q.Event.MIGRATE:
                snapshot = save(self.design, self.platform, self.state)
                cpuid = self.state.cpuid
                self._boot(cpuid)
                self.state = restore(self.design, self.platform, self.state, snapshot)
            case q.Event.HOST_FREEZES_SMM:
                processor = self.state.lbr
                debugctl = processor.debugctl | msrs.DEBUGCTL_FREEZE_SMM
                self.state = self.state._replace(lbr=processor._replace(debugctl=debugctl))
            case _:
                return self.act(_ACTIONS[event])
        return DONE

    def look(self, place: q.Place, at: int) -> Answer:
        """Read the state that stands for a place."""
        state = self.state
        match place:
            case q.Place.HARDWARE_CTL:
                return Value(state.lbr.ctl)
            case q.Place.HARDWARE_DEBUGCTL:
                return Value(state.lbr.debugctl)
            case q.Place.HARDWARE_FROM:
                return Value(state.lbr.stack[at].source)
            case q.Place.VMCS_CTL:
                return Value(state.vmcs.lbr_ctl)
            case q.Place.ENTRY_CONTROL:
                return Value(int(bool(state.vmcs.entry_controls & vmx.VM_ENTRY_LOAD_IA32_LBR_CTL)))
            case q.Place.EXIT_CONTROL:
                return Value(int(bool(state.vmcs.exit_controls & vmx.VM_EXIT_CLEAR_IA32_LBR_CTL)))
            case q.Place.INTERCEPTED:
                return Value(int(not any(_within(block, at, state.vmcs.passthrough) for block in _ENTRIES)))
            case q.Place.EVENT:
                return Value(state.event)
            case q.Place.DUMP:
                outcome = self.outcome(vpmu.DumpVmcs())
                return Value(int(isinstance(outcome, vpmu.Text) and "LBR_CTL" in outcome.text))
            case q.Place.SMRAM:
                return Value(state.smram)
            case q.Place.VMCS12_CTL:
                return Value(self._fields.lbr_ctl)
            case q.Place.VMCS12_DEBUGCTL:
                return Value(self._fields.debugctl)
            case q.Place.USER_XSAVE:
                raise InternalError("the model has no KVM_GET_XSAVE2")

    def close(self) -> None:
        """Nothing is held."""

    @property
    def state(self) -> State:
        """The running vCPU's state."""
        return self._vcpus[self._now]

    @state.setter
    def state(self, state: State) -> None:
        self._vcpus[self._now] = state

    def outcome(self, action: vpmu.Action) -> vpmu.Outcome:
        """Step the running vCPU and return the step's own outcome."""
        self.state, outcome = step(self.design, self.platform, self.state, action)
        return outcome

    def act(self, action: vpmu.Action) -> Answer:
        """Step the running vCPU and return the outcome as an answer."""
        outcome = self.outcome(action)
        match outcome:
            case Done() | Value() | Image() | GeneralProtection() | UndefinedOpcode():
                return outcome
            case vpmu.Refused():
                return FAILED
            case vpmu.Registers():
                return Registers(*outcome)
            case vpmu.Indices(msrs):
                return Indices(tuple(sorted(msrs)))
            case vpmu.VmFail(error):
                return VmFail(error)
            case vpmu.Reflected():
                return Reflected()
            case vpmu.Fields():
                self._fields = outcome
                return DONE
            case vpmu.Overflow():
                return DONE
            case _:
                raise InternalError(f"{action} came to {outcome}")

    def _elsewhere(self, action: vpmu.Action) -> Answer:
        self.act(vpmu.SchedOut())
        processor = self.state.lbr
        self.state = self.state._replace(lbr=initial(self.platform.facility))
        answer = self.act(action)
        self.state = self.state._replace(lbr=processor)
        self.act(vpmu.SchedIn())
        return answer


def patched(area: bytes, stores: tuple[tuple[int, int], ...]) -> bytes:
    """Return the area after 64-bit values were stored at their offsets."""
    content = bytearray(area)
    for at, value in stores:
        content[at : at + 8] = value.to_bytes(8, "little")
    return bytes(content)


def _within(block: Msr, msr: int, count: int) -> bool:
    return block.index <= msr < block.index + count


def _leaf(cpuid: Cpuid, leaf: int, subleaf: int) -> Registers:
    match leaf, subleaf:
        case 7, 0:
            return Registers(*cpuid.leaf07)
        case 0xA, _:
            return Registers(*cpuid.leaf0a)
        case 0xD, 0:
            return Registers(*cpuid.leaf0d)
        case 0xD, 1:
            return Registers(*cpuid.leaf0d1)
        case 0xD, number:
            return Registers(*cpuid.component(number))
        case 0x1C, 0 if cpuid.leaf1c is not None:
            return Registers(*cpuid.leaf1c)
    return Registers(0, 0, 0, 0)
