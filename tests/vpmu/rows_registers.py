"""Rows 19 to 25, 27 to 34, 36 to 41, 43, 46, 47, 55, 57 and 103: the registers and what they record."""

from __future__ import annotations

from archlbr.lbr.state import legacy
from archlbr.vpmu.actions import Deny, DumpVmcs, Grant, Rdpmc, Release
from tests.vpmu.parts import (
    CALL,
    CTL,
    DEBUGCTL,
    DEPTH,
    FROM,
    HIGH,
    INFO,
    LER_FROM,
    LER_INFO,
    LER_TO,
    OLD_FROM,
    OLD_INFO,
    SELECT,
    TO,
    TOS,
    leaves,
    old_part,
)
from tests.vpmu.table import row

ONE_LEAF = {ebx: leaves(leaf1c=leaves().leaf1c._replace(ebx=ebx)) for ebx in (0, 3, 5, 6)}
LEGAL = [1, 2, 4, 6, 7, 8, 9, *(1 << bit for bit in range(16, 23)), 0x7F000F]
ILLEGAL = [1 << bit for bit in (*range(4, 16), *range(23, 64))]


@row("19 legacy registers on an architectural part", {"#GP"})
def _(make, _design):
    v = make()
    return {v.rd(SELECT), v.rd(TOS), v.rd(OLD_FROM), v.wr(SELECT, 0)}


@row("20 index at and above DEPTH", ({"#GP"}, 0))
def _(make, _design):
    v = make()
    return {v.rd(block + 32) for block in (FROM, TO, INFO)} | {v.wr(FROM + 63, 0)}, v.rd(FROM + 31)


@row("20 index above a DEPTH of 8", (0, "#GP", "#GP", 8), ("#GP", "#GP", "#GP", 0))
def _(make, design):
    v = make(guest=leaves((8,)) if not design.highest_depth_only else leaves(leaf1c=None))
    v.wr(CTL, 7)
    return v.rd(FROM + 7), v.rd(FROM + 8), v.wr(TO + 8, 0), v.state.vmcs.passthrough


@row("21 LER is the guest's", (0x1234, HIGH, 7 << 56, "#GP", 0x1234), (0, 0, "#GP", "#GP", 0))
def _(make, _design):
    v = make()
    v.wr(LER_FROM, 0x1234), v.wr(LER_TO, HIGH), v.wr(LER_INFO, 7 << 56)
    seen = v.rd(LER_FROM), v.rd(LER_TO), v.rd(LER_INFO), v.wr(LER_FROM, 1 << 62)
    return *seen, v.hi(LER_FROM)


@row("21 LER without LBRs", (0, 0, "#GP"))
def _(make, _design):
    v = make(guest=leaves(leaf1c=None))
    return v.rd(LER_FROM), v.rd(LER_TO), v.rd(LER_INFO)


@row("22 DEPTH", 32)
def _(make, _design):
    return make().rd(DEPTH)


@row("23 DEPTH written wipes", ([0x10, 0x30], "ok", [0, 0], [0, 0]))
def _(make, _design):
    v = make()
    v.wr(CTL, 0x7F0007)
    v.enter()
    v.branch(0x30, 0x40)
    v.branch(0x10, 0x20)
    return v.froms(2), v.wr(DEPTH, 32), v.froms(2), [v.rd(TO), v.rd(INFO)]


@row("24 other depths", ({"#GP"}, 32, 0x10))
def _(make, _design):
    v = make()
    v.wr(CTL, 7)
    v.wr(FROM, 0x10)
    return {v.wr(DEPTH, value) for value in (0, 8, 16, 33, 64, 1 << 63)}, v.rd(DEPTH), v.rd(FROM)


@row("25 userspace and another depth", ("refused", "ok", 32))
def _(make, _design):
    v = make()
    return v.hi(DEPTH, 8), v.hi(DEPTH, 32), v.hi(DEPTH)


@row("27 CTL after creation", 0)
def _(make, _design):
    return make().rd(CTL)


@row("28 legal values of CTL", LEGAL)
def _(make, _design):
    v = make()
    v.enter()
    return [v.rd(CTL) for value in LEGAL if v.wr(CTL, value) == "ok"]


@row("29 illegal bits of CTL", ({"#GP"}, 6))
def _(make, _design):
    v = make()
    v.wr(CTL, 6)
    return {v.wr(CTL, value) for value in ILLEGAL}, v.rd(CTL)


