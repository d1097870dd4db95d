"""Each step of a hand-over by itself, over tags: what is in the registers, what KVM keeps, and who is the owner."""

from __future__ import annotations

import pytest

from archlbr.lbr.bank import GRANT, HOST, LATER, NOBODY, REFUSE, VM
from archlbr.lbr.tagged import Lbrs
from archlbr.vpmu.designs.archlbr_sharing import ARCHLBR
from archlbr.vpmu.designs.handover import answer, enable_in_guest, loaded, resident, saved
from archlbr.vpmu.designs.mediated import MEDIATED
from archlbr.vpmu.designs.request import REQUEST_NAIVE, given_back, served
from archlbr.vpmu.designs.sharing import Vcpu

# The registers with the host's filter and records, and a vCPU with its own.
OF_HOST = Lbrs(1, HOST, (HOST, HOST, NOBODY))
GUEST = VM + 1
KEPT = Vcpu(enable=1, image=(GUEST, NOBODY, GUEST), select=GUEST, want=1)
BLANK = Vcpu(select=GUEST)


@pytest.mark.parametrize(
    ("lost", "full", "empty"),
    [
        # XRSTORS brings records and filter; an image that was never saved is the component's initial state: zeros.
        ((), Lbrs(1, GUEST, (GUEST, NOBODY, GUEST)), Lbrs(1, GUEST, (NOBODY,) * 3)),
        (("load-wipes",), Lbrs(1, GUEST, (NOBODY,) * 3), Lbrs(1, GUEST, (NOBODY,) * 3)),
        (("load-select",), Lbrs(1, HOST, (GUEST, NOBODY, GUEST)), Lbrs(1, HOST, (NOBODY,) * 3)),
        # Without the load the host's records stay; the filter is written all the same.
        (("load",), Lbrs(1, GUEST, (HOST, HOST, NOBODY)), Lbrs(1, GUEST, (HOST, HOST, NOBODY))),
        (("load", "load-select"), OF_HOST, OF_HOST),
    ],
)
def test_what_a_load_leaves_in_the_registers(lost: tuple[str, ...], full: Lbrs, empty: Lbrs) -> None:
    assert (loaded(OF_HOST, KEPT, frozenset(lost)), loaded(OF_HOST, BLANK, frozenset(lost))) == (full, empty)


def test_a_save_copies_records_and_filter_and_leaves_the_registers() -> None:
    assert saved(OF_HOST, BLANK) == (OF_HOST, Vcpu(image=(HOST, HOST, NOBODY), select=HOST))
    # XSAVES of registers in their initial state writes nothing (SDM vol. 1, 13.11: init optimization).
    nothing = Lbrs(0, GUEST, (NOBODY,) * 3)
    assert saved(nothing, KEPT) == (nothing, KEPT._replace(image=(), select=GUEST))


def test_a_request_that_is_served_empties_the_registers_for_the_host() -> None:
    lbrs, vcpu, owner = served(Lbrs(1, GUEST, (GUEST, NOBODY, NOBODY)), KEPT)
    assert lbrs == Lbrs(0, GUEST, (NOBODY,) * 3)
    assert vcpu == Vcpu(enable=1, image=(GUEST, NOBODY, NOBODY), select=GUEST, want=0)
    assert owner == HOST


def test_the_guest_gets_its_records_back_with_recording_off() -> None:
    assert given_back(OF_HOST, KEPT, 1) == (Lbrs(0, GUEST, (GUEST, NOBODY, GUEST)), VM + 1)
    assert given_back(OF_HOST, BLANK, 0) == (Lbrs(0, GUEST, (NOBODY,) * 3), VM)


def test_what_perf_is_answered() -> None:
    owners = (NOBODY, HOST, VM, VM + 1)
    assert [answer(ARCHLBR, owner, exclude) for owner in owners for exclude in (0, 1)] == [GRANT] * 8
    deferred = ARCHLBR._replace(lost=frozenset({"claim-defer"}))
    assert [answer(deferred, owner, 0) for owner in owners] == [GRANT, GRANT, LATER, LATER]
    assert [answer(REQUEST_NAIVE, owner, 0) for owner in owners] == [GRANT, GRANT, LATER, LATER]
    # Mediated, perf refuses an event that would count in the guest, whoever owns the registers.
    assert [answer(MEDIATED, owner, 0) for owner in owners] == [REFUSE] * 4
    assert [answer(MEDIATED, owner, 1) for owner in owners] == [GRANT] * 4


def test_whose_records_the_registers_hold() -> None:
    assert [resident(owner, 1) for owner in (NOBODY, HOST, VM, VM + 1, VM + 2)] == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("lost", "level", "enable", "held", "after"),
    [
        ((), 1, 1, 0, 1),
        ((), 1, 0, 1, 0),
        # L2 asks for nothing: it runs with LBREn 0 whatever L1's is.
        ((), 2, 1, 1, 0),
        (("vmenter-l2",), 2, 1, 0, 1),
        (("vmenter-l2",), 2, 0, 1, 0),
        # Without the load of the enable bit, what the registers held stays.
        (("vmenter-enable",), 1, 1, 0, 0),
        (("vmenter-enable",), 1, 0, 1, 1),
        (("vmenter-enable",), 2, 0, 1, 1),
    ],
)
def test_the_enable_bit_after_entry(lost: tuple[str, ...], level: int, enable: int, held: int, after: int) -> None:
    assert enable_in_guest(Vcpu(enable=enable, level=level), held, frozenset(lost)) == after
