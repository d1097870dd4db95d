"""What a hypervisor offers: CPUID leaves, the save list, feature registers.

Rows 1 to 8, 98 and 104 of reference kvm-series.md D; users-and-peers.md 3.2 (10).
"""

from __future__ import annotations

from archlbr.arch.cpuid import GOLDEN_COVE, LBR_COMPONENT
from archlbr.conformance import questions as q
from archlbr.conformance.case import Case, Known, Step
from archlbr.conformance.cases import words as w
from archlbr.conformance.expectations import Agrees, Expectation, Holds, LikeStep, ListedIf

# name, host: no LBR may be offered on any of these.
_BARE = (
    ("no-controls", w.NO_CONTROLS, 1, "P11, P15"),
    ("entry-control-only", w.ENTRY_ONLY, 4, "P10"),
    ("exit-control-only", w.EXIT_ONLY, 4, "P10"),
    ("no-arch-lbr", w.NO_LBR, 8, "P8"),
    ("amd", w.AMD, 104, "SC P11"),
    ("pmu-off", w.HW._replace(pmu=0), 98, "base"),
)


OPT_OUT = "the bit is in the mask common to all, not set where all of it is supported (P15)"


def _opted_out(host: q.Host, instead: Expectation) -> tuple[Known, ...]:
    """Return what series v2 answers on a host that has the bit and may not offer it."""
    return (Known("series-v2", 0, instead, OPT_OUT),) if host.vendor == "amd" or not host.pmu else ()


_XSS_ALONE = (Known("series-v2", 0, w.any_leaf, "the supported XSS asks for the two controls alone (P11)"),)


def _bare(name: str, host: q.Host, row: int, cite: str) -> tuple[Case, ...]:
    setup = q.Setup(host, w.PLAIN)
    return (
        Case(
            f"offer-edx19-{name}",
            "CPUID.7.0:EDX[19] is not offered",
            cite,
            setup,
            (Step(q.Offered(7), w.bits(w.ARCH_LBR, 0, w.EDX)),),
            row,
            _opted_out(host, w.bits(w.ARCH_LBR, w.ARCH_LBR, w.EDX)),
        ),
        Case(
            f"offer-1c-{name}",
            "leaf 1CH is all 0",
            cite,
            setup,
            (Step(q.Offered(0x1C), w.NOTHING),),
            row,
            _opted_out(host, w.bits(0xFF, 1 << 3)),
        ),
        Case(
            f"offer-xss-{name}",
            "CPUID.0DH.1:ECX[15] is not offered",
            cite,
            setup,
            (Step(q.Offered(0xD, 1), w.bits(1 << 15, 0, w.ECX)),),
            row if row != 1 else 2,
            () if host.pmu else _XSS_ALONE,
        ),
        Case(
            f"offer-0d-15-{name}",
            "leaf 0DH.15 is all 0",
            cite,
            setup,
            (Step(q.Offered(0xD, 15), w.NOTHING),),
            row,
            () if host.pmu else _XSS_ALONE,
        ),
        Case(
            f"list-{name}",
            "neither CTL nor DEPTH nor a record is in the save list",
            cite,
            setup,
            (Step(q.SaveList(), Holds(absent=(w.CTL, w.DEPTH, w.FROM, w.TO, w.INFO))),),
            row,
            _opted_out(host, Holds((w.CTL, w.DEPTH))),
        ),
    )


# A host with the legacy facility has a format of its own; the others show none.
_FORMATS = tuple(
    Case(
        f"perf-capabilities-{name}",
        "the feature register's LBR_FMT is 0",
        "P10",
        q.Setup(host, w.PLAIN),
        (Step(q.FeatureMsr(w.PERF_CAPABILITIES), w.bits(0x3F, 0)),),
        3,
        _opted_out(host, w.bits(0x3F, 0x3F)) if host.pmu else (),
    )
    for name, host, _, _ in _BARE
    if host.arch_lbr
)

