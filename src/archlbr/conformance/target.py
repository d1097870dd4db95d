"""The protocol of a target: what is asked, in a dozen calls, and nothing of who answers.

`run` asks through `ask`; `targets` holds the concrete ones; `bugs` wraps any. A target answers in `answers`; a fault of
the guest or a refused ioctl is an answer, a target that breaks raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from archlbr.conformance import questions as q

if TYPE_CHECKING:
    from archlbr.conformance.answers import Answer


class Target(Protocol):
    """Something with one VM at a time.

    `name` is how results call it, `known_as` its kind and its variant, by which known differences name it. Real targets
    differ: a KVM has one host and no looks inside; a recording answers only what was asked when it was made. They say
    so by `lacks`.
    """

    name: str
    known_as: tuple[str, ...]

    def lacks(self, setup: q.Setup, asked: tuple[q.Question, ...]) -> str:
        """Name the first thing this target lacks to start there and be asked that, in words; empty when nothing."""

    def start(self, setup: q.Setup) -> Answer:
        """Make a new VM with its vCPUs and give them their CPUID; what was there is gone. Done, or Failed."""

    def new_vm(self, setup: q.Setup) -> Answer:
        """Start over in a new VM in the middle of a case: what a migration's target is. Done, or Failed."""

    def offered(self, leaf: int, subleaf: int) -> Answer:
        """Return the registers that the hypervisor offers for a leaf, all 0 where it offers none."""

    def msr_list(self) -> Answer:
        """Return the indices of the registers to save and restore."""

    def feature(self, msr: int) -> Answer:
        """Return a feature register of the hypervisor: Value, or Failed."""

    def set_cpuid(self, guest: q.Guest) -> Answer:
        """Give the vCPU another CPUID: Done, or Failed."""

    def get_msr(self, msr: int, other_thread: int) -> Answer:
        """Read a register as the VMM: Value, or Failed."""

    def set_msr(self, msr: int, value: int, other_thread: int) -> Answer:
        """Write a register as the VMM: Done, or Failed."""

    def execute(self, instruction: q.Instruction) -> Answer:
        """Let the guest execute one instruction in ring 0: its result, or a fault."""

    def branch(self, branch: q.Branch) -> Answer:
        """Let the guest take a branch: Done."""

    def happen(self, event: q.Event | q.EnterL2) -> Answer:
        """Let an event happen: Done, or VmFail for an L2 that cannot be entered."""

    def look(self, place: q.Place, at: int) -> Answer:
        """Look at a place from outside: Value."""

    def close(self) -> None:
        """Give everything back; nothing is asked afterwards."""


def ask(target: Target, question: q.Question) -> Answer:
    """Send one question to the call it belongs to."""
    match question:
        case q.Offered(leaf, subleaf):
            return target.offered(leaf, subleaf)
        case q.SaveList():
            return target.msr_list()
        case q.FeatureMsr(msr):
            return target.feature(msr)
        case q.SetCpuid(guest):
            return target.set_cpuid(guest)
        case q.GetMsr(msr, other_thread):
            return target.get_msr(msr, other_thread)
        case q.SetMsr(msr, value, other_thread):
            return target.set_msr(msr, value, other_thread)
        case q.NewVm(setup):
            return target.new_vm(setup)
        case q.Branch():
            return target.branch(question)
        case q.Happen(event):
            return target.happen(event)
        case q.EnterL2():
            return target.happen(question)
        case q.Look(place, at):
            return target.look(place, at)
        case _:
            return target.execute(question)
