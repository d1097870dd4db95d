"""The bank over the facility: what each operation leaves in the registers, worked out from the manual's bits."""

from __future__ import annotations

import pytest

from archlbr.arch.cpuid import Leaf1C
from archlbr.arch.outcomes import DONE
from archlbr.errors import InternalError
from archlbr.lbr import state as facility_state
from archlbr.lbr.actions import Wrmsr
from archlbr.lbr.bank import HOST, NOBODY, VM
from archlbr.lbr.facility_bank import FacilityBank
from archlbr.lbr.state import EMPTY, Entry
from archlbr.lbr.step import step
from archlbr.lbr.tagged import Lbrs

LBREN, OS, USR = 1, 1 << 1, 1 << 2
REL_JMP, KINDS = 1 << 17, 0x7F << 16
# Nobody's filter lets in nothing; the host's relative jumps of its kernel; the guest's everything of either ring.
FILTERS = (0, OS | REL_JMP, OS | USR | KINDS)
# LBR_INFO.BR_TYPE of a near relative jump is 2, in bits 59:56 (reference architecture.md 2.5).
JUMP = 2 << 56


def bank(select: int = NOBODY, enable: int = 0, stack: tuple[Entry, ...] = ()) -> FacilityBank:
    facility = facility_state.architectural(Leaf1C.of(depths=(8,), timed=False))
    state, outcome = step(facility, facility_state.initial(facility), Wrmsr(0xDA0, 1 << 15))
    assert outcome == DONE
    filled = (*stack, *(EMPTY,) * (8 - len(stack)))
    return FacilityBank(facility, state._replace(ctl=FILTERS[select] | enable, stack=filled), FILTERS, select)


def held(made: FacilityBank) -> tuple[int, int, tuple[Entry, ...]]:
    return made.state.ctl, made.select, made.state.stack


OLD = Entry(0x1_0000_0100, 0x1_0000_0108, JUMP)
A_BRANCH = Entry(0x2_0000_0100, 0x2_0000_0108, JUMP)


