"""The counters of a guest: what they count, and what they do when they overflow."""

from __future__ import annotations

from archlbr.vpmu.actions import Count
from tests.vpmu.parts import (
    A_PMC,
    DEBUGCTL,
    EVTSEL,
    FIXED,
    FIXED_CTRL,
    GLOBAL_CTRL,
    PMC,
    STATUS,
    STATUS_RESET,
    leaves,
    pmu,
)
from tests.vpmu.table import row

BRANCHES = 0x5300C4  # EN, INT, OS, USR; event C4H


def counting(v, select=BRANCHES, distance=1):
    v.wr(EVTSEL, select)
    v.wr(PMC, (1 << 48) - distance & 0xFFFFFFFF)
    v.wr(GLOBAL_CTRL, 1)
    return v.do(Count(branches=1))


@row("counters overflow", ("ok", 0xFFFF_FFFF_FFFF, "overflow 0x1", 0, 1, "ok", 0))
def _(make, _design):
    v = make()
    first = counting(v, distance=2)
    seen = first, v.rd(PMC), v.do(Count(branches=1)), v.rd(PMC), v.rd(STATUS)
    return *seen, v.wr(STATUS_RESET, 1), v.rd(STATUS)


@row("counters without PMI", ("ok", 1))
def _(make, _design):
    v = make()
    return counting(v, BRANCHES & ~(1 << 20)), v.rd(STATUS)


@row("counters that stand still", (0xFFFF_FFFF_FFFF,) * 3)
def _(make, _design):
    off, kernel, stopped = make(), make(), make()
    counting(off, BRANCHES & ~(1 << 22))
    counting(kernel, BRANCHES & ~(1 << 16))
    counting(stopped)
    stopped.wr(PMC, 0xFFFFFFFF)
    stopped.wr(GLOBAL_CTRL, 0)
    stopped.do(Count(branches=1))
    return off.rd(PMC), kernel.rd(PMC), stopped.rd(PMC)


@row("a fixed counter", ("ok", "overflow 0x100000000", 2, 1 << 32))
def _(make, _design):
    v = make()
    v.wr(FIXED, (1 << 48) - 3)
    v.wr(FIXED_CTRL, 0xB)
    v.wr(GLOBAL_CTRL, 1 << 32)
    return v.do(Count(instructions=2)), v.do(Count(instructions=3)), v.rd(FIXED), v.rd(STATUS)


@row("fixed counters by ring", ([2, 0], [0, 5], [2, 5], [0, 0]))
def _(make, _design):
    seen = []
    for enable in (1, 2, 3, 0):
        v = make()
        v.wr(FIXED_CTRL, enable << 4)
        v.wr(GLOBAL_CTRL, 2 << 32)
        v.do(Count(cycles=2, cpl=0))
        kernel = v.rd(FIXED + 1)
        v.do(Count(cycles=5, cpl=3))
        seen.append([kernel, v.rd(FIXED + 1) - kernel])
    return tuple(seen)


@row("counter registers, reserved bits", ("#GP", "#GP", "#GP", "#GP", "#GP", "#GP", 15))
def _(make, _design):
    v = make(guest=leaves(leaf0a=pmu(5)))
    faults = v.wr(EVTSEL, 1 << 35), v.wr(EVTSEL, 1 << 21), v.wr(GLOBAL_CTRL, 1 << 4), v.wr(FIXED_CTRL, 4)
    return *faults, v.wr(PMC + 4, 0), v.rd(A_PMC), v.rd(GLOBAL_CTRL)


@row("PMU 1 has no global registers", ("#GP", "#GP", "#GP", "overflow 0x1"))
def _(make, _design):
    v = make(guest=leaves(leaf0a=pmu(1)))
    v.wr(EVTSEL, BRANCHES)
    v.wr(PMC, 0xFFFFFFFF)
    return v.rd(STATUS), v.wr(GLOBAL_CTRL, 0), v.wr(DEBUGCTL, 1 << 11), v.do(Count(branches=1))
