"""The machine as a target: what `archlbr run` runs, with the case's host under it and the case's CPUID in its vCPU.

The guest's instructions and branches are executed on a board (`machine.msr_guest`), through its vPMU and its hooks; the
VMM's questions, the events and the looks are `model`'s, of the same state. Before the guest runs, the vCPU's state goes
into the board's registers, and afterwards it is read back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from archlbr.arch import xsave
from archlbr.arch.outcomes import DONE, Done, Image, Value
from archlbr.conformance import questions as q
from archlbr.conformance.answers import Reflected, Registers, VmFail
from archlbr.conformance.targets.model import ModelTarget, patched
from archlbr.errors import InternalError
from archlbr.lbr import actions as lbr
from archlbr.machine.board import Board
from archlbr.machine.models import SAPPHIRE_RAPIDS
from archlbr.machine.msr_guest import BRANCHES, MEMORY, Layout, MsrGuest, put_stubs
from archlbr.machine.vcpu import Vcpu
from archlbr.vpmu import actions as vpmu
from archlbr.vpmu.designs import ARCHLBR, Design

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.conformance.answers import Answer
    from archlbr.machine.msr_stubs import Report
    from archlbr.vpmu.state import Platform, State

# The board offers no VMX: what it would say of itself is asked of the vPMU.
_VMX_CAPABILITIES: Final = range(0x480, 0x494)


class CaseVcpu(Vcpu):
    """The board's vCPU, given a case's host, design and state; `left` is why an instruction left the guest for good."""

    left: vpmu.Outcome | None = None

    def adopt(self, design: Design, platform: Platform, state: State) -> None:
        """Run a vCPU of this state, on a processor whose registers are as the state has them."""
        self.design, self.platform, self.left = design, platform, None
        self.begin(state)

    def rdmsr(self, msr: int) -> int | None:
        """Answer RDMSR, also of what a hypervisor offers to L1."""
        if msr in _VMX_CAPABILITIES:
            outcome = self._light(lbr.Rdmsr(msr))
            return outcome.value if isinstance(outcome, Value) else None
        return super().rdmsr(msr)

    def _light(self, action: vpmu.Action) -> vpmu.Outcome:
        return self._note(super()._light(action))

    def _access(self, action: vpmu.Action, index: int) -> vpmu.Outcome:
        return self._note(super()._access(action, index))

    # An exit to L1, a failed entry: no guest code sees the end of the instruction.
    def _note(self, outcome: vpmu.Outcome) -> vpmu.Outcome:
        if isinstance(outcome, vpmu.Reflected | vpmu.VmFail):
            self.left = outcome
        return outcome


class MachineTarget(ModelTarget):
    """A board's guest code in front of the model. layout: how a guest gets into the board, and where it is then."""

    def __init__(self, design: Design = ARCHLBR, layout: Callable[[Board], Layout] = put_stubs) -> None:
        super().__init__(design)
        self.name = "machine" if design is ARCHLBR else f"machine:{design.name}"
        self.known_as = ("machine", design.name)
        self.board = Board(SAPPHIRE_RAPIDS, MEMORY, lambda _byte: None, vcpu=CaseVcpu)
        vcpu = self.board.vcpu
        if not isinstance(vcpu, CaseVcpu):
            raise InternalError(f"the board has a {type(vcpu).__name__}")
        self.vcpu = vcpu
        self.guest = MsrGuest(self.board, layout(self.board))

    def lacks(self, setup: q.Setup, asked: tuple[q.Question, ...]) -> str:
        """Name what neither the model nor the board has."""
        for question in asked:
            if isinstance(question, q.Branch) and not {question.source, question.target} <= set(BRANCHES):
                return f"guest memory at {question.source:#x} and {question.target:#x}"
        return super().lacks(setup, asked)

    def execute(self, instruction: q.Instruction) -> Answer:
        """Let the guest's code execute one instruction, and return what it reports."""
        match instruction:
            case q.Rdmsr(msr):
                return self._run(lambda report: Value(report.value), "rdmsr", msr)
            case q.Wrmsr(msr, value):
                return self._run(lambda _: DONE, "wrmsr", msr, value=value)
            case q.Cpuid(leaf, subleaf):
                return self._run(lambda report: Registers(*report[:4]), "cpuid", leaf, subleaf)
            case q.Xsaves():
                self.guest.area = self._area
                answer = self._run(lambda _: Image(self.guest.area[: xsave.AREA_SIZE]), "xsaves")
                self._area = self.guest.area[: xsave.AREA_SIZE]
                return answer
            case q.Xrstors(stores):
                self._area = self.guest.area = patched(self._area, stores)
                return self._run(lambda _: DONE, "xrstors")

    def branch(self, branch: q.Branch) -> Answer:
        """Let the guest's code take a branch, which the board's hooks record."""

        def take() -> Answer:
            self.guest.branch(*branch)
            return DONE

        return self._inside(take)

    def _run(
        self, done: Callable[[Report], Answer], name: str, index: int = 0, subindex: int = 0, value: int = 0
    ) -> Answer:
        def execute() -> Answer:
            report = self.guest.run(name, index, subindex, value)
            match self.vcpu.left:
                case vpmu.Reflected():
                    return Reflected()
                case vpmu.VmFail(error):
                    return VmFail(error)
            fault = report.fault
            return done(report) if fault is None else fault

        return self._inside(execute)

    # Enter the guest, let it run on the board, and leave it if it was entered for this.
    def _inside(self, run: Callable[[], Answer]) -> Answer:
        within = self.state.running
        if not within:
            entered = self.act(vpmu.VmEntry())
            if not isinstance(entered, Done):
                return entered
        self.vcpu.adopt(self.design, self.platform, self.state)
        answer = run()
        self.state = self.vcpu.fetched()
        if not within and self.state.running:
            self.act(vpmu.VmExit())
        return answer
