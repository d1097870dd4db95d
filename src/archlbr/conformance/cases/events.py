"""What stops and starts recording: DEBUGCTL, PMI, #DB, NMI.

Rows 55 and 57 to 61 and 83 to 86 of reference kvm-series.md D; users-and-peers.md 3.2 (4).
"""

from __future__ import annotations

from archlbr.arch import msrs
from archlbr.conformance import questions as q
from archlbr.conformance.case import Case, Known
from archlbr.conformance.cases import words as w
from archlbr.conformance.cases.branches import ALL, A, B, empty, entry

E, P = q.Event, q.Place
FREEZE = msrs.DEBUGCTL_FREEZE_LBRS
STATUS = msrs.IA32_PERF_GLOBAL_STATUS.index
STATUS_RESET = msrs.IA32_PERF_GLOBAL_STATUS_RESET.index
LBR_FRZ = msrs.LBR_FRZ
G_V4 = q.Setup(w.HW, w.GUEST._replace(pmu_version=5))
LEGACY = q.Setup(w.NO_LBR, w.PLAIN._replace(lbr_format=5))

_DEBUGCTL = (
    Case(
        "debugctl-0-accepted",
        "a written bit 0 is accepted and reads 0",
        "P6, LX; 3edca52ce7",
        w.G,
        (w.wr(w.DEBUGCTL, 1), w.rd(w.DEBUGCTL, w.reads(0))),
        55,
    ),
    Case(
        "debugctl-0-does-not-record",
        "bit 0 does not start recording",
        "P6, LX",
        w.G,
        (w.wr(w.CTL, ALL & ~1), w.wr(w.DEBUGCTL, 1), w.jump(*A), *empty(0)),
        55,
    ),
    Case(
        "debugctl-0-does-not-stop",
        "a write without bit 0 does not stop recording",
        "P6, LX",
        w.G,
        (w.wr(w.CTL, ALL), w.wr(w.DEBUGCTL, 0), w.jump(*A), *entry(0, A)),
        55,
    ),
    Case(
        "debugctl-freeze-kept",
        "bit 11 is kept",
        "P6",
        w.G,
        (w.wr(w.DEBUGCTL, FREEZE), w.rd(w.DEBUGCTL, w.reads(FREEZE))),
        58,
    ),
    *(
        Case(
            f"debugctl-reserved-{bit}",
            "a reserved bit faults",
            "architecture.md 1.3",
            w.G,
            (w.wr(w.DEBUGCTL, 1 << bit, w.gp), w.rd(w.DEBUGCTL, w.reads(0))),
            55,
        )
        for bit in (3, 4, 5, 16, 32, 63)
    ),
    Case(
        "debugctl-0-harmless",
        "on any host a guest that sets bit 0 goes on, with a fault or without",
        "users-and-peers.md 3.2, 4 (Xen 3edca52ce7)",
        w.ANY_PLAIN,
        (w.wr(w.DEBUGCTL, 1, w.done_or_gp), w.wr(w.DEBUGCTL, 0), w.rd(w.DEBUGCTL, w.reads(0))),
        55,
    ),
    Case(
        "debugctl-0-legacy",
        "without the architectural facility bit 0 is kept and works",
        "SC P6, P4",
        LEGACY,
        (
            w.wr(w.DEBUGCTL, 1),
            w.rd(w.DEBUGCTL, w.reads(1)),
            w.jump(*A),
            w.rd(w.LBR_TOS, w.reads(1)),
            w.rd(msrs.MSR_LASTBRANCH_TO_IP.at(1), w.reads(A[1])),
        ),
        57,
    ),
)

