"""What a VMM carries from one VM to the next by KVM_GET_MSRS and KVM_SET_MSRS, and in which order.

Rows 70 to 73 of reference kvm-series.md D; users-and-peers.md 3.2 (10, 13, 14). Acceptance implies migration: what can
be set must come back.
"""

from __future__ import annotations

from archlbr.arch import msrs
from archlbr.arch.cpuid import GOLDEN_COVE
from archlbr.conformance import questions as q
from archlbr.conformance.case import ANY_STEP, Case, Known, Step
from archlbr.conformance.cases import words as w
from archlbr.conformance.cases.branches import ALL, A, B, empty, entry
from archlbr.conformance.expectations import Savable

E = q.Event
LBR = 1 << 15
NEW = Step(q.NewVm(w.G), w.done)
LEAF_8 = GOLDEN_COVE._replace(eax=1)
SHALLOW = q.Setup(w.HW._replace(leaf=LEAF_8), w.GUEST._replace(leaf=LEAF_8))


_EMPTIED = (
    Known("series-v2", ANY_STEP, w.reads(0), "the event that CTL creates starts with empty records (B 17; P14)"),
)


def _records(depth: int) -> tuple[Step, ...]:
    """Let the VMM write what `words.fill` has."""
    return tuple(
        w.put(base + x, value)
        for x in range(depth)
        for base, value in zip((w.FROM, w.TO, w.INFO), w.record(x), strict=True)
    )


def _listed(depth: int) -> tuple[Step, ...]:
    """Let the VMM read what `words.fill` wrote."""
    return tuple(
        w.get(base + x, w.reads(value))
        for x in range(depth)
        for base, value in zip((w.FROM, w.TO, w.INFO), w.record(x), strict=True)
    )


_ROUND = (
    Case(
        "migrate-by-msrs",
        "CTL, DEPTH, XSS and all records arrive",
        "SC cover; P8; P14",
        w.G,
        (
            w.wr(w.XSS, LBR),
            w.wr(w.CTL, 7),
            *w.fill(),
            w.get(w.CTL, w.reads(7)),
            w.get(w.DEPTH, w.reads(w.D)),
            w.get(w.XSS, w.reads(LBR)),
            *_listed(w.D),
            NEW,
            w.put(w.XSS, LBR),
            w.put(w.DEPTH, w.D),
            *_records(w.D),
            w.put(w.CTL, 7),
            w.rd(w.CTL, w.reads(7)),
            w.rd(w.DEPTH, w.reads(w.D)),
            w.rd(w.XSS, w.reads(LBR)),
            *w.filled(),
        ),
        70,
        _EMPTIED,
    ),
    Case(
        "migrate-goes-on",
        "recording goes on after the first entry",
        "SC cover",
        w.G,
        (
            NEW,
            w.put(w.DEPTH, w.D),
            w.put(w.FROM, A[0]),
            w.put(w.TO, A[1]),
            w.put(w.CTL, ALL),
            w.jump(*B),
            *entry(0, B),
            *entry(1, A),
        ),
        70,
        _EMPTIED,
    ),
    Case(
        "migrate-disabled",
        "records are carried with LBREn = 0 too",
        "PB v11",
        w.G,
        (
            w.wr(w.CTL, 6),
            *w.fill(2),
            *_listed(2),
            NEW,
            w.put(w.DEPTH, w.D),
            *_records(2),
            w.put(w.CTL, 6),
            *w.filled(2),
        ),
        72,
    ),
    Case(
        "migrate-records-before-depth",
        "records before DEPTH are lost: DEPTH comes first",
        "P5, derived; QEMU",
        w.G,
        (NEW, *_records(2), w.put(w.DEPTH, w.D), *w.emptied(2)),
        71,
    ),
    Case(
        "migrate-to-another-depth",
        "another DEPTH is refused, and the VM goes on without the records",
        "P5; QEMU",
        w.G,
        (
            w.wr(w.CTL, 7),
            *w.fill(1),
            Step(q.NewVm(SHALLOW), w.done),
            w.put(w.DEPTH, w.D, w.refused),
            w.get(w.DEPTH, w.reads(8)),
            w.put(w.CTL, 7),
            w.rd(w.CTL, w.reads(7)),
            *empty(0),
        ),
        73,
    ),
    Case(
        "migrate-to-no-lbr",
        "a target without the feature takes 0 and nothing else",
        "P8 rule",
        w.G,
        (Step(q.NewVm(q.Setup(w.HW, w.PLAIN)), w.done), w.put(w.CTL, 7, w.refused), w.put(w.CTL, 0)),
        73,
    ),
    Case(
        "migrate-new-vm-is-fresh",
        "a new VM knows nothing of the old one",
        "SC cover (leak)",
        w.G,
        (w.wr(w.CTL, ALL), w.jump(*A), NEW, w.rd(w.CTL, w.reads(0)), *empty(0)),
        70,
    ),
    Case(
        "migrate-by-snapshot",
        "snapshot and restore carry everything",
        "SC cover",
        w.G,
        (
            w.wr(w.XSS, LBR),
            w.wr(w.CTL, 7),
            *w.fill(),
            *w.let(E.MIGRATE),
            w.rd(w.CTL, w.reads(7)),
            w.rd(w.XSS, w.reads(LBR)),
            *w.filled(),
        ),
        70,
        _EMPTIED,
    ),
    Case(
        "migrate-debugctl",
        "DEBUGCTL is carried",
        "users-and-peers.md 3.2, 10",
        w.G,
        (
            w.wr(w.DEBUGCTL, 0x800),
            w.get(w.DEBUGCTL, w.reads(0x800)),
            NEW,
            w.put(w.DEBUGCTL, 0x800),
            w.rd(w.DEBUGCTL, w.reads(0x800)),
        ),
        70,
    ),
    *(
        Case(
            f"migrate-round-trip-{name}",
            "a value that the guest set is read, set and read by the next guest",
            "acceptance implies migration",
            w.G,
            (w.wr(msr, value), w.get(msr, w.reads(value)), NEW, w.put(msr, value), w.rd(msr, w.reads(value))),
            70,
        )
        for name, msr, value in (
            ("CTL", w.CTL, 0x7F000F),
            ("XSS", w.XSS, LBR),
            ("FROM_0", w.FROM, 0x1234),
            ("FROM_31", w.FROM + 31, 0xFFFF800000000000),
            ("TO_0", w.TO, 0x1234),
            ("TO_31", w.TO + 31, 0x7FFFFFFFFFFF),
            ("INFO_0", w.INFO, 1 << 63 | 0x8F << 52 | 0xFFFF),
            ("INFO_31", w.INFO + 31, 1),
        )
    ),
    Case(
        "migrate-order-ctl-last",
        "CTL before the records: a branch in between would be lost, so CTL comes last",
        "decision order: XSS, DEPTH, records, CTL",
        w.G,
        (NEW, w.put(w.DEPTH, w.D), *_records(1), w.put(w.CTL, ALL), *w.filled(1)),
        70,
        _EMPTIED,
    ),
)

