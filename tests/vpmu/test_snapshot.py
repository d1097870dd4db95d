"""Save and restore: the same vCPU comes out, in one order only, whole or not at all."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archlbr.arch.cpuid import Leaf0A, Leaf0D, Leaf0D1, Leaf07, Leaf1C
from archlbr.errors import InputError
from archlbr.lbr.actions import Rsm, Smi
from archlbr.vpmu.actions import Grant, NestedEntry, NestedExit, Release, SchedOut, Xsetbv
from archlbr.vpmu.designs import ARCHLBR
from archlbr.vpmu.image import WORDS, Image, pack, unpack
from archlbr.vpmu.snapshot import Part, mismatch, pieces, restore, save, written
from tests.vpmu.parts import (
    A_PMC,
    AVX,
    CTL,
    DEBUGCTL,
    DEPTH,
    EVTSEL,
    FIXED,
    FIXED_CTRL,
    FROM,
    GLOBAL_CTRL,
    INFO,
    LBR_XSS,
    LER_FROM,
    LER_INFO,
    LER_TO,
    OLD_FROM,
    PERF_CAPABILITIES,
    PMC,
    SELECT,
    STATUS,
    STATUS_SET,
    TO,
    TOS,
    XSS,
    Vcpu,
    leaves,
    old_part,
    pmu,
)

ALL = 0x7F0007
WIDE = leaves((8, 16, 32))
READABLE = [CTL, DEPTH, LER_FROM, LER_TO, LER_INFO, DEBUGCTL, XSS, STATUS, GLOBAL_CTRL, PMC, EVTSEL, FIXED, FIXED_CTRL,
            PERF_CAPABILITIES, *(block + x for block in (FROM, TO, INFO) for x in range(16))]  # fmt: skip


def source(guest=WIDE, **options):
    """A guest with something in every register: DEPTH 16, three records, a frozen stack, counters on the move."""
    v = Vcpu(ARCHLBR, options or None, guest)
    v.wr(XSS, LBR_XSS)
    v.wr(DEPTH, 16)
    v.wr(CTL, ALL)
    v.wr(DEBUGCTL, 1 << 11)
    v.wr(EVTSEL, 0x5300C4)
    v.wr(PMC, 0x1234)
    v.wr(FIXED, (1 << 47) + 5)
    v.wr(FIXED_CTRL, 0xB)
    v.wr(GLOBAL_CTRL, 1 << 32 | 1)
    v.run((0x30, 0x38), (0x20, 0x28), (0x10, 0x18))
    v.wr(INFO + 2, 0x123)
    v.wr(LER_FROM, 0x71)
    v.wr(LER_TO, 0x72)
    v.wr(LER_INFO, 7 << 56)
    v.wr(STATUS_SET, 1 << 58 | 1)
    return v


def target(guest=WIDE, **options):
    return Vcpu(ARCHLBR, options or None, guest)


def into(w, data, **options):
    w.state = restore(ARCHLBR, w.platform, w.state, data, **options)
    return w


def readable(v):
    return {msr: v.hi(msr) for msr in READABLE}


def saved(v):
    return save(ARCHLBR, v.platform, v.state)


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
    off = leaves(leaf07=Leaf07(), leaf1c=None, leaf0d1=Leaf0D1(0xF, 0, 0, 0), components=(AVX,))
    v, w = target(off), target(off)
    v.wr(EVTSEL, 0x5300C4)
    assert into(w, saved(v)).rd(EVTSEL) == 0x5300C4


# The order -----------------------------------------------------------------------------------------------------------

LEGAL = (Part.XSS, Part.DEPTH, Part.RECORDS, Part.CTL)


@pytest.mark.parametrize("xrstors", [False, True], ids=["by MSRs", "by XRSTORS"])
@pytest.mark.parametrize(
    "order", list(itertools.permutations(LEGAL)), ids=lambda order: " ".join(p.name for p in order)
)
def test_one_order_is_legal(order, xrstors):
    parts = {piece.part: piece for piece in pieces(unpack(saved(source())), xrstors=xrstors)}
    w = target()
    chosen = [parts[part] for part in order]
    if order == LEGAL:
        after = written(ARCHLBR, w.platform, w.state, chosen)
        assert after.guest.depth == 16
        return
    with pytest.raises(
        InputError, match=r"^cannot restore in the order .*: the one legal order is XSS, DEPTH, RECORDS, CTL$"
    ):
        written(ARCHLBR, w.platform, w.state, chosen)


@pytest.mark.parametrize("missing", list(Part), ids=lambda part: part.name)
def test_a_missing_part_is_refused(missing):
    parts = [piece for piece in pieces(unpack(saved(source()))) if piece.part != missing]
    w = target()
    with pytest.raises(InputError, match="the one legal order"):
        written(ARCHLBR, w.platform, w.state, parts)


def ioctl_order(order):
    """Write the values by ioctl in any order, the guest taking a branch after each: FROM_0 each time, and the end."""
    v, w = source(), target()
    v.wr(0x390, 1 << 58 | 1)
    steps = {
        Part.XSS: [(XSS, LBR_XSS)],
        Part.DEPTH: [(DEPTH, 16)],
        Part.RECORDS: [(block + x, v.hi(block + x)) for block in (FROM, TO, INFO) for x in range(16)],
        Part.CTL: [(CTL, ALL)],
    }
    newest = []
    for source_address, part in enumerate(order, 0x90):
        for msr, value in steps[part]:
            w.hi(msr, value)
        w.run((source_address, 0x98))
        newest.append(w.hi(FROM))
    return newest, [w.hi(FROM + x) for x in range(4)]


def test_why_records_come_after_depth_and_before_ctl():
    assert ioctl_order(LEGAL) == ([0, 0, 0x10, 0x93], [0x93, 0x10, 0x20, 0x30])
    late_depth = ioctl_order((Part.XSS, Part.RECORDS, Part.DEPTH, Part.CTL))
    assert late_depth == ([0, 0x10, 0, 0x93], [0x93, 0, 0, 0])
    # With CTL first the guest records 92H, and the records are written over it.
    early_ctl = ioctl_order((Part.XSS, Part.DEPTH, Part.CTL, Part.RECORDS))
    assert early_ctl == ([0, 0, 0x92, 0x93], [0x93, 0x10, 0x20, 0x30])


def test_why_xrstors_comes_after_xss_and_depth():
    def after(*writes):
        w = target()
        w.wr(CTL, 6)
        for msr, value in writes:
            w.wr(msr, value)
        outcome = w.xrstors(6, 16, (0x10, 0x18, 0))
        w.wr(XSS, LBR_XSS)
        return outcome, w.rd(FROM)

    assert after((XSS, LBR_XSS), (DEPTH, 16)) == ("ok", 0x10)
    assert after((XSS, LBR_XSS)) == ("ok", 0)  # DEPTH is 32: the image clears
    assert after((DEPTH, 16)) == ("#GP", 0)  # XSS[15] is 0: the image names a component that is not enabled


def test_xrstors_needs_xss_in_the_snapshot():
    v = source()
    v.wr(XSS, 0)
    w = target()
    with pytest.raises(InputError, match=r"IA32_XSS\[15\] is 0"):
        into(w, saved(v), xrstors=True)
    assert into(w, saved(v)).rd(FROM) == 0x10


# The target ----------------------------------------------------------------------------------------------------------


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


def test_a_legacy_target_refuses():
    w = old_part(ARCHLBR)
    with pytest.raises(InputError, match="of the legacy format 5"):
        restore(ARCHLBR, w.platform, w.state, saved(source()))


def test_a_richer_target_takes_it():
    lesser = leaves((8, 16, 32), leaf1c=Leaf1C(0x0B, 3, 1, 0))
    v = Vcpu(ARCHLBR, None, lesser)
    v.wr(DEPTH, 8)
    assert into(target(), saved(v)).rd(DEPTH) == 8


# The bytes -----------------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_refused():
    data = saved(source())
    w = target()
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            with pytest.raises(InputError) as refused:
                into(w, bytes(damaged))
            assert "\n" not in str(refused.value)


def test_every_truncation_and_addition_is_refused():
    data = saved(source())
    w = target()
    for size in range(len(data)):
        with pytest.raises(InputError):
            into(w, data[:size])
    for more in (b"\0", data):
        with pytest.raises(InputError, match="cut or added to"):
            into(w, data + more)


def test_the_layout_by_hand():
    data = saved(source())
    assert data[:8] == b"ALBRVCPU"
    assert struct.unpack_from("<II", data, 8) == (1, len(data))
    words = struct.unpack_from("<34Q", data, 16)
    assert words[:11] == (0x3F, 0x0B, 7, 7, LBR_XSS, 5, ALL, 16, 0x71, 0x72, 7 << 56)
    assert words[11:18] == (0, 0, 1, LBR_XSS, 1, 1 << 11, 0x3F)
    assert words[18:23] == (0, 0, 0xB, 1 << 32 | 1, 1 << 58 | 1)
    assert words[23:31] == (0,) * 8
    assert words[31:] == (8, 4, 16)
    lists = 16 + 34 * 8
    assert struct.unpack_from("<Q", data, lists)[0] == 0x1234
    records = lists + (8 + 8 + 4) * 8
    assert struct.unpack_from("<6Q", data, records)[:2] == (0x10, 0x18)
    assert len(data) == records + 16 * 24 + 32


def test_another_version_is_refused_by_its_number():
    data = bytearray(saved(source()))
    struct.pack_into("<I", data, 8, 2)
    with pytest.raises(InputError, match=r"^vCPU snapshot of version 2: this archlbr reads version 1; take a new one$"):
        unpack(bytes(data))


def test_values_a_guest_could_not_have_are_refused():
    w = target()
    before = w.state
    for field, value in (("msr_lbr_ctl", 1 << 5), ("msr_lbr_depth", 24), ("xss", 1 << 8), ("ler_from", 1 << 50)):
        image: Image = unpack(saved(source()))._replace(**{field: value})
        with pytest.raises(InputError):
            into(w, pack(image))
        assert w.state is before


KINDS = {
    "architectural": (source, target),
    "off": (lambda: target(leaves(leaf1c=None)), lambda: target(leaves(leaf1c=None))),
    "legacy": (lambda: old_part(ARCHLBR), lambda: old_part(ARCHLBR)),
}


@pytest.mark.parametrize("kind", KINDS)
@given(st.sampled_from(WORDS), st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 63).map(lambda bit: 1 << bit)))
@settings(max_examples=600, deadline=None, derandomize=True, database=None)
def test_one_word_of_any_value_is_refused_or_restored_as_it_is(kind, field, value):
    make, fresh = KINDS[kind]
    data = pack(unpack(saved(make()))._replace(**{field: value}))
    w = fresh()
    try:
        into(w, data)
    except InputError:
        return
    image = unpack(saved(w))
    # What the guest was told is the target's own from now on.
    told = ("cpuid_1c_eax", "cpuid_1c_ebx", "cpuid_1c_ecx", "xss_legal")
    mine = unpack(saved(fresh()))
    assert image == unpack(data)._replace(**{name: getattr(mine, name) for name in told}, asked=image.asked)


def test_bytes_and_image_are_one():
    data = saved(source())
    assert pack(unpack(data)) == data
    assert mismatch(ARCHLBR, target().platform, target().state, unpack(data)) == ""
