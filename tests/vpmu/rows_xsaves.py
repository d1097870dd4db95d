"""Rows 62, 64 and 66 to 69: IA32_XSS, its size in CPUID, XSAVES and XRSTORS."""

from __future__ import annotations

from archlbr.vpmu.actions import CpuidInstruction, Xsetbv
from tests.vpmu.parts import CTL, DEPTH, FROM, LBR_XSS, XSS, host_records, leaves
from tests.vpmu.table import row


@row("62 XSS and CPUID.0DH.1:EBX", (576, "ok", 576 + 808, "ok", 576, (0x328, 0, 1, 0)))
def _(make, _design):
    v = make()
    leaf = CpuidInstruction(0xD, 1)
    before = v.do(leaf)[1]
    grown = v.wr(XSS, LBR_XSS), v.do(leaf)[1]
    back = v.wr(XSS, 0), v.do(leaf)[1]
    return before, *grown, *back, v.do(CpuidInstruction(0xD, 15))


@row("62 no other leaf is touched", True)
def _(make, _design):
    v = make()
    asked = [CpuidInstruction(*leaf) for leaf in ((1,), (7,), (0xA,), (0xD, 0), (0xD, 2), (0xD, 15), (0x1C,))]
    before = [v.do(leaf) for leaf in asked]
    v.wr(XSS, LBR_XSS)
    return before == [v.do(leaf) for leaf in asked]


@row("62 XCR0 counts too", ("ok", 832, 1640, "#GP", "#GP"))
def _(make, _design):
    v = make()
    outcome, leaf = v.do(Xsetbv(7)), CpuidInstruction(0xD, 1)
    small = v.do(leaf)[1]
    v.wr(XSS, LBR_XSS)
    return outcome, small, v.do(leaf)[1], v.do(Xsetbv(6)), v.do(Xsetbv(1 << 9 | 1))


@row("64 XSS, bit by bit", {15: "ok"})
def _(make, _design):
    outcomes = {bit: make().wr(XSS, 1 << bit) for bit in range(64)}
    return {bit: outcome for bit, outcome in outcomes.items() if outcome == "ok"}


@row(
    "66 XSAVES, clear, XRSTORS", ({"xstate": LBR_XSS, "ctl": 7, "depth": 32, "froms": [0x10, 0x30]}, "ok", 7, [0x10, 0])
)
def _(make, _design):
    v = make()
    v.wr(XSS, LBR_XSS)
    v.wr(CTL, 7)
    v.wr(FROM, 0x10)
    v.wr(FROM + 1, 0x30)
    image = v.xsaves()
    v.wr(DEPTH, 32)
    v.wr(CTL, 0)
    return image, v.xrstors(7, 32, (0x10, 0x20, 0)), v.rd(CTL), v.froms(2)


@row("67 XRSTORS of another DEPTH", ("ok", 32, [0, 0]))
def _(make, _design):
    v = make()
    v.wr(XSS, LBR_XSS)
    v.wr(CTL, 7)
    v.wr(FROM, 0x99)
    return v.xrstors(7, 16, (0x10, 0x20, 0)), v.rd(DEPTH), v.froms(2)


@row("68 LBREn by XRSTORS", ("ok", 7, 1, 1), ("ok", 7, 0, 0))
def _(make, _design):
    v = make()
    v.wr(XSS, LBR_XSS)
    outcome = v.xrstors(7, 32)
    return outcome, v.rd(CTL), v.state.event, v.state.owned


@row(
    "69 XSAVES while the host owns",
    ([0x10], {"xstate": LBR_XSS, "ctl": 6, "depth": 32, "froms": [0x77, 0]}),
    ([0x10], {"xstate": LBR_XSS, "ctl": 6, "depth": 32, "froms": [0x10, 0]}),
)
def _(make, _design):
    v = make()
    v.wr(XSS, LBR_XSS)
    host_records(v)
    v.wr(CTL, 6)
    if v.state.vmcs.xss_exiting:
        v.wr(FROM, 0x77)
    return v.hardware[:1], v.xsaves()


@row("69 XRSTORS while the host owns", ("ok", 0x55, [0x10]), ("ok", 0x55, [0x55]))
def _(make, _design):
    v = make()
    v.wr(XSS, LBR_XSS)
    host_records(v)
    outcome = v.xrstors(6, 32, (0x55, 0x66, 0))
    return outcome, v.rd(FROM), v.hardware[:1]


@row("69 XRSTORS round the guest's leaf", ("#GP", 1), ("ok", 7))
def _(make, _design):
    v = make(guest=leaves(leaf1c=leaves().leaf1c._replace(ebx=6)))
    v.wr(XSS, LBR_XSS)
    v.wr(CTL, 1)
    return v.xrstors(7, 32), v.rd(CTL)