_V2_NO_FREEZE = "nothing is frozen for a guest PMU of version 4 or later (base)"
_PMI = (
    Case(
        "pmi-clears-lbren",
        "with FREEZE_LBRS_ON_PMI and PMU version 2 the PMI clears LBREn alone",
        "P6, SC P6",
        w.G,
        (w.wr(w.DEBUGCTL, FREEZE), w.wr(w.CTL, 7), *w.let(E.OVERFLOW), w.rd(w.CTL, w.reads(6))),
        58,
    ),
    Case(
        "pmi-freezes-records",
        "the records stay as they were at the overflow",
        "P6, SC P6",
        w.G,
        (
            w.wr(w.DEBUGCTL, FREEZE),
            w.wr(w.CTL, ALL),
            w.jump(*A),
            *w.let(E.OVERFLOW),
            w.jump(*B),
            *entry(0, A),
            *empty(1),
        ),
        58,
    ),
    Case(
        "pmi-without-freeze",
        "without the bit CTL stays",
        "P6",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.OVERFLOW), w.rd(w.CTL, w.reads(7))),
        59,
    ),
    Case(
        "pmi-v4-keeps-ctl",
        "from version 4 on CTL stays and LBR_FRZ says it",
        "architecture.md 3.6",
        G_V4,
        (
            w.wr(w.DEBUGCTL, FREEZE),
            w.wr(w.CTL, 7),
            *w.let(E.OVERFLOW),
            w.rd(w.CTL, w.reads(7)),
            w.rd(STATUS, w.bits(LBR_FRZ, LBR_FRZ)),
        ),
        60,
        (Known("series-v2", 4, w.bits(LBR_FRZ, 0), _V2_NO_FREEZE),),
    ),
    Case(
        "pmi-v4-pauses",
        "from version 4 on recording is paused",
        "architecture.md 3.6",
        G_V4,
        (
            w.wr(w.DEBUGCTL, FREEZE),
            w.wr(w.CTL, ALL),
            w.jump(*A),
            *w.let(E.OVERFLOW),
            w.jump(*B),
            *entry(0, A),
            *empty(1),
        ),
        60,
        (
            Known("series-v2", 5, w.reads(B[0]), _V2_NO_FREEZE),
            Known("series-v2", 6, w.reads(B[1]), _V2_NO_FREEZE),
            Known("series-v2", 7, w.reads(A[0]), _V2_NO_FREEZE),
            Known("series-v2", 8, w.reads(A[1]), _V2_NO_FREEZE),
        ),
    ),
    Case(
        "pmi-v4-thaws",
        "clearing LBR_FRZ resumes",
        "architecture.md 3.6",
        G_V4,
        (
            w.wr(w.DEBUGCTL, FREEZE),
            w.wr(w.CTL, ALL),
            *w.let(E.OVERFLOW),
            w.wr(STATUS_RESET, LBR_FRZ),
            w.jump(*B),
            *entry(0, B),
        ),
        61,
        (Known("series-v2", 3, w.gp, "LBR_FRZ cannot be cleared, for it is never set (base)"),),
    ),
    Case(
        "pmi-then-enable",
        "LBREn set again resumes over the old records",
        "base text",
        w.G,
        (
            w.wr(w.DEBUGCTL, FREEZE),
            w.wr(w.CTL, ALL),
            w.jump(*A),
            *w.let(E.OVERFLOW),
            w.wr(w.CTL, ALL),
            w.jump(*B),
            *entry(0, B),
            *entry(1, A),
        ),
        61,
    ),
)

_INJECTED = (
    Case(
        "db-clears-lbren",
        "the handler of an injected #DB sees LBREn = 0 and the other bits",
        "P12, JM",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.INJECT_DB), w.rd(w.CTL, w.reads(6))),
        83,
    ),
    Case(
        "db-without-event",
        "the same without a vLBR event",
        "SC P12",
        w.G,
        (*w.let(E.EVENT_FAILS), w.wr(w.CTL, 7), *w.let(E.INJECT_DB), w.rd(w.CTL, w.reads(6))),
        84,
        (Known("series-v2", 3, w.reads(7), "clears LBREn only while the event exists (P12)"),),
    ),
    Case(
        "db-keeps-records",
        "the records stay",
        "P12",
        w.G,
        (w.wr(w.CTL, ALL), w.jump(*A), *w.let(E.INJECT_DB), *entry(0, A)),
        83,
    ),
    Case(
        "bp-keeps-lbren",
        "an injected #BP leaves CTL",
        "P12",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.INJECT_BP), w.rd(w.CTL, w.reads(7))),
        85,
    ),
    Case(
        "nmi-keeps-lbren",
        "an NMI leaves CTL, whatever the queue's exception slot still holds",
        "SC P12",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.INJECT_NMI), w.rd(w.CTL, w.reads(7))),
        86,
        (Known("series-v2", 2, w.reads(6), "an NMI clears LBREn when the stale vector is 1 (P12)"),),
    ),
)

CASES: tuple[Case, ...] = (*_DEBUGCTL, *_PMI, *_INJECTED)