def test_a_branch_stands_at_its_tag_s_address_as_a_jump_of_the_kernel_s() -> None:
    made = bank(HOST, 1, (OLD,)).recorded(2)
    assert held(made) == (LBREN | OS | REL_JMP, HOST, (A_BRANCH, OLD, *(EMPTY,) * 6))
    assert made.stack == (A_BRANCH, OLD, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(("select", "enable"), [(NOBODY, 1), (HOST, 0), (VM, 0)], ids=["shut", "off", "off too"])
def test_nothing_is_recorded_by_a_shut_filter_or_while_off(select: int, enable: int) -> None:
    before = bank(select, enable, (OLD,))
    assert before.recorded(2) == before.filled(2) == before


def test_filling_leaves_as_many_branches_as_there_are_entries() -> None:
    assert held(bank(VM, 1, (OLD,)).filled(2)) == (LBREN | OS | USR | KINDS, VM, (A_BRANCH,) * 8)


@pytest.mark.parametrize("enable", [0, 1])
def test_enabling_keeps_the_filter_that_is_there_and_the_records(enable: int) -> None:
    for before in (bank(VM, 0, (OLD,)), bank(VM, 1, (OLD,))):
        expected = (OS | USR | KINDS | enable, VM, (OLD, *(EMPTY,) * 7))
        assert held(before.switched(enable)) == expected
        assert held(before.controlled(enable)) == expected
        assert held(before.programmed(HOST, enable)) == (OS | REL_JMP | enable, HOST, (OLD, *(EMPTY,) * 7))
        assert before.controlled(enable).enable == enable
        assert before.controlled(enable).read_enable() == (before.controlled(enable), enable)


def test_a_filter_that_is_noted_is_written_at_the_next_entry() -> None:
    noted = bank(HOST, 0).filtered(VM)
    assert held(noted) == (OS | REL_JMP, VM, (EMPTY,) * 8)
    assert noted.switched(1).state.ctl == LBREN | OS | USR | KINDS


@pytest.mark.parametrize("enable", [0, 1])
def test_wiping_keeps_control_and_filter_and_clearing_the_enable_bit_alone(enable: int) -> None:
    before = bank(VM, enable, (OLD, A_BRANCH))
    assert held(before.wiped()) == (OS | USR | KINDS | enable, VM, (EMPTY,) * 8)
    assert held(before.cleared()) == (enable, NOBODY, (EMPTY,) * 8)


def test_reading_changes_nothing() -> None:
    for stack, there in (((OLD,), 1), ((EMPTY, OLD), 0), ((), 0)):
        before = bank(VM, 1, stack)
        assert before.read_newest() == (before, there)
        assert before.read_enable() == (before, 1)
        shown = tuple(entry if entry.source else 0 for entry in stack)
        assert before.saved() == (before, (*shown, *(0,) * (8 - len(stack))))


@pytest.mark.parametrize("enable", [0, 1])
def test_loading_takes_records_and_tags_and_the_filter(enable: int) -> None:
    # A tag where an entry belongs was written by an intercepted WRMSR: it has an address, and no INFO.
    tagged = Entry(0x2_0000_0100, 0x2_0000_0108, 0)
    loaded = bank(HOST, enable, (A_BRANCH,) * 8).loaded(VM, (OLD, 2, 0, 0, 0, 0, 0, OLD))
    expected = (OLD, tagged, *(EMPTY,) * 5, OLD)
    assert held(loaded) == (OS | USR | KINDS | enable, VM, expected)
    assert loaded.state.xss == 1 << 15
    written = bank(HOST, enable, (A_BRANCH,) * 8).written((OLD, 2, 0, 0, 0, 0, 0, OLD))
    assert held(written) == (OS | REL_JMP | enable, HOST, expected)


def test_an_instruction_of_the_host_s_that_faults_is_ours_to_repair() -> None:
    broken = bank()._replace(filters=(1 << 5,) * 3)
    with pytest.raises(InternalError, match=r"^Wrmsr\(msr=5326, value=32, cpl=0\) of the host's came to GeneralProt"):
        broken.controlled(0)


def test_each_operation_on_tags() -> None:
    made = Lbrs(1, 5, (3, 0, 2))
    off = Lbrs(0, 5, (3, 0, 2))
    assert made.switched(0) == made.controlled(0) == off
    assert off.switched(1) == off.controlled(1) == made
    assert (made.programmed(7, 0), off.programmed(7, 1)) == (Lbrs(0, 7, (3, 0, 2)), Lbrs(1, 7, (3, 0, 2)))
    assert (made.filtered(7), off.filtered(7)) == (Lbrs(1, 7, (3, 0, 2)), Lbrs(0, 7, (3, 0, 2)))
    assert (made.wiped(), made.cleared()) == (Lbrs(1, 5, (0, 0, 0)), Lbrs(1, NOBODY, (0, 0, 0)))
    assert (off.wiped(), off.cleared()) == (Lbrs(0, 5, (0, 0, 0)), Lbrs(0, NOBODY, (0, 0, 0)))
    assert (made.read_enable(), off.read_enable()) == ((made, 1), (off, 0))
    assert (made.read_newest(), Lbrs(1, 5, (0, 3)).read_newest()) == ((made, 1), (Lbrs(1, 5, (0, 3)), 0))
    assert made.saved() == (made, (3, 0, 2))
    assert (made.loaded(7, (1, 1, 0)), off.loaded(7, (1, 1, 0))) == (Lbrs(1, 7, (1, 1, 0)), Lbrs(0, 7, (1, 1, 0)))
    assert (made.written((1, 1, 0)), off.written((1, 1, 0))) == (Lbrs(1, 5, (1, 1, 0)), Lbrs(0, 5, (1, 1, 0)))
    assert (made.recorded(9), off.recorded(9)) == (Lbrs(1, 5, (9, 3, 0)), off)
    assert (made.filled(9), off.filled(9)) == (Lbrs(1, 5, (9, 9, 9)), off)
