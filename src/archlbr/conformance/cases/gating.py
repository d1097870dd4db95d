"""Without CPUID.7.0:EDX[19] there is no facility; with it there is no other: register by register.

Rows 13 to 21 of reference kvm-series.md D, users-and-peers.md 3.2 (3, 7, 12). Most rows hold on any host, so that a KVM
without the hardware can be asked too.
"""

from __future__ import annotations

from archlbr.arch import msrs
from archlbr.arch.outcomes import Value
from archlbr.conformance import questions as q
from archlbr.conformance.case import Case, Known
from archlbr.conformance.cases import words as w
from archlbr.conformance.expectations import Not

_ALL = (("CTL", w.CTL), ("DEPTH", w.DEPTH), *w.RECORDS)

# Row 13, each register on its own: RDMSR, then WRMSR of 0.
_GUEST = tuple(
    Case(
        f"no-edx19-{name}",
        "RDMSR and WRMSR fault",
        "P4-P6; d8f992e9fde8",
        w.ANY_PLAIN,
        (w.rd(msr, w.gp), w.wr(msr, 0, w.gp)),
        13,
    )
    for name, msr in _ALL
)

# Rows 14 to 16: the VMM, by the rule for listed registers.
_VMM = (
    Case(
        "no-edx19-vmm-reads-CTL", "the VMM reads CTL as 0", "P6, P8, SC P6", w.G_PLAIN, (w.get(w.CTL, w.reads(0)),), 14
    ),
    Case(
        "no-edx19-vmm-reads-DEPTH",
        "the VMM reads DEPTH as 0",
        "P6, P8, SC P6",
        w.G_PLAIN,
        (w.get(w.DEPTH, w.reads(0)),),
        14,
    ),
    Case("no-edx19-vmm-writes-CTL-0", "the VMM may write CTL = 0", "P6", w.G_PLAIN, (w.put(w.CTL, 0),), 15),
    Case(
        "no-edx19-vmm-writes-CTL-1", "the VMM may not write CTL = 1", "P6", w.G_PLAIN, (w.put(w.CTL, 1, w.refused),), 15
    ),
    Case("no-edx19-vmm-writes-DEPTH-0", "the VMM may write DEPTH = 0", "P8 (mem)", w.G_PLAIN, (w.put(w.DEPTH, 0),), 16),
    Case(
        "no-edx19-vmm-writes-DEPTH-32",
        "the VMM may not write DEPTH = D",
        "P8 (mem)",
        w.G_PLAIN,
        (w.put(w.DEPTH, w.D, w.refused),),
        16,
    ),
    Case(
        "no-edx19-vmm-sets-nothing",
        "on any host the VMM cannot set CTL, DEPTH or a record to a value",
        "d8f992e9fde8; P6",
        w.ANY_PLAIN,
        (
            w.put(w.CTL, 1, w.refused),
            w.put(w.DEPTH, w.D, w.refused),
            w.put(w.FROM, 0x1000, w.refused),
            w.put(w.TO, 0x1000, w.refused),
            w.put(w.INFO, 1, w.refused),
        ),
        16,
    ),
)

# The legacy facility's registers on an architectural part, and for a guest whose VMM asks for the legacy flavour.
_LEGACY = (
    ("LBR_SELECT", w.LBR_SELECT),
    ("LBR_TOS", w.LBR_TOS),
    *(
        (f"{name}_{x}", block.at(x))
        for name, block in (
            ("LASTBRANCH_FROM", msrs.MSR_LASTBRANCH_FROM_IP),
            ("LASTBRANCH_TO", msrs.MSR_LASTBRANCH_TO_IP),
            ("LBR_INFO", msrs.MSR_LBR_INFO),
        )
        for x in (0, 15, 31)
    ),
)
LEGACY_GUEST = q.Setup(w.HW, w.PLAIN._replace(lbr_format=5))

_LEGACY_CASES = tuple(
    Case(
        f"legacy-{name}-{register}",
        "a legacy register faults on an architectural part",
        cite,
        setup,
        (w.rd(msr, w.gp), w.wr(msr, 0, w.gp)),
        row,
    )
    for name, setup, row, cite in (
        ("arch-guest", w.G, 19, "P4; users-and-peers.md 3.2, 3"),
        ("legacy-guest", LEGACY_GUEST, 17, "SC P4; 098f4c061ea1"),
        ("plain-guest", w.ANY_PLAIN, 17, "098f4c061ea1; d8f992e9fde8"),
    )
    for register, msr in _LEGACY
)

# Row 20: past the depth.
_PAST = tuple(
    Case(
        f"past-depth-{name}_{x}",
        "a record at or past DEPTH faults",
        "P4",
        w.G,
        (w.rd(base + x, w.gp), w.wr(base + x, 0, w.gp)),
        20,
    )
    for name, base in (("FROM", w.FROM), ("TO", w.TO), ("INFO", w.INFO))
    for x in (w.D, w.D + 1, 63)
)

# Row 21 and users-and-peers.md 3.2, 12: Windows uses LER without asking, so a read must neither fault nor tell.
_LER = tuple(
    Case(
        f"ler-{name}-shows-no-host-data",
        "LER never shows what the host recorded",
        "v4 text; UNCONFIRMED",
        w.G,
        (*w.let(q.Event.HOST_PINNED, q.Event.HOST_BRANCH), w.rd(msr, Not(Value(value)))),
        21,
    )
    for name, msr, value in (
        ("FROM", msrs.IA32_LER_FROM_IP.index, q.HOST_FROM),
        ("TO", msrs.IA32_LER_TO_IP.index, q.HOST_TO),
    )
)
_LER_READABLE = tuple(
    Case(
        f"ler-{name}-can-be-read",
        "RDMSR of LER does not fault: Windows reads it without asking CPUID",
        "users-and-peers.md 3.2, 12 (Xen, stop 0x3B)",
        w.G,
        (w.rd(msr, w.reads(0)),),
        21,
        (Known("series-v2", 0, w.gp, "LER_INFO is no register of KVM's (v4 text)"),) if name == "INFO" else (),
    )
    for name, msr in (
        ("FROM", msrs.IA32_LER_FROM_IP.index),
        ("TO", msrs.IA32_LER_TO_IP.index),
        ("INFO", msrs.IA32_LER_INFO.index),
    )
)

_LER_KEPT = tuple(
    Case(
        f"ler-{name}-kept",
        "LER is the guest's own: it keeps what is written",
        "architecture.md 4.3",
        w.G,
        (w.wr(msr, 0x1000), w.rd(msr, w.reads(0x1000))),
        21,
        tuple(
            Known("series-v2", step, instead, "LER is not virtualized (v4 text)")
            for step, instead in ((0, w.gp), (1, w.reads(0)))
        ),
    )
    for name, msr in (("FROM", msrs.IA32_LER_FROM_IP.index), ("TO", msrs.IA32_LER_TO_IP.index))
)
_NO_FORMAT = Case(
    "legacy-without-format",
    "on a legacy host a guest whose LBR_FMT is 0 has no LBRs",
    "derived from P5; base",
    q.Setup(w.NO_LBR, w.PLAIN),
    (w.rd(w.LBR_SELECT, w.gp), w.rd(w.LBR_TOS, w.gp)),
    17,
    tuple(Known("series-v2", step, w.reads(0), "v2 dropped the test of LBR_FMT (P5)") for step in (0, 1)),
)

CASES: tuple[Case, ...] = (_NO_FORMAT, *_LER_KEPT, *_GUEST, *_VMM, *_LEGACY_CASES, *_PAST, *_LER, *_LER_READABLE)
