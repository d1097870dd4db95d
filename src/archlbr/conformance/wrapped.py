"""A target that passes every call on to another: what `bugs` and the recorder build on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archlbr.conformance import questions as q
    from archlbr.conformance.answers import Answer
    from archlbr.conformance.target import Target


class Wrapped:
    """The target inside, call by call; a subclass overrides what it changes."""

    def __init__(self, inside: Target) -> None:
        self.inside = inside
        self.name = inside.name
        self.known_as = inside.known_as

    def lacks(self, setup: q.Setup, asked: tuple[q.Question, ...]) -> str:
        """Pass the call on."""
        return self.inside.lacks(setup, asked)

    def start(self, setup: q.Setup) -> Answer:
        """Pass the call on."""
        return self.inside.start(setup)

    def new_vm(self, setup: q.Setup) -> Answer:
        """Pass the call on."""
        return self.inside.new_vm(setup)

    def offered(self, leaf: int, subleaf: int) -> Answer:
        """Pass the call on."""
        return self.inside.offered(leaf, subleaf)

    def msr_list(self) -> Answer:
        """Pass the call on."""
        return self.inside.msr_list()

    def feature(self, msr: int) -> Answer:
        """Pass the call on."""
        return self.inside.feature(msr)

    def set_cpuid(self, guest: q.Guest) -> Answer:
        """Pass the call on."""
        return self.inside.set_cpuid(guest)

    def get_msr(self, msr: int, other_thread: int) -> Answer:
        """Pass the call on."""
        return self.inside.get_msr(msr, other_thread)

    def set_msr(self, msr: int, value: int, other_thread: int) -> Answer:
        """Pass the call on."""
        return self.inside.set_msr(msr, value, other_thread)

    def execute(self, instruction: q.Instruction) -> Answer:
        """Pass the call on."""
        return self.inside.execute(instruction)

    def branch(self, branch: q.Branch) -> Answer:
        """Pass the call on."""
        return self.inside.branch(branch)

    def happen(self, event: q.Event | q.EnterL2) -> Answer:
        """Pass the call on."""
        return self.inside.happen(event)

    def look(self, place: q.Place, at: int) -> Answer:
        """Pass the call on."""
        return self.inside.look(place, at)

    def close(self) -> None:
        """Pass the call on."""
        self.inside.close()
