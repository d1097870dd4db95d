"""The LBR registers of one processor, as those who share them move them: a bank, whatever it is made of.

`perf`, `vpmu.designs` and `host` ask a bank for what they do to the registers and never look inside a record. `tagged`
has the bank that is explored (a record is the tag of whose branch it is), `facility_bank` the one over the facility's
own state, which a machine runs, and `contract.costs` one that counts the accesses. So one step serves all three.
"""

from __future__ import annotations

from typing import Any, Protocol, Self, TypeVar

# Whose branch, whose filter: nobody's, the host's (its kernel or one of its tasks), a VM's (VM + its number).
NOBODY, HOST, VM = 0, 1, 2

# What perf asks of KVM (WANT, RELEASE) and what KVM answers (GRANT, LATER, REFUSE). They are here because both
# sides know the registers and neither knows the other.
NOTHING, WANT, GRANT, LATER, REFUSE, RELEASE = range(6)


class Bank(Protocol):
    """A bank. enable: DEBUGCTL.LBR or LBR_CTL.LBREn. select: whose filter is programmed. stack: records, newest first,
    0 where FROM reads 0; what a record is, only the bank knows.
    """

    @property
    def enable(self) -> int:
        """Return the enable bit."""
        ...

    @property
    def select(self) -> int:
        """Return whose filter is programmed."""
        ...

    @property
    def stack(self) -> tuple[Any, ...]:
        """Return the records, newest first."""
        ...

    def switched(self, enable: int) -> Self:
        """Return the bank after VM entry loaded, or VM exit cleared, the enable bit: by the VMCS, not by WRMSR."""
        ...

    def controlled(self, enable: int) -> Self:
        """Return the bank after WRMSR of the enable bit alone."""
        ...

    def programmed(self, select: int, enable: int) -> Self:
        """Return the bank after WRMSR of a filter with the enable bit."""
        ...

    def filtered(self, select: int) -> Self:
        """Return the bank after a guest wrote the filter, which passes through."""
        ...

    def wiped(self) -> Self:
        """Return the bank with every record 0."""
        ...

    def cleared(self) -> Self:
        """Return the bank with every record and the filter 0: intel_pmu_lbr_reset()."""
        ...

    def read_enable(self) -> tuple[Self, int]:
        """Return the bank and its enable bit, read by RDMSR."""
        ...

    def read_newest(self) -> tuple[Self, int]:
        """Return the bank and whether its newest record is there, read by RDMSR of TOS and FROM."""
        ...

    def saved(self) -> tuple[Self, tuple[Any, ...]]:
        """Return the bank and a copy of its records; the enable bit stays (XSAVES, or RDMSR of each)."""
        ...

    def loaded(self, select: int, stack: tuple[Any, ...]) -> Self:
        """Return the bank with a copy's records and whose filter they were made under (XRSTORS, or WRMSR of each)."""
        ...

    def written(self, stack: tuple[Any, ...]) -> Self:
        """Return the bank after a guest wrote records, which pass through."""
        ...

    def recorded(self, tag: int) -> Self:
        """Return the bank after a taken branch of `tag`, if it records."""
        ...

    def filled(self, tag: int) -> Self:
        """Return the bank after as many branches of `tag` as it has records."""
        ...


B = TypeVar("B", bound=Bank)