@row("30 no CPL filter", ("#GP", "#GP", "ok"))
def _(make, _design):
    v = make(guest=ONE_LEAF[6])
    return v.wr(CTL, 2), v.wr(CTL, 4), v.wr(CTL, 1)


@row("31 no branch filter", {"#GP"})
def _(make, _design):
    v = make(guest=ONE_LEAF[5])
    return {v.wr(CTL, 1 << bit) for bit in range(16, 23)}


@row("32 no call-stack mode", ("#GP", "ok"))
def _(make, _design):
    v = make(guest=ONE_LEAF[3])
    return v.wr(CTL, 8), v.wr(CTL, 0x7F0007)


@row("33 nothing but LBREn", ("ok", "ok", "#GP"))
def _(make, _design):
    v = make(guest=ONE_LEAF[0])
    return v.wr(CTL, 1), v.wr(CTL, 0), v.wr(CTL, 2)


@row("34 userspace and illegal bits", ({"refused"}, "ok"))
def _(make, _design):
    v = make()
    return {v.hi(CTL, value) for value in ILLEGAL}, v.hi(CTL, 0x7F000F)


@row("36 newest first, at most DEPTH", ([0x2700, 0x2600, 0x2500, 0x2400], 0x800))
def _(make, _design):
    v = make()
    v.wr(CTL, 0x7F0007)
    v.run(*((0x100 * n, 0x100 * n + 0x80) for n in range(40)))
    return v.froms(4), v.rd(FROM + 31)


@row("37 USR only", [0x10, 0])
def _(make, _design):
    v = make()
    v.wr(CTL, 0x7F0005)
    v.enter()
    v.branch(0x10, 0x20, cpl=3)
    v.branch(HIGH, HIGH + 8, cpl=0)
    return v.froms(2)


@row("38 OS only", [HIGH, 0])
def _(make, _design):
    v = make()
    v.wr(CTL, 0x7F0003)
    v.enter()
    v.branch(HIGH, HIGH + 8, cpl=0)
    v.branch(0x10, 0x20, cpl=3)
    return v.froms(2)


@row("39 one filter bit at a time", [[kind] for kind in range(1, 8)])
def _(make, _design):
    seen = []
    for bit in range(16, 23):
        v = make()
        v.wr(CTL, 1 << bit | 7)
        v.enter()
        for kind in range(1, 8):
            v.branch(kind, 0x100, kind)
        seen.append([source for source in v.froms(8) if source])
    return seen


@row("40 call-stack mode", ([0x20, 0x10, 0], [0x10, 0, 0]))
def _(make, _design):
    v = make()
    v.wr(CTL, 0x38000F)
    v.enter()
    v.branch(0x10, 0x100, CALL)
    v.branch(0x20, 0x200, CALL)
    before = v.froms(3)
    v.branch(0x208, 0x28, 6)
    return before, v.froms(3)


@row("41 LBREn cleared", ([0x10, 0], [0x10, 0]))
def _(make, _design):
    v = make()
    v.wr(CTL, 0x7F0007)
    v.enter()
    v.branch(0x10, 0x20)
    v.wr(CTL, 0x7F0006)
    before = v.froms(2)
    v.branch(0x30, 0x40)
    return before, v.froms(2)


@row("43 written and read back, passed through", ("ok", 0x10, HIGH, 0x123))
def _(make, _design):
    v = make()
    v.wr(CTL, 1)
    v.enter()
    v.wr(CTL, 0)
    return v.wr(FROM + 3, 0x10), v.rd(FROM + 3), v.wr(TO, HIGH) == "ok" and v.rd(TO), v.wr(INFO, 0x123) and v.rd(INFO)


@row("43 written and read back, intercepted", ("ok", 0x10, 0))
def _(make, _design):
    v = make()
    return v.wr(FROM + 3, 0x10), v.rd(FROM + 3), v.state.owned


@row("43 addresses that are not canonical", ("#GP", "#GP"))
def _(make, _design):
    v = make()
    return v.wr(FROM, 1 << 47), v.wr(TO, HIGH - 1)


@row("46 the request is denied", ("ok", 7, 0, 0), ("ok", 7, 0, 0))
def _(make, _design):
    v = make()
    v.do(Deny())
    return v.wr(CTL, 7), v.rd(CTL), v.rd(FROM), v.state.owned


