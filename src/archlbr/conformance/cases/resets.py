"""What clears LBREn for good or for a while: SMI and RSM, INIT, the resets.

Rows 77 to 82 and 87 to 89 of reference kvm-series.md D.
"""

from __future__ import annotations

from archlbr.conformance import questions as q
from archlbr.conformance.case import Case, Known
from archlbr.conformance.cases import words as w
from archlbr.conformance.cases.branches import ALL, A, B, empty, entry

E, P = q.Event, q.Place

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

CASES: tuple[Case, ...] = (*_SMM, *_RESETS)
