"""What the tests of a vCPU's snapshot share: a guest with something in every register, and where it is restored."""

from __future__ import annotations

from archlbr.vpmu.designs import ARCHLBR
from archlbr.vpmu.snapshot import restore, save
from tests.vpmu.parts import (
    ALL,
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
    PERF_CAPABILITIES,
    PMC,
    STATUS,
    STATUS_SET,
    TO,
    XSS,
    Vcpu,
    leaves,
)

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
