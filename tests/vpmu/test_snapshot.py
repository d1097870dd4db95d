"""Save and restore: the same vCPU comes out, or the target refuses and is left as it was."""

from __future__ import annotations

import pytest

from archlbr.arch.cpuid import Leaf0A, Leaf0D, Leaf0D1, Leaf1C
from archlbr.errors import InputError
from archlbr.lbr.actions import Rsm, Smi
from archlbr.vpmu.actions import Grant, NestedEntry, NestedExit, Release, SchedOut, Xsetbv
from archlbr.vpmu.designs import ARCHLBR
from archlbr.vpmu.snapshot import restore, save
from tests.vpmu.parts import (
    A_PMC,
    ALL,
    AVX,
    CTL,
    DEBUGCTL,
    DEPTH,
    EVTSEL,
    FIXED,
    FROM,
    INFO,
    LBR_XSS,
    LER_FROM,
    OFF,
    OLD_FROM,
    PMC,
    SELECT,
    STATUS,
    TOS,
    XSS,
    Vcpu,
    leaves,
    old_part,
    pmu,
)
from tests.vpmu.snapshots import WIDE, into, readable, saved, source, target


@pytest.mark.parametrize("xrstors", [False, True], ids=["by MSRs", "by XRSTORS"])
def test_what_was_saved_is_there_again(xrstors):
    v, w = source(), target()
    data = saved(v)
    into(w, data, xrstors=xrstors)
    values = readable(w)
    assert values == readable(v)
    assert [values[msr] for msr in (CTL, DEPTH, XSS, DEBUGCTL, LER_FROM, STATUS)] == [
        ALL, 16, LBR_XSS, 1 << 11, 0x71, 1 << 58 | 1,
    ]  # fmt: skip
    assert [values[FROM + x] for x in range(4)] == [0x10, 0x20, 0x30, 0]
    assert values[INFO + 2] == 0x123
    assert values[FIXED] == (1 << 47) + 5
    assert saved(w) == data


def test_recording_goes_on_after_the_first_entry():
    v, w = source(), target()
    into(w, saved(v))
    w.run((0x90, 0x98))
    assert w.froms(2) == [0x10, 0x20]  # frozen, as it was
    w.wr(0x390, 1 << 58)
    w.run((0x90, 0x98))
    assert w.froms(3) == [0x90, 0x10, 0x20]


def test_a_counter_s_high_bits_survive():
    guest = leaves(leaf0a=pmu(4))
    v, w = (Vcpu(ARCHLBR, {"capabilities": 1 << 13 | 0x3F}, guest) for _ in range(2))
    assert v.wr(A_PMC, 0xABCD_1234_5678) == "ok"
    assert into(w, saved(v)).rd(PMC) == 0xABCD_1234_5678


@pytest.mark.parametrize("where", ["owned", "released", "scheduled out", "running"])
def test_saving_reads_the_guest_wherever_it_is(where):
    v = source()
    expected = saved(v)
    if where == "released":
        v.do(Release())
    elif where == "scheduled out":
        v.do(SchedOut())
    elif where == "running":
        v.enter()
    assert saved(v) == expected


def test_a_busy_target_takes_the_records_and_gets_the_lbrs_later():
    v, w = source(), target()
    w.do(Release())
    into(w, saved(v))
    assert (w.state.owned, w.rd(FROM), w.hardware[:1]) == (0, 0x10, [0])
    w.do(Grant())
    assert (w.state.owned, w.rd(FROM), w.hardware[:1]) == (1, 0x10, [0x10])


def test_in_smm():
    v, w = source(), target()
    v.do(Smi())
    into(w, saved(v))
    assert w.rd(CTL) == ALL & ~1
    w.do(Rsm())
    assert w.rd(CTL) == ALL


def test_in_l2():
    v, w = source(), target()
    v.enter()
    v.do(NestedEntry())
    into(w, saved(v))
    assert w.state.nested.active == 1
    w.do(NestedExit())
    assert w.rd(CTL) == ALL


def test_legacy_lbrs():
    v, w = old_part(ARCHLBR), old_part(ARCHLBR)
    v.wr(DEBUGCTL, 1)
    v.wr(SELECT, 2)
    v.wr(LER_FROM, 0x71)
    v.enter()
    v.branch(0x10, 0x18, cpl=0)
    w.state = restore(ARCHLBR, w.platform, w.state, saved(v))
    assert (w.rd(SELECT), w.rd(TOS), w.rd(OLD_FROM + 1), w.rd(DEBUGCTL)) == (2, 1, 0x10, 1)
    assert w.hi(LER_FROM) == 0x71
    assert save(ARCHLBR, w.platform, w.state) == saved(v)


