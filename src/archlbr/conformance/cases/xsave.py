"""IA32_XSS bit by bit, XSAVES and XRSTORS of component 15, and what CPUID 0DH says meanwhile.

Rows 62 to 68 of reference kvm-series.md D. That a bit which can be set makes the register savable is the invariant of
the selftest x86/xss_msr_test.c.
"""

from __future__ import annotations

from archlbr.arch import xsave
from archlbr.conformance import questions as q
from archlbr.conformance.case import Case, Known, Step
from archlbr.conformance.cases import words as w
from archlbr.conformance.cases.branches import ALL, A, B, entry
from archlbr.conformance.expectations import LargerThan, LikeStep, Savable

LBR = xsave.COMPONENT_BIT
AT = xsave.COMPONENT_OFFSET
EBX = 1
ON = w.wr(w.XSS, LBR)


def at_entry(x: int, part: int = 0) -> int:
    """Return the offset of entry x's FROM, TO or INFO in the whole area."""
    return AT + xsave.entry(x) + 8 * part


_BITS = tuple(
    Case(
        f"xss-bit-{bit}",
        "a supported component is taken" if bit == 15 else "a component that is not supported faults",
        "P3, P11",
        w.G,
        (w.wr(w.XSS, 1 << bit, w.done if bit == 15 else w.gp), w.rd(w.XSS, w.reads(LBR if bit == 15 else 0))),
        62 if bit == 15 else 64,
    )
    for bit in range(64)
)
_SAVABLE = tuple(
    Case(
        f"xss-savable-{bit}",
        "if the bit can be set, XSS is in the save list",
        "selftests x86/xss_msr_test.c; users-and-peers.md 3.2, 13",
        w.ANY_PLAIN,
        (Step(q.SaveList(), w.any_list), w.put(w.XSS, 1 << bit, Savable(w.XSS, 0))),
        2,
    )
    for bit in range(64)
)

_OTHER_GUEST = "the legal bits of XSS are KVM's, not the guest CPUID's (fixed by 338543cbe033)"
_CPUID = (
    Case(
        "xss-grows-0d",
        "CPUID.0DH.1:EBX grows by component 15, and shrinks again",
        "P3, P11",
        w.G,
        (
            Step(q.Cpuid(0xD, 1), w.any_leaf),
            ON,
            Step(q.Cpuid(0xD, 1), LargerThan(0, EBX, xsave.SIZE)),
            w.wr(w.XSS, 0),
            Step(q.Cpuid(0xD, 1), LikeStep(0)),
        ),
        62,
    ),
    Case(
        "xss-touches-no-other-leaf",
        "no other leaf changes",
        "P3",
        w.G,
        (
            *(Step(q.Cpuid(*leaf), w.any_leaf) for leaf in ((7, 0), (0x1C, 0), (0xD, 0), (0xD, 15))),
            ON,
            *(Step(q.Cpuid(*leaf), LikeStep(at)) for at, leaf in enumerate(((7, 0), (0x1C, 0), (0xD, 0), (0xD, 15)))),
        ),
        62,
    ),
    Case(
        "xss-without-xsaves",
        "without CPUID.0DH.1:EAX[3] XSS faults",
        "SC P3",
        q.Setup(w.HW, w.GUEST._replace(xsaves=0)),
        (w.wr(w.XSS, LBR, w.gp),),
        63,
    ),
    Case(
        "xss-without-xsaves-leaf",
        "and ECX[15] of 0DH.1 stays as userspace gave it",
        "SC P3 (Y9LZhsqxRjMjbK3s)",
        q.Setup(w.HW, w.GUEST._replace(xsaves=0)),
        (Step(q.Cpuid(0xD, 1), w.bits(LBR, LBR, 2)),),
        63,
        (Known("series-v2", 0, w.bits(LBR, 0, 2), "ECX and EDX are forced to 0 without XSAVES (P3)"),),
    ),
    Case(
        "xss-plain-guest",
        "without the feature XSS[15] faults",
        "338543cbe033",
        w.G_PLAIN,
        (w.wr(w.XSS, LBR, w.gp),),
        65,
        (Known("series-v2", 0, w.done, _OTHER_GUEST),),
    ),
    Case(
        "xss-plain-guest-anywhere",
        "without the feature XSS[15] faults, whatever the host has",
        "338543cbe033",
        w.ANY_PLAIN,
        (w.wr(w.XSS, LBR, w.gp),),
        65,
        (Known("series-v2", 0, w.done, _OTHER_GUEST),),
    ),
    Case(
        "xss-vmm",
        "the VMM may set what the guest may",
        "P2; 338543cbe033",
        w.G,
        (w.put(w.XSS, LBR), w.get(w.XSS, w.reads(LBR)), w.rd(w.XSS, w.reads(LBR))),
        62,
    ),
)

