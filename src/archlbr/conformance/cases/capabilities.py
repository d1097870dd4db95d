"""IA32_PERF_CAPABILITIES: LBR_FMT is 0 or the host's, fixed after the first run; the guest never writes it.

Rows 3 and 99 of reference kvm-series.md D; the rules are those of the selftest x86/vmx_pmu_caps_test.c.
"""

from __future__ import annotations

from archlbr.conformance import questions as q
from archlbr.conformance.case import Case
from archlbr.conformance.cases import words as w

E = q.Event
CITE = "selftests x86/vmx_pmu_caps_test.c; P10"
FMT = 0x3F
NO_FORMAT = q.Setup(w.HW, w.GUEST._replace(lbr_format=0))

_FORMAT = (
    Case(
        "fmt-reads",
        "the guest reads the format the VMM set",
        CITE,
        w.G,
        (w.rd(w.PERF_CAPABILITIES, w.bits(FMT, FMT)),),
        99,
    ),
    Case(
        "fmt-zero",
        "the VMM may set LBR_FMT = 0",
        CITE,
        w.G,
        (w.put(w.PERF_CAPABILITIES, 0), w.get(w.PERF_CAPABILITIES, w.reads(0))),
        99,
    ),
    Case(
        "fmt-host",
        "the VMM may set the host's LBR_FMT",
        CITE,
        w.G,
        (w.put(w.PERF_CAPABILITIES, FMT), w.get(w.PERF_CAPABILITIES, w.reads(FMT))),
        99,
    ),
    *(
        Case(
            f"fmt-other-{value:#04x}",
            "another format is refused",
            CITE,
            w.G,
            (w.put(w.PERF_CAPABILITIES, value, w.refused), w.get(w.PERF_CAPABILITIES, w.bits(FMT, FMT))),
            99,
        )
        for value in (1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0x1F, 0x20, 0x2F, 0x3E)
    ),
    Case(
        "fmt-fixed-after-run",
        "after the first run another value is refused",
        "selftests x86/vmx_pmu_caps_test.c",
        w.G,
        (
            *w.let(E.ENTRY, E.EXIT),
            w.put(w.PERF_CAPABILITIES, 0, w.refused),
            w.get(w.PERF_CAPABILITIES, w.bits(FMT, FMT)),
        ),
        99,
    ),
    Case(
        "fmt-same-after-run",
        "after the first run the same value is taken",
        "selftests x86/vmx_pmu_caps_test.c",
        w.G,
        (*w.let(E.ENTRY, E.EXIT), w.put(w.PERF_CAPABILITIES, FMT)),
        99,
    ),
    Case(
        "fmt-guest-cannot-write",
        "WRMSR faults",
        "SDM vol. 4",
        w.G,
        (w.wr(w.PERF_CAPABILITIES, FMT, w.gp), w.wr(w.PERF_CAPABILITIES, 0, w.gp)),
        99,
    ),
    Case(
        "fmt-zero-with-edx19",
        "EDX[19] decides, not LBR_FMT: CTL works",
        "P5 (v1 faults); architecture.md 1.2",
        NO_FORMAT,
        (w.rd(w.CTL, w.reads(0)), w.wr(w.CTL, 7), w.rd(w.CTL, w.reads(7))),
        99,
    ),
    Case(
        "fmt-no-controls",
        "a host without the controls hides the format",
        "P10",
        q.Setup(w.NO_CONTROLS, w.PLAIN),
        (w.put(w.PERF_CAPABILITIES, FMT, w.refused), w.put(w.PERF_CAPABILITIES, 0)),
        3,
    ),
    Case(
        "fmt-any-plain-zero",
        "on any host the VMM may set 0",
        CITE,
        w.ANY_PLAIN,
        (w.put(w.PERF_CAPABILITIES, 0), w.get(w.PERF_CAPABILITIES, w.reads(0))),
        99,
    ),
)

# Bits 6 to 15 are PEBS's and the counters': which of them a host offers is its own; those above are reserved.
_BITS = tuple(
    Case(
        f"capability-bit-{bit}",
        "a bit that the host does not have is refused",
        CITE,
        w.G if bit < 16 else w.ANY_PLAIN,
        (w.put(w.PERF_CAPABILITIES, 1 << bit, w.refused), w.get(w.PERF_CAPABILITIES, w.bits(1 << bit, 0))),
        99,
    )
    for bit in range(6, 64)
)

CASES: tuple[Case, ...] = (*_FORMAT, *_BITS)