def test_no_lbrs():
    v, w = target(OFF), target(OFF)
    v.wr(EVTSEL, 0x5300C4)
    assert into(w, saved(v)).rd(EVTSEL) == 0x5300C4


def with_leaf(**words):
    return leaves((8, 16, 32), leaf1c=WIDE.leaf1c._replace(**words))


@pytest.mark.parametrize(
    ("guest", "said"),
    [
        pytest.param(leaves((32,)), r"the source's depths are \(8, 16, 32\), the target's \(32,\)", id="fewer depths"),
        pytest.param(leaves((8, 16)), r"the source's depths", id="no depth of 32"),
        pytest.param(with_leaf(ebx=5), r"the target's CPUID.1CH lacks EBX 0x2", id="no branch filter"),
        pytest.param(with_leaf(ebx=3, ecx=6), r"lacks EBX 0x4, ECX 0x1", id="no call stack, no misprediction"),
        pytest.param(leaves(leaf1c=None), r"the source's LBRs are architectural, the target's off", id="no LBRs"),
        pytest.param(leaves((8, 16, 32), leaf0a=pmu(5)), r"8 \+ 4 counters, the target 4 \+ 3", id="fewer counters"),
        pytest.param(leaves((8, 16, 32), leaf0a=Leaf0A.of(4)), r"of version 5", id="PMU 4"),
        pytest.param(
            leaves((8, 16, 32), leaf0d1=Leaf0D1(0xF, 0, 0, 0), components=(AVX,)),
            r"IA32_XSS lacks components 0x8000",
            id="no component 15",
        ),
    ],
)
def test_a_lesser_target_refuses_and_is_left_as_it_was(guest, said):
    w = target(guest)
    before = w.state
    with pytest.raises(InputError, match=said) as refused:
        into(w, saved(source()))
    assert "\n" not in str(refused.value)
    assert w.state is before


def test_a_target_without_a_component_of_xcr0_refuses():
    v = source()
    assert v.do(Xsetbv(7)) == "ok"
    with pytest.raises(InputError, match="the target's XCR0 lacks components 0x4"):
        into(target(leaves((8, 16, 32), leaf0d=Leaf0D(3))), saved(v))
    assert into(target(), saved(v)).state.xcr0 == 7


def test_a_target_that_offers_l1_other_controls_refuses():
    with pytest.raises(InputError, match="offers L1"):
        into(target(nested=1), saved(source()))


def test_a_target_with_narrower_fixed_counters_refuses_what_would_not_fit():
    narrow = leaves((8, 16, 32), leaf0a=Leaf0A.of(5, fixed_width=40))
    v = source()
    with pytest.raises(InputError, match="a fixed counter holds 48 bits, the target's have 40"):
        into(target(narrow), saved(v))
    v.wr(FIXED, (1 << 39) + 5)
    assert into(target(narrow), saved(v)).rd(FIXED) == (1 << 39) + 5


@pytest.mark.parametrize(("in_l2", "legal"), [(0, 1), (0, 0), (1, 1)], ids=["L1", "refused", "L2"])
def test_the_counters_freeze_bit_goes_along_where_the_target_has_it(in_l2, legal):
    v, w = target(freezes_counters=1), target(freezes_counters=legal)
    assert v.wr(DEBUGCTL, 1 << 12) == "ok"
    if in_l2:
        v.do(NestedEntry())
    if not legal:
        with pytest.raises(InputError, match="msr_debugctl holds 0x1000, which no vCPU has"):
            into(w, saved(v))
        return
    into(w, saved(v))
    assert saved(w) == saved(v)
    assert w.rd(DEBUGCTL) == (0 if in_l2 else 1 << 12)


def test_a_legacy_target_refuses():
    w = old_part(ARCHLBR)
    with pytest.raises(InputError, match="of the legacy format 5"):
        restore(ARCHLBR, w.platform, w.state, saved(source()))


def test_a_richer_target_takes_it():
    lesser = leaves((8, 16, 32), leaf1c=Leaf1C(0x0B, 3, 1, 0))
    v = Vcpu(ARCHLBR, None, lesser)
    v.wr(DEPTH, 8)
    assert into(target(), saved(v)).rd(DEPTH) == 8
