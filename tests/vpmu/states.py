"""What the tests of whole states share: a register file by hand, and a vCPU that owns the LBRs."""

from __future__ import annotations

from archlbr.lbr.state import EMPTY, Entry, State
from archlbr.vpmu.designs import ARCHLBR
from tests.vpmu.parts import (
    ALL,
    CTL,
    Vcpu,
)

TEN, LER = Entry(0x10, 0x18, 0), Entry(0x71, 0x72, 0)


def file(depth: int = 32, *entries: Entry, **fields: object) -> State:
    """Return a register file by hand: everything 0 but what is named."""
    stack = (*entries, *(EMPTY,) * (depth - len(entries)))
    return State(0, depth, stack, EMPTY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)._replace(**fields)


def asking(design=ARCHLBR, guest=None) -> Vcpu:
    """A vCPU that owns the LBRs with one record, a LER and a count that runs."""
    v = Vcpu(design, guest=guest)
    v.wr(CTL, ALL)
    filled = {"stack": (TEN, *(EMPTY,) * (v.state.guest.depth - 1)), "ler": LER, "since": 9, "timed": 1, "pending": 2}
    v.state = v.state._replace(lbr=v.state.lbr._replace(**filled))
    return v


def flags(v: Vcpu) -> tuple[int, int, int, int, int]:
    state = v.state
    return state.running, state.owned, state.loaded, state.event, state.offer
