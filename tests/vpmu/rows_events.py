"""Rows 58 to 61, 77 to 80 and 82 to 89: PMI, SMM, #DB, NMI, INIT, resets."""

from __future__ import annotations

from archlbr.lbr.actions import Branch, ColdReset, DebugException, DeepCState, Init, Rsm, Smi, WarmReset
from archlbr.vpmu.actions import Grant, InjectDebug, InjectNmi, InjectVector, ReadSmram, Release
from tests.vpmu.parts import (
    ALL,
    CTL,
    DEBUGCTL,
    DEPTH,
    EVTSEL,
    FREEZE,
    FROM,
    FRZ,
    GLOBAL_CTRL,
    INFO,
    LBR_XSS,
    LER_FROM,
    STATUS,
    STATUS_RESET,
    STATUS_SET,
    XSS,
    leaves,
    pmu,
)
from tests.vpmu.rows_counters import BRANCHES, counting
from tests.vpmu.table import row


def frozen(make, version, freeze=FREEZE):
    v = make(guest=leaves(leaf0a=pmu(version)))
    v.wr(CTL, ALL)
    v.wr(DEBUGCTL, freeze)
    v.enter()
    v.branch(0x10, 0x18)
    outcome = counting(v)
    v.branch(0x30, 0x38)
    return v, outcome


@row("58 freeze, PMU 2", ("overflow 0x1", ALL & ~1, [0x10, 0], 1))
def _(make, _design):
    v, outcome = frozen(make, 2)
    return outcome, v.rd(CTL), v.froms(2), v.rd(STATUS)


@row("58 freeze, PMU 3", (ALL & ~1, [0x10, 0]))
def _(make, _design):
    v, _ = frozen(make, 3)
    return v.rd(CTL), v.froms(2)


@row("59 no freeze", (ALL, [0x30, 0x10]))
def _(make, _design):
    v, _ = frozen(make, 2, 0)
    return v.rd(CTL), v.froms(2)


@row("60 freeze, PMU 4 and 5", ((ALL, FRZ | 1, [0x10, 0]),) * 2, ((ALL, 1, [0x30, 0x10]),) * 2)
def _(make, _design):
    seen = []
    for version in (4, 5):
        v, _ = frozen(make, version)
        seen.append((v.rd(CTL), v.rd(STATUS), v.froms(2)))
    return tuple(seen)


@row("60 frozen over an exit", (FRZ | 1, [0x10, 0]), (1, [0x50, 0x30]))
def _(make, _design):
    v, _ = frozen(make, 4)
    v.exit()
    v.run((0x50, 0x58))
    return v.rd(STATUS), v.froms(2)


@row("61 thawed, PMU 2", ("ok", [0x50, 0x10]))
def _(make, _design):
    v, _ = frozen(make, 2)
    outcome = v.wr(CTL, ALL)
    v.branch(0x50, 0x58)
    return outcome, v.froms(2)


@row("61 thawed, PMU 4", ("ok", 0, [0x50, 0x10]), ("#GP", 1, [0x50, 0x30]))
def _(make, _design):
    v, _ = frozen(make, 4)
    outcome = v.wr(STATUS_RESET, FRZ | 1)
    v.branch(0x50, 0x58)
    return outcome, v.rd(STATUS), v.froms(2)


@row("61 LBR_FRZ written", ("ok", FRZ, [0, 0], "ok", 0), ("#GP", 0, [0x10, 0], "#GP", 0))
def _(make, _design):
    v = make()
    v.wr(CTL, ALL)
    v.enter()
    outcome = v.wr(STATUS_SET, FRZ)
    v.branch(0x10, 0x18)
    return outcome, v.rd(STATUS), v.froms(2), v.wr(STATUS_RESET, FRZ), v.rd(STATUS)


@row("61 LBR_FRZ goes with the LBRs", (0, 0, 1, 0), ("#GP", 0, 0, 0))
def _(make, _design):
    v, w = make(), make()
    v.do(Release())
    v.wr(CTL, ALL)
    v.enter()
    outcome = v.wr(STATUS_SET, FRZ)
    unowned = v.state.lbr.frozen
    v.do(Grant())
    owned = v.state.lbr.frozen
    w.wr(CTL, ALL)
    w.wr(STATUS_SET, FRZ)
    return 0 if outcome == "ok" else outcome, unowned, owned, w.state.lbr.frozen


CYCLES_VALID = 1 << 60


def timed(v, clock):
    v.enter()
    v.do(Branch(0x10, 0x18, 1, clock=clock))
    v.exit()
    return v.rd(INFO) & (CYCLES_VALID | 0xFFFF)


@row("cycles over exits, and over a pause from outside", (0, CYCLES_VALID | 5, 0, CYCLES_VALID | 7, 0))
def _(make, _design):
    v = make()
    v.wr(CTL, ALL)
    seen = [timed(v, 10), timed(v, 15)]
    v.hi(CTL, ALL & ~1)
    v.hi(CTL, ALL)
    seen += [timed(v, 20), timed(v, 27)]
    v.do(InjectDebug())
    v.wr(CTL, ALL)
    return *seen, timed(v, 30)


@row("77 SMI", (ALL & ~1, ALL, [0, 0]))
def _(make, _design):
    v = make()
    v.wr(CTL, ALL)
    v.enter()
    v.do(Smi())
    v.branch(0x10, 0x18, cpl=0)
    return v.rd(CTL), v.do(ReadSmram()), v.froms(2)


@row("78 RSM", (ALL, [0x10, 0]), (1, [0, 0]))
def _(make, _design):
    v = make()
    v.wr(CTL, ALL)
    v.enter()
    v.do(Smi())
    v.do(Rsm())
    v.branch(0x10, 0x18)
    return v.rd(CTL), v.froms(2)