_UNLISTED = "the records and DEBUGCTL are in no list (P8; base)"
_SAVABLE = tuple(
    Case(
        f"savable-{name}",
        "if the guest can set it, it is in the save list",
        "acceptance implies migration; selftests x86/xss_msr_test.c",
        w.G,
        (Step(q.SaveList(), w.any_list), w.wr(msr, value, Savable(msr, 0))),
        70,
        (Known("series-v2", 1, w.done, _UNLISTED),) if name == "DEBUGCTL" or (name, msr) in w.RECORDS else (),
    )
    for name, msr, value in (
        ("CTL", w.CTL, 7),
        ("DEPTH", w.DEPTH, w.D),
        ("XSS", w.XSS, LBR),
        ("DEBUGCTL", w.DEBUGCTL, 0x800),
        ("LER_FROM", msrs.IA32_LER_FROM_IP.index, 0x1000),
        ("LER_TO", msrs.IA32_LER_TO_IP.index, 0x1000),
        ("LER_INFO", msrs.IA32_LER_INFO.index, 0),
        *((name, msr, 8) for name, msr in w.RECORDS if name.endswith(("_0", "_15", "_31"))),
    )
)
_SAVABLE_ANYWHERE = tuple(
    Case(
        f"savable-vmm-{name}",
        "if the VMM can set it, it is in the save list",
        "acceptance implies migration; api.rst 4.3",
        w.ANY_PLAIN,
        (Step(q.SaveList(), w.any_list), w.put(msr, value, Savable(msr, 0))),
        70,
    )
    for name, msr, value in (
        ("PERF_CAPABILITIES", w.PERF_CAPABILITIES, 0),
        ("CTL", w.CTL, 0),
        ("DEPTH", w.DEPTH, 0),
        ("XSS", w.XSS, 0),
        ("FROM_0", w.FROM, 0),
        ("LBR_SELECT", w.LBR_SELECT, 0),
        ("LBR_TOS", w.LBR_TOS, 0),
    )
)

CASES: tuple[Case, ...] = (*_ROUND, *_SAVABLE, *_SAVABLE_ANYWHERE)
