"""Rows 56 and 90 to 95: L1 with the controls hidden, L1 with them offered, L2."""

from __future__ import annotations

from archlbr.lbr.actions import Branch
from archlbr.vpmu.actions import HostBranch, HostControl, NestedEntry, NestedExit, Release
from tests.vpmu.parts import ALL, CTL, DEBUGCTL, DEPTH, ENTRY, EXIT, FROM, LBR_XSS, XSS
from tests.vpmu.table import row

ENTRY_CTLS, EXIT_CTLS, TRUE_EXIT_CTLS, TRUE_ENTRY_CTLS = 0x484, 0x483, 0x48F, 0x490
OFFERED = {"nested": 1}


def in_l1(make, host=None):
    v = make(host)
    v.wr(CTL, ALL)
    v.enter()
    v.branch(0x10, 0x18)
    return v


@row("90 capabilities hidden", (0, 0, 0, 0))
def _(make, _design):
    v = make()
    return v.rd(ENTRY_CTLS), v.rd(EXIT_CTLS), v.rd(TRUE_ENTRY_CTLS), v.rd(TRUE_EXIT_CTLS)


@row("90 capabilities offered", (ENTRY << 32, EXIT << 32, ENTRY << 32, EXIT << 32), (0, 0, 0, 0))
def _(make, _design):
    v = make(OFFERED)
    return v.rd(ENTRY_CTLS), v.rd(EXIT_CTLS), v.rd(TRUE_ENTRY_CTLS), v.rd(TRUE_EXIT_CTLS)


@row("91 hidden controls in vmcs12", ("fail 7", "fail 7", 0, ALL))
def _(make, _design):
    v = in_l1(make)
    outcomes = v.do(NestedEntry(ENTRY)), v.do(NestedEntry(0, EXIT))
    return *outcomes, v.state.nested.active, v.rd(CTL)


@row("91 an illegal value in vmcs12", ("fail 33", 0, ALL), ("fail 7", 0, ALL))
def _(make, _design):
    v = in_l1(make, OFFERED)
    return v.do(NestedEntry(ENTRY, EXIT, 1 << 4)), v.state.nested.active, v.rd(CTL)


@row("92 L1 to L2 and back, hidden", ("ok", (0, 0), ALL, [0x10, 0], [0x50, 0x10]))
def _(make, _design):
    v = in_l1(make)
    outcome = v.do(NestedEntry())
    v.branch(0x99, 0x9A)
    fields = v.do(NestedExit())
    seen = outcome, fields, v.rd(CTL), v.froms(2)
    v.branch(0x50, 0x58)
    return *seen, v.froms(2)


@row("92 L2 over exits to L0", (ALL, [0x10, 0]))
def _(make, _design):
    v = in_l1(make)
    v.do(NestedEntry())
    v.exit()
    v.enter()
    v.branch(0x99, 0x9A)
    v.do(NestedExit())
    return v.rd(CTL), v.froms(2)


@row("92 offered: loaded, saved and cleared", (0x20007, [0x99, 0x10], (0x20007, 0), 0), "fail 7")
def _(make, _design):
    v = in_l1(make, OFFERED)
    outcome = v.do(NestedEntry(ENTRY, EXIT, 0x20007, 0, 1))
    if outcome != "ok":
        return outcome
    inside = v.rd(CTL)
    v.branch(0x98, 0x9A, 1)
    v.branch(0x99, 0x9B, 2)
    return inside, v.froms(2), v.do(NestedExit()), v.rd(CTL)


@row("92 offered: not cleared", ((6, 0), 6), "fail 7")
def _(make, _design):
    v = in_l1(make, OFFERED)
    outcome = v.do(NestedEntry(ENTRY, 0, 7, 0, 1))
    if outcome != "ok":
        return outcome
    v.wr(CTL, 6)
    return v.do(NestedExit()), v.rd(CTL)


@row("92 offered and not loaded: CTL stays", (ALL, (ALL, 0)), (0, (0, 0)))
def _(make, _design):
    v = in_l1(make, OFFERED)
    v.do(NestedEntry(0, 0, 0, 0, 1))
    inside = v.rd(CTL)
    return inside, v.do(NestedExit())


@row("93 L2 under a host session", (0, [0x10, 0], ALL), (ALL, [0x99, 0x10], ALL))
def _(make, _design):
    v = make()
    v.do(Release())
    v.enter()
    v.do(NestedEntry())
    v.exit()
    v.do(HostControl(ALL))
    v.do(HostBranch(Branch(0x10, 0x18, 1)))
    v.enter()
    inside = v.state.lbr.ctl
    v.branch(0x99, 0x9A)
    v.exit()
    return inside, v.hardware[:2], v.state.lbr.ctl


@row("94 L2 and the registers, hidden", ("#GP", "#GP", "#GP"), (0, "ok", 0))
def _(make, _design):
    v = make()
    v.enter()
    v.do(NestedEntry(passthrough=1))
    return v.rd(CTL), v.wr(DEPTH, 32), v.rd(FROM)


@row("94 L2 and XSAVES, hidden", {"outcome": "#GP"}, {"xstate": LBR_XSS, "ctl": 0, "depth": 32, "froms": [0x10, 0]})
def _(make, _design):
    v = in_l1(make)
    v.wr(XSS, LBR_XSS)
    v.do(NestedEntry())
    return v.xsaves()


@row("94 L2 and L1's bitmap, offered", ("to L1", "to L1", ALL), (0, "ok", ALL))
def _(make, _design):
    v = in_l1(make, OFFERED)
    v.do(NestedEntry())
    outcomes = v.rd(CTL), v.wr(FROM, 0)
    v.do(NestedExit())
    return *outcomes, v.rd(CTL)


@row("95 no VMWRITE where the controls are hidden", (0, 0, 0, "ok"))
def _(make, _design):
    v = make({"entry_controls": 0, "exit_controls": 0})
    outcome = v.enter()
    return v.state.vmcs.entry_controls, v.state.vmcs.exit_controls, v.state.vmcs.lbr_ctl, outcome


@row("56 DEBUGCTL in vmcs12", ((0, 0), (0, 0)), ((0, 1), (0, 1)))
def _(make, _design):
    v, w = in_l1(make), in_l1(make)
    v.do(NestedEntry(debugctl=1))
    w.do(NestedEntry())
    w.wr(DEBUGCTL, 1)
    return v.do(NestedExit()), w.do(NestedExit())


@row("userspace and L1's CTL while L2 runs", (ALL, "refused", "ok", 6, 6), (0, "refused", "ok", 6, ALL))
def _(make, _design):
    v = in_l1(make)
    v.do(NestedEntry())
    seen = v.hi(CTL), v.hi(CTL, 1 << 5), v.hi(CTL, 6), v.hi(CTL)
    v.do(NestedExit())
    return *seen, v.rd(CTL)
