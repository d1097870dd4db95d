"""The machine as a target: guest code executes, the vPMU's step answers what the processor hands to the hypervisor.

The guest's instructions and branches run on the engine (`machine.msr_guest`); the VMM's questions, the events and the
looks are `model`'s, of the same vCPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.arch import xsave
from archlbr.arch.outcomes import DONE, GP, Done, GeneralProtection, Image, UndefinedOpcode, Value
from archlbr.conformance import questions as q
from archlbr.conformance.answers import Registers
from archlbr.conformance.targets.model import ModelTarget
from archlbr.conformance.wrapped import Wrapped
from archlbr.errors import InternalError
from archlbr.lbr import actions as lbr
from archlbr.machine.msr_guest import BRANCHES, MsrGuest
from archlbr.machine.msr_stubs import AREA_SIZE
from archlbr.vpmu import actions as vpmu
from archlbr.vpmu.designs import ARCHLBR, Design

if TYPE_CHECKING:
    from archlbr.arch.outcomes import Outcome
    from archlbr.conformance.answers import Answer


class MachineTarget(Wrapped):
    """Guest code in front of the model."""

    inside: ModelTarget

    def __init__(self, design: Design = ARCHLBR) -> None:
        super().__init__(ModelTarget(design))
        self.name = "machine" if design is ARCHLBR else f"machine:{design.name}"
        self.known_as = ("machine", design.name)
        self.guest = MsrGuest(self)
        self._diverted: Answer | None = None

    def lacks(self, setup: q.Setup, asked: tuple[q.Question, ...]) -> str:
        """Name what neither the model nor the engine has."""
        for question in asked:
            if isinstance(question, q.Branch) and not {question.source, question.target} <= set(BRANCHES):
                return f"guest memory at {question.source:#x} and {question.target:#x}"
        return self.inside.lacks(setup, asked)

    def start(self, setup: q.Setup) -> Answer:
        """Boot, with the guest's area cleared."""
        self.guest.area = bytes(AREA_SIZE)
        return self.inside.start(setup)

    def new_vm(self, setup: q.Setup) -> Answer:
        """Start over."""
        return self.start(setup)

    def execute(self, instruction: q.Instruction) -> Answer:
        """Let the guest's code execute one instruction, and return what it reports."""
        self._diverted = None
        match instruction:
            case q.Rdmsr(msr):
                report = self.guest.run("rdmsr", msr)
                done: Outcome | Registers = Value(report.value)
            case q.Wrmsr(msr, value):
                report = self.guest.run("wrmsr", msr, value=value)
                done = DONE
            case q.Cpuid(leaf, subleaf):
                report = self.guest.run("cpuid", leaf, subleaf)
                done = Registers(report.eax, report.ebx, report.ecx, report.edx)
            case q.Xsaves():
                report = self.guest.run("xsaves")
                done = Image(self.guest.area[: xsave.AREA_SIZE])
            case q.Xrstors(stores):
                self._store(stores)
                report = self.guest.run("xrstors")
                done = DONE
        if self._diverted is not None:
            return self._diverted
        fault = report.fault
        return done if fault is None else fault

    def branch(self, branch: q.Branch) -> Answer:
        """Let the guest's code take a branch, and report it as executed."""
        return self.inside.branch(q.Branch(*self.guest.branch(*branch)))

    def close(self) -> None:
        """Give the engine back."""
        self.guest.close()

    # What the engine asks while guest code runs ----------------------------------------------------------------------

    def rdmsr(self, msr: int) -> int | None:
        """Answer RDMSR."""
        answer = self._stepped(lbr.Rdmsr(msr))
        return answer.value if isinstance(answer, Value) else None

    def wrmsr(self, msr: int, value: int) -> bool:
        """Answer WRMSR."""
        return isinstance(self._stepped(lbr.Wrmsr(msr, value)), Done)

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Answer CPUID."""
        answer = self._stepped(vpmu.CpuidInstruction(leaf, subleaf))
        if not isinstance(answer, Registers):
            raise InternalError(f"CPUID came to {answer}")
        return answer

    def xsaves(self, area: bytes) -> bytes | int:
        """Answer XSAVES."""
        answer = self._stepped(lbr.Xsaves(area[: xsave.AREA_SIZE]))
        return answer.content if isinstance(answer, Image) else _vector(answer)

    def xrstors(self, area: bytes) -> int:
        """Answer XRSTORS."""
        answer = self._stepped(lbr.Xrstors(area[: xsave.AREA_SIZE]))
        return 0 if isinstance(answer, Done) else _vector(answer)

    def _stepped(self, action: vpmu.Action) -> Answer:
        answer = self.inside.act(action)
        if not isinstance(answer, Done | GeneralProtection | UndefinedOpcode | Value | Image | Registers):
            # The instruction left the guest for good: an exit to L1, a failed entry. No guest code sees the end of it.
            self._diverted = answer
        return answer

    def _store(self, stores: tuple[tuple[int, int], ...]) -> None:
        area = bytearray(self.guest.area)
        for at, value in stores:
            area[at : at + 8] = value.to_bytes(8, "little")
        self.guest.area = bytes(area)


def _vector(answer: Answer) -> int:
    return answer.vector if isinstance(answer, UndefinedOpcode) else GP.vector