_OFFERED = (
    Case(
        "offer-edx19",
        "CPUID.7.0:EDX[19] is offered",
        "P15",
        w.G,
        (Step(q.Offered(7), w.bits(w.ARCH_LBR, w.ARCH_LBR, w.EDX)),),
        5,
    ),
    Case(
        "offer-1c-depth",
        "leaf 1CH:EAX[7:0] is the one-hot of the largest depth",
        "P15",
        w.G,
        (Step(q.Offered(0x1C), w.bits(0xFF, 1 << 3)),),
        5,
        (Known("archlbr", 0, w.bits(0xFF, 0x0B), w.EVERY_DEPTH),),
    ),
    Case(
        "offer-1c-rest",
        "the filters and what INFO holds are the host's",
        "P15",
        w.G,
        (
            Step(q.Offered(0x1C), w.bits(0xFFFFFFFF, GOLDEN_COVE.ebx, 1)),
            Step(q.Offered(0x1C), w.bits(0x7, GOLDEN_COVE.ecx & 0x7, 2)),
        ),
        5,
    ),
    Case(
        "offer-0d-1-xss",
        "CPUID.0DH.1:ECX[15] is offered",
        "P11",
        w.G,
        (Step(q.Offered(0xD, 1), w.bits(1 << 15, 1 << 15, w.ECX)),),
        6,
    ),
    Case(
        "offer-0d-15",
        "leaf 0DH.15: 808 bytes, supervisor",
        "P11",
        w.G,
        (
            Step(q.Offered(0xD, 15), w.bits(0xFFFFFFFF, LBR_COMPONENT.eax)),
            Step(q.Offered(0xD, 15), w.bits(1, 1, w.ECX)),
        ),
        6,
    ),
    Case(
        "list-controls",
        "XSS, CTL and DEPTH are in the save list",
        "P2, P8",
        w.G,
        (Step(q.SaveList(), Holds((w.XSS, w.CTL, w.DEPTH))),),
        7,
    ),
    Case(
        "list-records",
        "each of the 96 records is in the save list",
        "SC P8 (Y9RFngDO3ip9vTwi)",
        w.G,
        (Step(q.SaveList(), Holds(tuple(msr for _, msr in w.RECORDS))),),
        7,
        (Known("series-v2", 0, Holds((w.CTL, w.DEPTH), (w.FROM,)), "the 96 records are deliberately not listed (P8)"),),
    ),
    Case(
        "list-debugctl",
        "DEBUGCTL is in the save list: a value that can be set must survive migration",
        "users-and-peers.md 3.2, 10 (CVE-2026-46014)",
        w.G,
        (Step(q.SaveList(), Holds((w.DEBUGCTL,))),),
        0,
        (Known("series-v2", 0, Holds((w.CTL,), (w.DEBUGCTL,)), "DEBUGCTL is not in the list of VMX hosts (base)"),),
    ),
    Case(
        "perf-capabilities-lbr-fmt",
        "the feature register offers the host's LBR_FMT, 3FH",
        "P10; architecture.md 1.2",
        w.G,
        (Step(q.FeatureMsr(w.PERF_CAPABILITIES), w.bits(0x3F, 0x3F)),),
        3,
    ),
)


_SAME_TWICE = Case(
    "offer-stable",
    "two requests for the offered leaf 1CH give the same answer",
    "api.rst 4.46",
    w.ANY_PLAIN,
    (Step(q.Offered(0x1C), w.bits(0, 0)), Step(q.Offered(0x1C), LikeStep(0))),
    5,
)

# On any host: what is offered agrees with itself, so that a guest told all of it does not die of it.
_AGREEING = tuple(
    Case(
        f"consistent-{name}",
        requirement,
        "users-and-peers.md 3.2, 1 and 2 (8c16dc047b5d); P15",
        w.ANY_PLAIN,
        (Step(first, w.any_leaf), Step(second, expected)),
        5,
    )
    for name, requirement, first, second, expected in (
        (
            "1c", "leaf 1CH has a depth just if EDX[19] is offered", q.Offered(7), q.Offered(0x1C),
            Agrees(0, 0xFF, 0, w.EDX, w.ARCH_LBR),
        ),
        (
            "0d-15", "leaf 0DH.15 has a size just if 0DH.1:ECX[15] is offered", q.Offered(0xD, 1), q.Offered(0xD, 15),
            Agrees(0, 0xFFFFFFFF, 0, w.ECX, 1 << 15),
        ),
        (
            "0d-15-supervisor", "leaf 0DH.15 is a supervisor component just if it has a size", q.Offered(0xD, 15),
            q.Offered(0xD, 15), Agrees(w.ECX, 1, 0, 0, 0xFFFFFFFF),
        ),
        (
            "list-ctl", "CTL is listed just if EDX[19] is offered", q.Offered(7), q.SaveList(),
            ListedIf(w.CTL, 0, w.EDX, w.ARCH_LBR),
        ),
        (
            "list-depth", "DEPTH is listed just if EDX[19] is offered", q.Offered(7), q.SaveList(),
            ListedIf(w.DEPTH, 0, w.EDX, w.ARCH_LBR),
        ),
    )
)  # fmt: skip

CASES: tuple[Case, ...] = (
    *_AGREEING,
    *(case for bare in _BARE for case in _bare(*bare)),
    *_FORMATS,
    *_OFFERED,
    _SAME_TWICE,
)
