"""The one legal order in which a vCPU's state is written back, and what each other order loses."""

from __future__ import annotations

import itertools

import pytest

from archlbr.errors import InputError
from archlbr.vpmu.designs import ARCHLBR
from archlbr.vpmu.image import unpack
from archlbr.vpmu.snapshot import Part, pieces, written
from tests.vpmu.parts import (
    ALL,
    CTL,
    DEPTH,
    FROM,
    INFO,
    LBR_XSS,
    TO,
    XSS,
)
from tests.vpmu.snapshots import into, saved, source, target

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
