"""The bank over the facility's own state: each operation is the instructions that KVM and perf execute for it.

A machine runs `host.step` over it: `words_of` and `state_of` of `compiled` lead from a processor's words to `state` and
back. A record is an `Entry`, 0 where FROM reads 0. A filter has a name here, NOBODY, HOST or VM + vCPU; `filters` says
which bits of IA32_LBR_CTL, LBREn left out, each name stands for.
Authority: intel_pmu_arch_lbr_xsaves(), _xrstors(), _reset() and __intel_pmu_lbr_enable() (arch/x86/events/intel/lbr.c).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from archlbr.arch import msrs, xsave
from archlbr.arch.branches import BranchKind
from archlbr.arch.outcomes import DONE, Image
from archlbr.errors import InternalError
from archlbr.lbr.actions import Action, Branch, Wrmsr, Xrstors, Xsaves
from archlbr.lbr.bank import NOBODY
from archlbr.lbr.state import EMPTY, Entry, Facility, State, settled
from archlbr.lbr.step import step

_CTL, _DEPTH = msrs.IA32_LBR_CTL.index, msrs.IA32_LBR_DEPTH.index
_AREA = bytes(xsave.AREA_SIZE)


class FacilityBank(NamedTuple):
    """The registers of one processor; see `bank.Bank`. IA32_XSS[15] must be 1. select: the name of the filter."""

    facility: Facility
    state: State
    filters: tuple[int, ...]
    select: int = NOBODY

    @property
    def enable(self) -> int:
        """Return LBREn."""
        return self.state.ctl & msrs.CTL_LBREN

    @property
    def stack(self) -> tuple[Any, ...]:
        """Return the entries, newest first."""
        return tuple([entry if entry.source else 0 for entry in self.state.stack])

    def switched(self, enable: int) -> FacilityBank:
        """Return the bank after VM entry or VM exit: LBR_CTL changes by the VMCS."""
        ctl = self.filters[self.select] | msrs.CTL_LBREN * enable
        return self._replace(state=settled(self.facility, self.state._replace(ctl=ctl)))

    def controlled(self, enable: int) -> FacilityBank:
        """Return the bank after WRMSR of IA32_LBR_CTL with the filter that is there."""
        return self.programmed(self.select, enable)

    def programmed(self, select: int, enable: int) -> FacilityBank:
        """Return the bank after WRMSR of IA32_LBR_CTL."""
        ctl = self.filters[select] | msrs.CTL_LBREN * enable
        return self._after(Wrmsr(_CTL, ctl))._replace(select=select)

    def filtered(self, select: int) -> FacilityBank:
        """Return the bank after the guest's filter was noted; KVM intercepts IA32_LBR_CTL and writes it at entry."""
        return self._replace(select=select)

    def wiped(self) -> FacilityBank:
        """Return the bank after WRMSR of IA32_LBR_DEPTH with the depth that is there."""
        return self._after(Wrmsr(_DEPTH, self.state.depth))

    def cleared(self) -> FacilityBank:
        """Return the bank with every record and the filter 0."""
        return self.wiped().programmed(NOBODY, self.enable)

    def read_enable(self) -> tuple[FacilityBank, int]:
        """Return the bank and LBREn."""
        return self, self.enable

    def read_newest(self) -> tuple[FacilityBank, int]:
        """Return the bank and whether entry 0 is there."""
        return self, int(self.state.stack[0].source != 0)

    def saved(self) -> tuple[FacilityBank, tuple[Any, ...]]:
        """Return the bank and its entries, after XSAVES."""
        return self, self.stack

    def loaded(self, select: int, stack: tuple[Any, ...]) -> FacilityBank:
        """Return the bank after XRSTORS of an area with these entries, this filter and LBREn as it is."""
        ctl = self.filters[select] | msrs.CTL_LBREN * self.enable
        image = self.state._replace(ctl=ctl, stack=_entries(stack))
        _, outcome = step(self.facility, image, Xsaves(_AREA))
        if not isinstance(outcome, Image):
            raise InternalError(f"XSAVES of a bank came to {outcome}")
        return self._after(Xrstors(outcome.content))._replace(select=select)

    def written(self, stack: tuple[Any, ...]) -> FacilityBank:
        """Return the bank after a guest wrote entries, which a processor has executed already."""
        return self._replace(state=self.state._replace(stack=_entries(stack)))

    def recorded(self, tag: int) -> FacilityBank:
        """Return the bank after a taken branch of kernel code, at an address that its tag makes up."""
        here = tag << 32 | 0x100
        return self._after(Branch(here, here + 8, int(BranchKind.REL_JMP), 0, 0, 0))

    def filled(self, tag: int) -> FacilityBank:
        """Return the bank after as many such branches as it has entries."""
        bank = self
        for _ in range(self.state.depth):
            bank = bank.recorded(tag)
        return bank

    def _after(self, action: Action) -> FacilityBank:
        state, outcome = step(self.facility, self.state, action)
        if outcome != DONE:
            raise InternalError(f"{action} of the host's came to {outcome}")
        return self._replace(state=state)


def _entries(stack: tuple[Any, ...]) -> tuple[Entry, ...]:
    # A tag, where one takes the place of an entry, stands at the address that `recorded` makes up.
    return tuple(
        [entry if isinstance(entry, Entry) else Entry(entry << 32 | 0x100, entry << 32 | 0x108, 0) if entry else EMPTY
         for entry in stack]
    )  # fmt: skip
