"""The shape of a register's block in `vpmu.registers` and `vpmu.counter_registers`.

It has the slots of `lbr.registers.Register`, each asked of a vCPU instead of a processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.arch.msrs import Msr
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform, State


class Register(NamedTuple):
    """One block; `x` is the number inside a series, 0 for a single register.

    exists(state): the guest has the register. reachable(state, x): register x of the series answers. reset(state): its
    value after a cold reset of the vCPU. read(design, state, x): what RDMSR returns. write(design, platform, state, x,
    value): what a write becomes, None for #GP(0). seen_by: who else reads or writes it.
    """

    msr: Msr
    exists: Callable[[State], bool]
    reachable: Callable[[State, int], bool]
    reset: Callable[[State], int]
    read: Callable[[Design, State, int], int]
    write: Callable[[Design, Platform, State, int, int], State | None]
    seen_by: str


def always(_state: State, _x: int = 0) -> bool:
    """Say yes."""
    return True


def zero(_state: State) -> int:
    """Return the reset value of most registers."""
    return 0


def refused(_design: Design, _platform: Platform, _state: State, _x: int, _value: int) -> State | None:
    """Return None: a write faults."""
    return None
