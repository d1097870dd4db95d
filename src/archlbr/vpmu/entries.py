"""Where a guest's entries and LER are, and how one register of them is read and written.

`registers` builds its FROM, TO, INFO and LER blocks from these. An entry is a tuple of FROM, TO and INFO; `at` says
which of the three. Authority: reference kvm-series.md B 14, P14; rows 21, 43 to 46.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.lbr.state import ARCH, Entry
from archlbr.vpmu.state import State, with_guest, with_lbr

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.lbr import state as lbr_state
    from archlbr.vpmu.designs.protocol import Design
    from archlbr.vpmu.state import Platform

FROM, TO, INFO = range(3)


def file_of(design: Design, state: State) -> lbr_state.State | None:
    """Return the registers that hold the guest's entries, or None where KVM reads 0 and drops what is written.

    The processor's while owned; else KVM's copy. Series v2 goes to the processor all the same (P14), and keeps the
    old way for legacy LBRs (intel_pmu_handle_lbr_msrs_access).
    """
    if state.owned:
        return state.lbr
    if design.raw_records:
        return state.lbr if state.rules.flavour == ARCH else None
    return state.guest


def with_file(design: Design, state: State, file: lbr_state.State) -> State:
    """Return the state with those registers replaced."""
    return with_lbr(state, file) if state.owned or design.raw_records else with_guest(state, file)


def entry_read(at: int) -> Callable[[Design, State, int], int]:
    """Return the read of one register of an entry."""

    def read(design: Design, state: State, x: int) -> int:
        file = state.lbr if state.owned else file_of(design, state)
        return 0 if file is None else file.stack[x][at]

    return read


def entry_write(
    at: int, writable: Callable[[Platform, int], bool] | None
) -> Callable[[Design, Platform, State, int, int], State | None]:
    """Return the write of one register of an entry; what the hardware refuses, KVM refuses."""

    def write(design: Design, platform: Platform, state: State, x: int, value: int) -> State | None:
        if writable is not None and not writable(platform, value):
            return None
        file = file_of(design, state)
        if file is None:
            return state
        # Lists, for this is on the hot path and they are changed in place.
        stack = list(file.stack)
        entry = list(stack[x])
        entry[at] = value
        stack[x] = Entry._make(entry)
        held = tuple.__new__(type(file), (file.ctl, file.depth, tuple(stack)) + file[3:])  # noqa: RUF005  # faster
        return with_file(design, state, held)

    return write


def canonical(platform: Platform, value: int) -> bool:
    """Say whether the processor takes the value for an address (architecture.md 2.4)."""
    width = platform.facility.linear_width
    high = value >> width - 1
    return high == 0 or high == (1 << 65 - width) - 1  # faster than a search


def ler_read(at: int) -> Callable[[Design, State, int], int]:
    """Return the read of one LER register."""

    def read(_design: Design, state: State, _x: int) -> int:
        # Without LBRs, and in series v2, KVM answers 0 for the two old numbers (kvm-series.md row 21).
        if not state.rules.ler:
            return 0
        return (state.lbr if state.owned else state.guest).ler[at]

    return read


def ler_write(at: int, address: bool) -> Callable[[Design, Platform, State, int, int], State | None]:
    """Return the write of one LER register."""

    def write(_design: Design, platform: Platform, state: State, _x: int, value: int) -> State | None:
        if not state.rules.ler or (address and not canonical(platform, value)):
            return None
        file = state.lbr if state.owned else state.guest
        ler = Entry._make((*file.ler[:at], value, *file.ler[at + 1 :]))
        file = file._replace(ler=ler)
        return with_lbr(state, file) if state.owned else with_guest(state, file)

    return write
