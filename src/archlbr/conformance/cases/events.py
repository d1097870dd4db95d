"""What stops and starts recording: DEBUGCTL, PMI, #DB, NMI, SMI and RSM, INIT and the resets.

Rows 55 to 61 and 77 to 89 of reference kvm-series.md D; users-and-peers.md 3.2 (4, 9).
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

_SHORT = q.Setup(w.HW, w.GUEST._replace(long_mode=0))
_CLOBBER = "RSM keeps LBREn and loses every other bit (P13)"
_SMM = (
    Case(
        "smi-clears-lbren",
        "in SMM LBREn is 0, the other bits stay",
        "P13",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.SMI), w.get(w.CTL, w.reads(6))),
        77,
    ),
    Case(
        "smi-saves",
        "SMRAM FF10H holds CTL",
        "P13",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.SMI), w.look(P.SMRAM, w.reads(7))),
        77,
    ),
    Case(
        "smi-keeps-records",
        "the handler's branches are not recorded",
        "P13; SDM",
        w.G,
        (w.wr(w.CTL, ALL), w.jump(*A), *w.let(E.SMI), w.jump(*B), *w.let(E.RSM), *entry(0, A), *empty(1)),
        77,
    ),
    Case(
        "rsm-restores",
        "RSM gives CTL back",
        "SC P13",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.SMI, E.RSM), w.rd(w.CTL, w.reads(7))),
        78,
        (Known("series-v2", 3, w.reads(1), _CLOBBER),),
    ),
    Case(
        "rsm-keeps-disabled",
        "LBREn that was 0 stays 0",
        "P13; PB v11",
        w.G,
        (w.wr(w.CTL, 6), *w.let(E.SMI, E.RSM), w.rd(w.CTL, w.reads(6))),
        79,
        (Known("series-v2", 3, w.reads(0), _CLOBBER),),
    ),
    Case(
        "rsm-keeps-handlers-bits",
        "only LBREn is restored; the handler's other bits stay",
        "SC P13",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.SMI), w.wr(w.CTL, 0x10006), *w.let(E.RSM), w.rd(w.CTL, w.reads(0x10007))),
        80,
        (Known("series-v2", 4, w.reads(1), _CLOBBER),),
    ),
    Case(
        "rsm-records-again",
        "after RSM recording goes on",
        "P13",
        w.G,
        (w.wr(w.CTL, ALL), *w.let(E.SMI, E.RSM), w.jump(*A), *entry(0, A)),
        78,
        (
            Known("series-v2", 4, w.reads(0), _CLOBBER),
            Known("series-v2", 5, w.reads(0), _CLOBBER),
        ),
    ),
    Case(
        "smm-migrates",
        "a migration in SMM keeps the saved LBREn",
        "PB v11",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.SMI, E.MIGRATE, E.RSM), w.rd(w.CTL, w.reads(7))),
        81,
        (Known("series-v2", 4, w.reads(1), _CLOBBER),),
    ),
    Case(
        "smm-32-bit",
        "a vCPU without long mode gets no LBRs, rather than losing LBREn in silence",
        "SC P13",
        _SHORT,
        (w.rd(w.CTL, w.gp),),
        82,
        (Known("series-v2", 0, w.reads(0), "SMM neither saves nor clears LBREn of a 32-bit guest (P13)"),),
    ),
)

_RESETS = (
    Case(
        "init-keeps-ctl",
        "INIT keeps CTL",
        "P6, SC P12",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.INIT), w.rd(w.CTL, w.reads(7))),
        87,
        (Known("series-v2", 2, w.reads(6), "INIT is taken for a warm reset (P12)"),),
    ),
    Case(
        "init-keeps-records",
        "INIT keeps DEPTH and the records",
        "P6, SC P12",
        w.G,
        (w.wr(w.CTL, 1), *w.fill(), *w.let(E.INIT), w.rd(w.DEPTH, w.reads(w.D)), *w.filled()),
        87,
    ),
    Case(
        "reset-clears-ctl",
        "RESET: CTL = 0",
        "P10",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.COLD_RESET), w.rd(w.CTL, w.reads(0))),
        88,
    ),
    Case(
        "reset-ends-event",
        "RESET ends the event",
        "P10",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.ENTRY, E.EXIT, E.COLD_RESET), w.look(P.EVENT, w.reads(0))),
        88,
    ),
    Case(
        "reset-clears-records",
        "a cold RESET empties the records",
        "SDM (mem)",
        w.G,
        (*w.fill(2), *w.let(E.COLD_RESET), *w.emptied(2)),
        88,
        tuple(
            Known(
                "series-v2",
                7 + 3 * x + part,
                w.reads(w.record(x)[part]),
                "the records in hardware are not cleared (P10)",
            )
            for x in (0, 1)
            for part in range(3)
        ),
    ),
    Case(
        "reset-depth", "RESET: DEPTH reads D", "SDM (mem)", w.G, (*w.let(E.COLD_RESET), w.rd(w.DEPTH, w.reads(w.D))), 88
    ),
    Case(
        "warm-reset-ctl",
        "a warm reset clears LBREn and keeps the rest",
        "SDM, quoted in P12",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.WARM_RESET), w.rd(w.CTL, w.reads(6))),
        89,
        (Known("series-v2", 2, w.reads(0), "a warm reset is a cold one (P10)"),),
    ),
    Case(
        "warm-reset-records",
        "a warm reset keeps the records and DEPTH",
        "SDM, quoted in P12",
        w.G,
        (w.wr(w.CTL, 1), *w.fill(2), *w.let(E.WARM_RESET), *w.filled(2), w.rd(w.DEPTH, w.reads(w.D))),
        89,
    ),
)

CASES: tuple[Case, ...] = (*_DEBUGCTL, *_PMI, *_INJECTED, *_SMM, *_RESETS)