@row("79 SMI and RSM with LBREn = 0", 6, 0)
def _(make, _design):
    v = make()
    v.wr(CTL, 6)
    v.do(Smi())
    v.do(Rsm())
    return v.rd(CTL)


@row("80 the handler's bits stay", 0x20005, 1)
def _(make, _design):
    v = make()
    v.wr(CTL, 7)
    v.do(Smi())
    v.wr(CTL, 0x20004)
    v.do(Rsm())
    return v.rd(CTL)


@row("RSM outside SMM, SMI within", ("#UD", 7))
def _(make, _design):
    v = make()
    v.wr(CTL, 7)
    outcome = v.do(Rsm())
    v.do(Smi())
    v.do(Smi())
    return outcome, v.do(ReadSmram())


@row("83 #DB injected", (6, [0x10, 0], 1))
def _(make, _design):
    v = make()
    v.wr(CTL, 7)
    v.wr(FROM, 0x10)
    v.enter()
    v.do(InjectDebug())
    return v.rd(CTL), v.froms(2), v.state.running


@row("83 #DB by its vector", 6)
def _(make, _design):
    v = make()
    v.wr(CTL, 7)
    v.do(InjectVector(1))
    return v.rd(CTL)


@row("83 #DB delivered by hardware", 6)
def _(make, _design):
    v = make()
    v.wr(CTL, 7)
    v.enter()
    v.do(DebugException())
    return v.rd(CTL)


@row("84 #DB without the event", (6, 6), (7, 6))
def _(make, _design):
    v, w = make(), make()
    for each in (v, w):
        each.do(Release())
        each.wr(CTL, 7)
    v.do(InjectDebug())
    w.do(DebugException())
    return v.rd(CTL), w.rd(CTL)


@row("85 other vectors", (7, 7))
def _(make, _design):
    v = make()
    v.wr(CTL, 7)
    v.do(InjectVector(3))
    first = v.rd(CTL)
    v.do(InjectVector(14))
    return first, v.rd(CTL)


@row("86 an NMI after a #DB", (7, 7), (7, 6))
def _(make, _design):
    v = make()
    v.wr(CTL, 7)
    v.do(InjectNmi(stale=0))
    first = v.rd(CTL)
    v.do(InjectNmi(stale=1))
    return first, v.rd(CTL)


@row("87 INIT", (7, 32, [0x10, 0]), (6, 32, [0x10, 0]))
def _(make, _design):
    v = make()
    v.wr(CTL, 7)
    v.wr(FROM, 0x10)
    v.do(Init())
    return v.rd(CTL), v.rd(DEPTH), v.froms(2)


@row("88 cold reset", (0, 32, [0, 0], 0, 0), (0, 32, [0x10, 0], 0, 0))
def _(make, _design):
    v = make()
    v.wr(CTL, 7)
    v.wr(FROM, 0x10)
    v.do(ColdReset())
    return v.rd(CTL), v.rd(DEPTH), v.froms(2), v.state.event, v.state.owned


@row("88 cold reset and DEPTH", (8, 32, 32), (32, 32, 32))
def _(make, design):
    v = make(guest=leaves((32,) if design.highest_depth_only else (8, 16, 32)))
    v.wr(DEPTH, 8)
    before = v.rd(DEPTH)
    v.do(ColdReset())
    return before, v.rd(DEPTH), v.state.lbr.depth


@row("88 cold reset and the rest", (0, 0, 0, 0, 255))
def _(make, _design):
    v = make()
    v.wr(XSS, LBR_XSS)
    v.wr(DEBUGCTL, FREEZE)
    v.wr(EVTSEL, BRANCHES)
    v.wr(GLOBAL_CTRL, 1)
    v.do(ColdReset())
    return v.rd(XSS), v.rd(DEBUGCTL), v.rd(EVTSEL), v.rd(STATUS), v.rd(GLOBAL_CTRL)


@row("89 warm reset", (6, [0x10, 0], 0x44, 0, 0), (0, [0x10, 0], 0, 0, 0))
def _(make, _design):
    v = make()
    v.wr(CTL, 7)
    v.wr(FROM, 0x10)
    v.wr(LER_FROM, 0x44)
    v.wr(XSS, LBR_XSS)
    v.wr(DEBUGCTL, FREEZE)
    v.do(WarmReset())
    return v.rd(CTL), v.froms(2), v.rd(LER_FROM), v.rd(XSS), v.rd(DEBUGCTL)


@row("89 warm reset in SMM, frozen", (6, 0, "#UD"), (0, 0, "#UD"))
def _(make, _design):
    v = make()
    v.wr(CTL, 7)
    v.wr(STATUS_SET, FRZ)
    v.do(Smi())
    v.do(WarmReset())
    return v.rd(CTL), v.rd(STATUS), v.do(Rsm())


@row("a deep C-state of the guest's own", ([0, 0], 7))
def _(make, _design):
    host = leaves((32,), leaf1c=leaves().leaf1c._replace(eax=0x4000_0008))
    v = make(guest=host, host_cpuid=host)
    v.wr(CTL, 7)
    v.wr(FROM, 0x10)
    v.do(DeepCState())
    return v.froms(2), v.rd(CTL)


# A 32-bit guest has no LBRs in archlbr; the series saves nothing for it.
@row("82 SMM of a 32-bit guest", ("#GP", 0), (7, 0))
def _(make, _design):
    v = make(guest=leaves(long_mode=0))
    v.wr(CTL, 7)
    v.do(Smi())
    return v.rd(CTL), v.do(ReadSmram())