@row("47 what passes through", (0, 32, 0, 32))
def _(make, _design):
    v = make()
    before = v.state.vmcs.passthrough
    v.wr(CTL, 1)
    owned = v.state.vmcs.passthrough
    v.enter()
    v.do(Release())
    released = v.state.vmcs.passthrough
    v.do(Grant())
    return before, owned, released, v.state.vmcs.passthrough


@row("55 DEBUGCTL bit 0", ("ok", 0, 7))
def _(make, _design):
    v = make()
    v.wr(CTL, 7)
    return v.wr(DEBUGCTL, 1), v.rd(DEBUGCTL), v.rd(CTL)


@row("55 other bits of DEBUGCTL", {0: "ok", 1: "ok", 11: "ok"})
def _(make, _design):
    outcomes = {bit: make().wr(DEBUGCTL, 1 << bit) for bit in range(64)}
    return {bit: outcome for bit, outcome in outcomes.items() if outcome == "ok"}


@row("57 legacy LBRs", ("ok", 1, [0x10, 0x30], 1, 0x30, "ok", 0))
def _(_make, design):
    v = old_part(design)
    outcome = v.wr(DEBUGCTL, 1)
    v.enter()
    v.branch(0x10, 0x20)
    v.branch(0x30, 0x40)
    seen = outcome, v.rd(DEBUGCTL), [v.rd(OLD_FROM + 1), v.rd(OLD_FROM + 2)]
    return *seen, v.state.owned, v.hi(OLD_FROM + 2) if v.hi(OLD_FROM + 2) != "refused" else 0, v.wr(TOS, 0), v.rd(TOS)


@row("57 legacy LBRs, another's", (0, "ok", 0), (0, "ok", 0))
def _(_make, design):
    v = old_part(design)
    v.do(Release())
    v.wr(DEBUGCTL, 1)
    v.run((0x10, 0x20))
    seen = v.rd(OLD_FROM + 1), v.wr(TOS, 0)
    return *seen, v.state.lbr.stack[1].source if design.keeps_records else 0


@row("57 DEBUGCTL without LBR asks for nothing", ("ok", 0, 0, 1))
def _(_make, design):
    v = old_part(design)
    outcome = v.wr(DEBUGCTL, 1 << 11), v.state.event
    v.wr(DEBUGCTL, 0)
    return *outcome, v.rd(DEBUGCTL), v.wr(DEBUGCTL, 1) and v.state.owned


@row("57 TOS and LBR_SELECT, by value", ("ok", "#GP", 31, "ok", "#GP", 0x1FF))
def _(_make, design):
    v = old_part(design)
    v.wr(DEBUGCTL, 1)
    tops = v.wr(TOS, 31), v.wr(TOS, 32), v.rd(TOS)
    return *tops, v.wr(SELECT, 0x1FF), v.wr(SELECT, 1 << 10), v.rd(SELECT)


@row("P1 LBR_INFO wherever the format has it", {5: 0, 7: 0})
def _(_make, design):
    read = {form: old_part(design, facility=legacy(form, 32, 4)).rd(OLD_INFO) for form in range(8)}
    return {form: value for form, value in read.items() if value != "#GP"}


@row("103 dump_vmcs", (True, False))
def _(make, _design):
    v, hidden = make(), make({"entry_controls": 0}, leaves(leaf1c=None))
    return "LBR_CTL = 0x" in v.do(DumpVmcs()), "LBR_CTL = 0x" in hidden.do(DumpVmcs())


@row("103 the field in the dump", "LBR_CTL = 0x0000000000000007")
def _(make, _design):
    v = make()
    v.wr(CTL, 7)
    return v.do(DumpVmcs()).splitlines()[-1]


@row("RDPMC", (5, 9, "#GP", "#GP"))
def _(make, _design):
    v = make()
    v.wr(0xC1, 5)
    v.wr(0x309, 9)
    return v.do(Rdpmc(0)), v.do(Rdpmc(1 << 30)), v.do(Rdpmc(8)), v.do(Rdpmc(1 << 30 | 4))


@row("CPL 3", {"#GP"})
def _(make, _design):
    v = make()
    return {v.rd(CTL, 3), v.wr(CTL, 1, 3)}
