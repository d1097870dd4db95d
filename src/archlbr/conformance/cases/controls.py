"""DEPTH and CTL: what they read, what they take, bit by bit, in the guest and from the VMM.

Rows 22 to 35 of reference kvm-series.md D.
"""

from __future__ import annotations

from archlbr.arch.cpuid import GOLDEN_COVE
from archlbr.conformance import questions as q
from archlbr.conformance.answers import VmFail
from archlbr.conformance.case import Case, Known
from archlbr.conformance.cases import words as w
from archlbr.conformance.expectations import Is

_DEPTH = (
    Case("depth-reads", "DEPTH reads D", "P5", w.G, (w.rd(w.DEPTH, w.reads(w.D)),), 22),
    Case(
        "depth-write-empties",
        "a write of D empties every record",
        "P5, SDM",
        w.G,
        (*w.fill(), w.wr(w.DEPTH, w.D), *w.emptied()),
        23,
    ),
    Case(
        "depth-write-keeps-ctl",
        "a write of D leaves CTL as it was",
        "SDM",
        w.G,
        (w.wr(w.CTL, 7), w.wr(w.DEPTH, w.D), w.rd(w.CTL, w.reads(7))),
        23,
    ),
    *(
        Case(
            f"depth-write-{value:#x}",
            "a depth that was not enumerated faults; the value and the records stay",
            "P5",
            w.G,
            (*w.fill(2), w.wr(w.DEPTH, value, w.gp), w.rd(w.DEPTH, w.reads(w.D)), *w.filled(2)),
            24,
        )
        for value in (0, 1, 4, 8, 16, 24, 31, 33, 40, 64, 1 << 32 | 32, 1 << 63, (1 << 64) - 1)
    ),
    *(
        Case(
            f"depth-vmm-write-{value:#x}",
            "the VMM cannot set another depth",
            "P5",
            w.G,
            (w.put(w.DEPTH, value, w.refused), w.get(w.DEPTH, w.reads(w.D))),
            25,
        )
        for value in (0, 8, 16, 33, 1 << 63)
    ),
    Case(
        "depth-vmm-write-same",
        "the VMM may set D, and the records are emptied",
        "P5",
        w.G,
        (*w.fill(1), w.put(w.DEPTH, w.D), *w.emptied(1)),
        25,
    ),
    Case(
        "depth-write-while-host-owns",
        "the host's records stay, the guest's read 0 later",
        "SC P5, LX v7",
        w.G,
        (
            *w.let(q.Event.HOST_PINNED, q.Event.HOST_BRANCH),
            w.wr(w.DEPTH, w.D),
            w.look(q.Place.HARDWARE_FROM, w.reads(q.HOST_FROM)),
            *w.let(q.Event.HOST_PINNED_GONE),
            *w.emptied(1),
        ),
        26,
        (Known("series-v2", 3, w.reads(0), "a raw WRMSR of the hardware's DEPTH empties the host's records (P5)"),),
    ),
)

LEGAL = (1, 2, 4, 6, 7, 8, 9, *(1 << bit for bit in range(16, 23)), 0x7F0000, 0x7F000F)
RESERVED = (*range(4, 16), *range(23, 64))


def _leaf(ebx: int) -> q.Setup:
    return q.Setup(w.HW, w.GUEST._replace(leaf=GOLDEN_COVE._replace(eax=8, ebx=ebx)))


_CTL = (
    Case("ctl-after-reset", "CTL reads 0 after RESET", "P10", w.G, (w.rd(w.CTL, w.reads(0)),), 27),
    *(
        Case(
            f"ctl-write-{value:#x}",
            "a legal value is taken and read back",
            "P6",
            w.G,
            (w.wr(w.CTL, value), w.rd(w.CTL, w.reads(value)), w.get(w.CTL, w.reads(value))),
            28,
        )
        for value in LEGAL
    ),
    *(
        Case(
            f"ctl-reserved-{bit}",
            "a reserved bit faults; the old value stays",
            "P6",
            w.G,
            (w.wr(w.CTL, 6), w.wr(w.CTL, 1 << bit, w.gp), w.rd(w.CTL, w.reads(6))),
            29,
        )
        for bit in RESERVED
    ),
    *(
        Case(
            f"ctl-vmm-reserved-{bit}",
            "the VMM is refused the same bits",
            "P6",
            w.G,
            (w.put(w.CTL, 1 << bit, w.refused), w.get(w.CTL, w.reads(0))),
            34,
        )
        for bit in (4, 15, 23, 32, 63)
    ),
)

# Rows 30 to 33: (name, 1CH:EBX, bits that fault, bits that work, row)
_FILTERS = (
    ("no-cpl-filter", 6, (2, 4, 6, 3), (1, 8, 0x10000), 30),
    ("no-branch-filter", 5, tuple(1 << bit for bit in range(16, 23)), (1, 7, 8), 31),
    ("no-call-stack", 3, (8, 9), (1, 7, 0x7F0007), 32),
    ("no-filter", 0, (2, 4, 8, 0x10000), (1, 0), 33),
)
_FILTER_CASES = tuple(
    Case(
        f"ctl-{name}-{value:#x}",
        f"with leaf 1CH:EBX = {ebx} {'this faults' if expected == w.gp else 'this is taken'}",
        "P6",
        _leaf(ebx),
        (w.wr(w.CTL, value, expected), w.rd(w.CTL, w.reads(0 if expected == w.gp else value))),
        row,
    )
    for name, ebx, illegal, legal, row in _FILTERS
    for values, expected in ((illegal, w.gp), (legal, w.done))
    for value in values
)

_RICHER = q.Setup(w.HW._replace(leaf=GOLDEN_COVE._replace(ebx=3)), w.GUEST)
_RICHER_CASES = (
    Case(
        "ctl-host-lacks-bit",
        "a bit that the guest's leaf has and the host's lacks never reaches the hardware",
        "LX v7; open",
        _RICHER,
        (w.wr(w.CTL, 9, w.done_or_gp), *w.let(q.Event.ENTRY), w.look(q.Place.HARDWARE_CTL, w.bits(8, 0))),
        35,
        tuple(
            Known("series-v2", step, Is(VmFail(33)), "the guest's leaf alone decides, and the next entry fails (P6)")
            for step in (0, 1)
        ),
    ),
)

CASES: tuple[Case, ...] = (*_DEPTH, *_CTL, *_FILTER_CASES, *_RICHER_CASES)
