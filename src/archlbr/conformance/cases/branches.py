"""Branches as the guest takes them: which are recorded, in which order, and what stays when recording stops.

Rows 36 to 43 and 46 of reference kvm-series.md D. Exact records, never "not zero".
"""

from __future__ import annotations

from archlbr.arch.branches import BR_TYPE, KINDS, BranchKind
from archlbr.conformance import questions as q
from archlbr.conformance.case import Case, Known, Step
from archlbr.conformance.cases import words as w

ALL = 0x7F0007
A, B, C = (0x401000, 0x402000), (0x403000, 0x404000), (0x405000, 0x406000)
_KINDS = (
    BranchKind.COND,
    BranchKind.REL_JMP,
    BranchKind.IND_JMP,
    BranchKind.REL_CALL,
    BranchKind.IND_CALL,
    BranchKind.RET,
    BranchKind.OTHER,
)
_TYPE_MASK = 0xF << 56


def entry(x: int, pair: tuple[int, int]) -> tuple[Step, ...]:
    """Expect entry x to be this branch."""
    return w.rd(w.FROM + x, w.reads(pair[0])), w.rd(w.TO + x, w.reads(pair[1]))


def empty(x: int) -> tuple[Step, ...]:
    """Expect entry x to be empty."""
    return w.rd(w.FROM + x, w.reads(0)), w.rd(w.TO + x, w.reads(0))


def place(x: int) -> tuple[int, int]:
    """Return the addresses of the x-th of many branches."""
    return 0x410000 + 0x40 * x, 0x420000 + 0x40 * x


_ORDER = (
    Case(
        "branch-newest-first",
        "the newest branch is entry 0, the older shift down",
        "SDM (mem)",
        w.G,
        (w.wr(w.CTL, ALL), w.jump(*A), w.jump(*B), w.jump(*C), *entry(0, C), *entry(1, B), *entry(2, A), *empty(3)),
        36,
    ),
    Case(
        "branch-at-most-depth",
        "after D + 1 branches the oldest is gone",
        "SDM (mem)",
        w.G,
        (
            w.wr(w.CTL, ALL),
            *(w.jump(*place(x)) for x in range(w.D + 1)),
            *entry(0, place(w.D)),
            *entry(w.D - 1, place(1)),
            w.rd(w.FROM + w.D, w.gp),
        ),
        36,
    ),
    Case(
        "branch-read-by-vmm",
        "the VMM reads the same records",
        "P14; SC P14",
        w.G,
        (
            w.wr(w.CTL, ALL),
            w.jump(*A),
            w.jump(*B),
            w.get(w.FROM, w.reads(B[0])),
            w.get(w.TO, w.reads(B[1])),
            w.get(w.FROM + 1, w.reads(A[0])),
            w.get(w.TO + 1, w.reads(A[1])),
        ),
        36,
    ),
    Case(
        "branch-none-before-enable",
        "nothing is recorded while LBREn = 0",
        "SDM (mem)",
        w.G,
        (w.wr(w.CTL, ALL & ~1), w.jump(*A), *empty(0)),
        36,
    ),
)

_RINGS = tuple(
    Case(
        f"branch-{name}",
        f"{requirement}",
        "SDM (mem)",
        w.G,
        (w.wr(w.CTL, 0x7F0001 | rings), w.jump(*A, cpl=cpl), *(entry(0, A) if recorded else empty(0))),
        row,
    )
    for name, rings, cpl, recorded, row, requirement in (
        ("usr-only-in-kernel", 4, 0, False, 37, "ring 0 is filtered out"),
        ("usr-only-in-user", 4, 3, True, 37, "ring 3 is recorded"),
        ("os-only-in-user", 2, 3, False, 38, "ring 3 is filtered out"),
        ("os-only-in-kernel", 2, 0, True, 38, "ring 0 is recorded"),
        ("both-in-kernel", 6, 0, True, 38, "ring 0 is recorded"),
        ("both-in-user", 6, 3, True, 37, "ring 3 is recorded"),
        ("neither-in-kernel", 0, 0, False, 38, "without a ring nothing is recorded"),
        ("neither-in-user", 0, 3, False, 37, "without a ring nothing is recorded"),
    )
)

# One filter bit, one branch of each kind: that kind alone is recorded, with its type.
_FILTERS = tuple(
    Case(
        f"branch-filter-{row.kind.name}",
        "only this kind is recorded",
        "SDM (mem); architecture.md 2.2",
        w.G,
        (
            w.wr(w.CTL, 7 | 1 << row.ctl_bit),
            *(w.jump(*place(x), kind) for x, kind in enumerate(_KINDS)),
            *entry(0, place(_KINDS.index(row.kind))),
            w.rd(w.INFO, w.bits(_TYPE_MASK, BR_TYPE[row.kind] << 56)),
            *empty(1),
        ),
        39,
    )
    for row in KINDS
)

