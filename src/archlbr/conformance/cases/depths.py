"""A guest of a smaller depth than the host's: every depth the host's leaf lists, at its full value.

The series pins one depth, and the review leaves the facility off elsewhere; Jim Mattson's objection to v5 06/13, that a
vCPU could then only move to hosts of equal depth, is answered by offering each. Authority: architecture.md 2.3, 4.2;
reference kvm-series.md C.1; decision 020.
"""

from __future__ import annotations

from archlbr.arch import xsave
from archlbr.arch.cpuid import GOLDEN_COVE
from archlbr.arch.outcomes import Value
from archlbr.conformance import questions as q
from archlbr.conformance.answers import FAILED
from archlbr.conformance.case import Case, Known, Step
from archlbr.conformance.cases import words as w
from archlbr.conformance.cases.branches import ALL, entry, place
from archlbr.conformance.expectations import Expectation, OneOf

E = q.Event
CITE = "JM v5 06/13; decision 020"
LBR = xsave.COMPONENT_BIT
_IMAGE_DEPTH = xsave.COMPONENT_OFFSET + xsave.DEPTH


def _guest(*depths: int) -> q.Guest:
    mask = sum(1 << (depth // 8 - 1) for depth in depths)
    return w.GUEST._replace(leaf=GOLDEN_COVE._replace(eax=mask))


def _case(name: str, depths: tuple[int, ...], requirement: str, *steps: Step) -> Case:
    """Return a case that starts with KVM_SET_CPUID2; series v2 refuses it, and then each access faults."""
    given = Step(q.SetCpuid(_guest(*depths)), w.done)
    off = tuple(
        Known("series-v2", at, instead, w.EINVAL)
        for at, step in enumerate((given, *steps))
        if (instead := _refused(step)) is not None
    )
    return Case(name, requirement, CITE, w.G_PLAIN, (given, *steps), 9, off)


def _refused(step: Step) -> Expectation | None:
    match step.question:
        case q.SetCpuid() | q.GetMsr() | q.SetMsr():
            return OneOf((FAILED, Value(0)))
        case q.Rdmsr() | q.Wrmsr() | q.Xrstors():
            return w.gp
        case _:
            return w.any_image if isinstance(step.question, q.Xsaves) else None


def _depth(depth: int) -> tuple[Case, ...]:
    name = f"depth-{depth}"
    return (
        _case(f"{name}-reads", (depth,), "DEPTH reads the guest's depth", w.rd(w.DEPTH, w.reads(depth))),
        _case(
            f"{name}-only",
            (depth,),
            "no other depth is taken",
            w.wr(w.DEPTH, depth),
            w.wr(w.DEPTH, 32, w.gp),
            w.rd(w.DEPTH, w.reads(depth)),
        ),
        _case(
            f"{name}-entries",
            (depth,),
            "there are as many entries, and no more",
            w.rd(w.FROM + depth - 1, w.reads(0)),
            w.rd(w.FROM + depth, w.gp),
            w.rd(w.TO + depth, w.gp),
            w.rd(w.INFO + depth, w.gp),
        ),
        _case(
            f"{name}-records",
            (depth,),
            "after one branch more than that the oldest is gone",
            w.wr(w.CTL, ALL),
            *(w.jump(*place(x)) for x in range(depth + 1)),
            *entry(0, place(depth)),
            *entry(depth - 1, place(1)),
        ),
        _case(
            f"{name}-survives-host",
            (depth,),
            "the records survive a session of the host's, whose depth is another",
            w.wr(w.CTL, 1),
            *w.fill(depth),
            *w.let(E.HOST_PINNED, E.HOST_BRANCH, E.ENTRY, E.EXIT, E.HOST_PINNED_GONE),
            *w.filled(depth),
        ),
        _case(
            f"{name}-image",
            (depth,),
            "an image of the guest's depth is restored whole, one of the host's depth empties",
            w.wr(w.XSS, LBR),
            *w.fill(depth),
            Step(q.Xsaves(), w.any_image),
            Step(q.Xrstors(), w.done),
            *w.filled(depth),
            Step(q.Xrstors(((_IMAGE_DEPTH, 32),)), w.done),
            *w.emptied(depth),
        ),
        _case(
            f"{name}-migrates",
            (depth,),
            "a migration keeps depth and records",
            *w.fill(depth),
            *w.let(E.MIGRATE),
            w.rd(w.DEPTH, w.reads(depth)),
            *w.filled(depth),
        ),
        _case(
            f"{name}-idle",
            (depth,),
            "time slices without the CPU keep the records",
            w.wr(w.CTL, 1),
            *w.fill(depth),
            *w.let(E.SCHED_OUT, E.SCHED_IN, E.OTHER_CPU),
            *w.filled(depth),
        ),
    )


_CHOICE = (
    _case(
        "depths-offered",
        (8, 16, 32),
        "a guest that is told of several depths may choose among them",
        w.wr(w.DEPTH, 8),
        w.rd(w.DEPTH, w.reads(8)),
        w.rd(w.FROM + 8, w.gp),
        w.wr(w.DEPTH, 16),
        w.rd(w.FROM + 15, w.reads(0)),
        w.wr(w.DEPTH, 24, w.gp),
        w.rd(w.DEPTH, w.reads(16)),
    ),
    _case(
        "depths-reset",
        (8, 32),
        "after a reset DEPTH is the largest of them",
        w.wr(w.DEPTH, 8),
        *w.let(E.COLD_RESET),
        w.rd(w.DEPTH, w.reads(32)),
    ),
    Case(
        "depths-in-leaf",
        "each depth of the host's leaf is offered",
        CITE,
        w.G,
        (Step(q.Offered(0x1C), w.bits(0xFF, 0x0B)),),
        9,
        (Known("series-v2", 0, w.bits(0xFF, 1 << 3), "the largest depth alone is offered (P15)"),),
    ),
)

CASES: tuple[Case, ...] = (*_depth(8), *_depth(16), *_CHOICE)
