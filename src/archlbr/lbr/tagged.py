"""The bank with its addresses forgotten: a record is the tag of whose branch it is.

`contract` explores the host's step over it, so that "whose branch is this" is decidable. It is a projection of `step`:
tests drive both by one stream of operations and compare.
"""

from __future__ import annotations

from typing import NamedTuple

from archlbr.lbr.bank import NOBODY


class Lbrs(NamedTuple):
    """The LBR registers of one processor; see `bank.Bank`.

    enable: DEBUGCTL.LBR or LBR_CTL.LBREn. select: whose filter is programmed (LBR_SELECT, or LBR_CTL's filter bits).
    stack: a tag a record, newest first; NOBODY where FROM reads 0.
    """

    enable: int
    select: int
    stack: tuple[int, ...]

    def switched(self, enable: int) -> Lbrs:
        """Return the bank after VM entry or VM exit."""
        return Lbrs(enable, self.select, self.stack)

    def controlled(self, enable: int) -> Lbrs:
        """Return the bank after WRMSR of the enable bit alone."""
        return Lbrs(enable, self.select, self.stack)

    def programmed(self, select: int, enable: int) -> Lbrs:
        """Return the bank after WRMSR of a filter with the enable bit."""
        return Lbrs(enable, select, self.stack)

    def filtered(self, select: int) -> Lbrs:
        """Return the bank after a guest wrote the filter."""
        return Lbrs(self.enable, select, self.stack)

    def wiped(self) -> Lbrs:
        """Return the bank with every record 0: one write of IA32_LBR_DEPTH, or WRMSR of each."""
        return Lbrs(self.enable, self.select, (NOBODY,) * len(self.stack))

    def cleared(self) -> Lbrs:
        """Return the bank with every record and the filter 0."""
        return Lbrs(self.enable, NOBODY, (NOBODY,) * len(self.stack))

    def read_enable(self) -> tuple[Lbrs, int]:
        """Return the bank and its enable bit."""
        return self, self.enable

    def read_newest(self) -> tuple[Lbrs, int]:
        """Return the bank and whether its newest record is there."""
        return self, int(self.stack[0] != NOBODY)

    def saved(self) -> tuple[Lbrs, tuple[int, ...]]:
        """Return the bank and a copy of its records."""
        return self, self.stack

    def loaded(self, select: int, stack: tuple[int, ...]) -> Lbrs:
        """Return the bank with a copy's records and filter."""
        return Lbrs(self.enable, select, stack)

    def written(self, stack: tuple[int, ...]) -> Lbrs:
        """Return the bank after a guest wrote records."""
        return Lbrs(self.enable, self.select, stack)

    def recorded(self, tag: int) -> Lbrs:
        """Return the bank after a taken branch of `tag` that the filter lets in."""
        return Lbrs(1, self.select, (tag, *self.stack[:-1])) if self.enable else self

    def filled(self, tag: int) -> Lbrs:
        """Return the bank after as many branches of `tag` as it has records."""
        return Lbrs(1, self.select, (tag,) * len(self.stack)) if self.enable else self


def reset(depth: int) -> Lbrs:
    """Return the registers after a cold reset."""
    return Lbrs(0, NOBODY, (NOBODY,) * depth)