_CALLS = 1 << 19 | 1 << 20 | 1 << 21
_STACK = (
    Case(
        "branch-call-stack-pops",
        "a return takes the newest call away",
        "SDM (mem)",
        w.G,
        (
            w.wr(w.CTL, 0xF | _CALLS),
            w.jump(*A, BranchKind.REL_CALL),
            w.jump(*B, BranchKind.IND_CALL),
            *entry(0, B),
            *entry(1, A),
            w.jump(*C, BranchKind.RET),
            *entry(0, A),
            *empty(1),
        ),
        40,
    ),
    Case(
        "branch-call-stack-no-jumps",
        "only calls enter",
        "SDM (mem)",
        w.G,
        (
            w.wr(w.CTL, 0xF | _CALLS),
            w.jump(*A, BranchKind.REL_CALL),
            w.jump(*B, BranchKind.REL_JMP),
            *entry(0, A),
            *empty(1),
        ),
        40,
    ),
)

_IDLE = w.let(*(q.Event.SCHED_OUT, q.Event.SCHED_IN) * 3)
_LOST = "the event is released with LBREn = 0, and the records with it (B 12)"
_STOP = (
    Case(
        "branch-stop-at-once",
        "LBREn 1 to 0 stops at once; the records stay",
        "JM v5; SDM",
        w.G,
        (w.wr(w.CTL, ALL), w.jump(*A), w.wr(w.CTL, ALL & ~1), w.jump(*B), *entry(0, A), *empty(1)),
        41,
    ),
    Case(
        "branch-stop-then-idle",
        "the records outlive time slices with LBREn = 0",
        "derived; SC P14",
        w.G,
        (w.wr(w.CTL, ALL), w.jump(*A), w.wr(w.CTL, ALL & ~1), *_IDLE, *entry(0, A)),
        42,
    ),
    Case(
        "branch-stop-then-host",
        "the records outlive a session of the host's with LBREn = 0",
        "derived; SC P14",
        w.G,
        (
            w.wr(w.CTL, ALL),
            w.jump(*A),
            w.wr(w.CTL, ALL & ~1),
            *w.let(q.Event.SCHED_OUT, q.Event.SCHED_IN),
            *w.let(q.Event.HOST_PINNED, q.Event.HOST_BRANCH, q.Event.HOST_PINNED_GONE),
            *entry(0, A),
        ),
        42,
        (Known("series-v2", 8, w.reads(q.HOST_FROM), _LOST), Known("series-v2", 9, w.reads(q.HOST_TO), _LOST)),
    ),
    Case(
        "branch-enable-again",
        "recording goes on over the old records",
        "SDM (mem)",
        w.G,
        (w.wr(w.CTL, ALL), w.jump(*A), w.wr(w.CTL, ALL & ~1), w.wr(w.CTL, ALL), w.jump(*B), *entry(0, B), *entry(1, A)),
        41,
    ),
)

# Row 43: each record register keeps what is written.
_KEPT = tuple(
    Case(
        f"record-keeps-{name}",
        "what the guest writes it reads back, and so does the VMM",
        "P7, P14",
        w.G,
        (w.wr(msr, 0x7000 + 8 * at), w.rd(msr, w.reads(0x7000 + 8 * at)), w.get(msr, w.reads(0x7000 + 8 * at))),
        43,
    )
    for at, (name, msr) in enumerate(w.RECORDS)
)
_KEPT_ON = (
    Case("record-keeps-all", "96 records keep 96 values", "P7, P14", w.G, (*w.fill(), *w.filled()), 43),
    Case(
        "record-keeps-all-while-recording",
        "the same while the facility is on and passed through",
        "P7, P14",
        w.G,
        (w.wr(w.CTL, 1), *w.fill(), *w.filled()),
        43,
    ),
    Case(
        "record-non-canonical",
        "a FROM that is no address is refused, to the guest and to the VMM",
        "derived from P14 (no value check)",
        w.G,
        (w.wr(w.FROM, 1 << 62, w.gp), w.put(w.FROM, 1 << 62, w.refused), w.rd(w.FROM, w.reads(0))),
        43,
    ),
)

_NO_EVENT = (
    Case(
        "event-fails",
        "CTL reads 1, the records read 0, the host is untouched",
        "base + P6",
        w.G,
        (
            *w.let(q.Event.EVENT_FAILS),
            w.wr(w.CTL, 1),
            w.rd(w.CTL, w.reads(1)),
            w.rd(w.FROM, w.reads(0)),
            *w.let(q.Event.ENTRY),
            w.look(q.Place.HARDWARE_CTL, w.reads(0)),
        ),
        46,
        (Known("series-v2", 5, w.reads(1), "the control loads CTL into hardware that the guest does not own (P10)"),),
    ),
)

CASES: tuple[Case, ...] = (*_ORDER, *_RINGS, *_FILTERS, *_STACK, *_STOP, *_KEPT, *_KEPT_ON, *_NO_EVENT)