_IMAGE = (
    Case(
        "xsaves-writes",
        "XSAVES writes CTL, DEPTH and the records",
        "JM; SDM; architecture.md 4.1",
        w.G,
        (
            ON,
            w.wr(w.CTL, ALL & ~1),
            *w.fill(2),
            Step(
                q.Xsaves(),
                w.stored(
                    (xsave.XSTATE_BV, LBR),
                    (xsave.XCOMP_BV, xsave.COMPACTED | LBR),
                    (AT + xsave.CTL, ALL & ~1),
                    (AT + xsave.DEPTH, w.D),
                    *((at_entry(x, part), w.record(x)[part]) for x in (0, 1) for part in range(3)),
                    (at_entry(2), 0),
                ),
            ),
        ),
        66,
    ),
    Case(
        "xsaves-without-xss",
        "without XSS[15] XSAVES writes nothing of the component",
        "SDM",
        w.G,
        (*w.fill(1), Step(q.Xsaves(), w.stored((xsave.XSTATE_BV, 0), (at_entry(0), 0)))),
        66,
    ),
    Case(
        "xrstors-restores",
        "XSAVES, clear, XRSTORS: CTL and the records are back",
        "JM; SDM",
        w.G,
        (
            ON,
            w.wr(w.CTL, 6),
            *w.fill(),
            Step(q.Xsaves(), w.any_image),
            w.wr(w.DEPTH, w.D),
            w.wr(w.CTL, 0),
            *w.emptied(2),
            Step(q.Xrstors(), w.done),
            w.rd(w.CTL, w.reads(6)),
            *w.filled(),
        ),
        66,
    ),
    Case(
        "xrstors-never-writes-depth",
        "DEPTH stays what it was",
        "JM; SDM",
        w.G,
        (
            ON,
            w.wr(w.CTL, 6),
            Step(q.Xsaves(), w.any_image),
            Step(q.Xrstors(((AT + xsave.DEPTH, 8),)), w.done),
            w.rd(w.DEPTH, w.reads(w.D)),
        ),
        66,
    ),
    *(
        Case(
            f"xrstors-depth-{depth}",
            "an image of another DEPTH leaves every record 0",
            "cover letter; TDX",
            w.G,
            (
                ON,
                *w.fill(),
                Step(q.Xsaves(), w.any_image),
                Step(q.Xrstors(((AT + xsave.DEPTH, depth),)), w.done),
                *w.emptied(),
            ),
            67,
        )
        for depth in (0, 8, 16, 31, 64)
    ),
    Case(
        "xrstors-enables",
        "LBREn in the image starts recording that is owned",
        "derived",
        w.G,
        (
            ON,
            w.wr(w.CTL, ALL & ~1),
            Step(q.Xsaves(), w.any_image),
            Step(q.Xrstors(((AT + xsave.CTL, ALL),)), w.done),
            w.jump(*A),
            *w.let(q.Event.SCHED_OUT, q.Event.SCHED_IN),
            *entry(0, A),
            w.look(q.Place.EVENT, w.reads(1)),
        ),
        68,
        tuple(
            Known("series-v2", step, w.reads(0), "XRSTORS that sets LBREn creates no event (P11)") for step in (7, 8, 9)
        ),
    ),
    *(
        Case(
            f"xrstors-reserved-ctl-{bit}",
            "a reserved CTL bit in the image faults",
            "architecture.md 4.2",
            w.G,
            (
                ON,
                w.wr(w.CTL, 6),
                Step(q.Xsaves(), w.any_image),
                Step(q.Xrstors(((AT + xsave.CTL, 1 << bit),)), w.gp),
                w.rd(w.CTL, w.reads(6)),
            ),
            66,
        )
        for bit in (4, 15, 23, 63)
    ),
    Case(
        "xrstors-without-xss",
        "an image with component 15 faults without XSS[15]: XSS comes first",
        "SDM; users-and-peers.md 3.2, 13",
        w.G,
        (ON, w.wr(w.CTL, 6), Step(q.Xsaves(), w.any_image), w.wr(w.XSS, 0), Step(q.Xrstors(), w.gp)),
        66,
    ),
    Case(
        "xsaves-without-feature",
        "a guest without XSAVES gets #UD",
        "SDM",
        q.Setup(w.HW, w.PLAIN._replace(xsaves=0)),
        (Step(q.Xsaves(), w.ud),),
        63,
    ),
    Case(
        "xsaves-while-recording",
        "XSAVES does not stop recording",
        "architecture.md 4.2",
        w.G,
        (ON, w.wr(w.CTL, ALL), w.jump(*A), Step(q.Xsaves(), w.any_image), w.jump(*B), *entry(0, B), *entry(1, A)),
        66,
    ),
)

CASES: tuple[Case, ...] = (*_BITS, *_SAVABLE, *_CPUID, *_IMAGE)
