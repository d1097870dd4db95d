"""What KVM_SET_CPUID2 takes, and what a guest then has: accepted and off, never -EINVAL.

Rows 5, 9 to 13, 18, 76 and 96 to 98 of reference kvm-series.md D; the consistency of CPUID 7.EDX[19], 1CH and 0DH.15
(users-and-peers.md 3.2, 1 and 2).
"""

from __future__ import annotations

from archlbr.arch.cpuid import GOLDEN_COVE
from archlbr.conformance import questions as q
from archlbr.conformance.answers import Registers
from archlbr.conformance.case import Case, Known, Step
from archlbr.conformance.cases import words as w
from archlbr.conformance.expectations import Is

OPT_OUT = "the bit is in the mask common to all, not set where all of it is supported (P15)"


def _off(name: str, guest: q.Guest, cite: str, row: int, *known: Known) -> tuple[Case, ...]:
    """Return the cases of a guest CPUID that is accepted and leaves the facility off."""
    known_off = tuple(one._replace(step=0) for one in known)
    return (
        Case(
            f"cpuid-{name}-accepted",
            "KVM_SET_CPUID2 succeeds: its sanity is userspace's job",
            cite,
            w.G_PLAIN,
            (Step(q.SetCpuid(guest), w.done),),
            row,
            known_off,
        ),
        Case(
            f"cpuid-{name}-off",
            "the facility is off: CTL and DEPTH fault",
            cite,
            w.G_PLAIN,
            (Step(q.SetCpuid(guest), w.done), w.rd(w.CTL, w.gp), w.rd(w.DEPTH, w.gp), w.rd(w.FROM, w.gp)),
            row,
            known_off,
        ),
        Case(
            f"cpuid-{name}-listed",
            "the VMM reads 0 and may write 0: the registers are in the list",
            f"{cite}; SC P6",
            w.G_PLAIN,
            (Step(q.SetCpuid(guest), w.done), w.get(w.CTL, w.reads(0)), w.put(w.CTL, 0), w.put(w.CTL, 1, w.refused)),
            row,
            known_off,
        ),
    )


def _smaller(name: str, guest: q.Guest, depth: int) -> tuple[Case, ...]:
    """Return the cases of a depth that the processor has, but not the largest: off by the review, on with `archlbr`."""
    cite = "SC P15"
    v2 = Known("series-v2", 0, w.refused, w.EINVAL)
    here = "the guest runs at a depth of its own"
    return (
        Case(
            f"cpuid-depth-{name}-accepted",
            "KVM_SET_CPUID2 succeeds",
            cite,
            w.G_PLAIN,
            (Step(q.SetCpuid(guest), w.done),),
            9,
            (v2,),
        ),
        Case(
            f"cpuid-depth-{name}-off",
            "the facility is off: CTL, DEPTH and records fault",
            cite,
            w.G_PLAIN,
            (Step(q.SetCpuid(guest), w.done), w.rd(w.CTL, w.gp), w.rd(w.DEPTH, w.gp), w.rd(w.FROM, w.gp)),
            9,
            (
                v2,
                Known("archlbr", 1, w.reads(0), here),
                Known("archlbr", 2, w.reads(depth), here),
                Known("archlbr", 3, w.reads(0), here),
            ),
        ),
    )


_V2_LEAVES = "only EDX[19] and leaf 1CH decide (P5)"
_V2_XSS = "the legal bits of XSS are KVM's, not the guest CPUID's (P3)"


def _contradictory(name: str, guest: q.Guest, requirement: str) -> Case:
    """Return the case of a guest CPUID that contradicts itself: Linux warned, or died of it (bugs 1 and 2)."""
    return Case(
        f"cpuid-{name}-is-off",
        requirement,
        "users-and-peers.md 3.2, 1 and 2 (8c16dc047b5d)",
        w.G_PLAIN,
        (Step(q.SetCpuid(guest), w.done), w.rd(w.CTL, w.gp), w.wr(w.XSS, 1 << 15, w.gp)),
        0,
        (Known("series-v2", 1, w.reads(0), _V2_LEAVES), Known("series-v2", 2, w.done, _V2_XSS)),
    )


_ACCEPTED = (
    *_smaller("8", w.EIGHT, 8),
    *_smaller("16", w.SIXTEEN, 16),
    Case(
        "cpuid-several-depths-accepted",
        "KVM_SET_CPUID2 succeeds with several depths in EAX[7:0]",
        "P5, SC P15",
        w.G_PLAIN,
        (Step(q.SetCpuid(w.SEVERAL), w.done),),
        10,
        (Known("series-v2", 0, w.refused, w.EINVAL),),
    ),
    *_off("depth-64", w.BEYOND, "SC P15: the host has no such depth", 9, Known("series-v2", 0, w.refused, w.EINVAL)),
    Case(
        "cpuid-zero-1c",
        "an all-zero leaf 1CH without EDX[19] is accepted",
        "derived from P15",
        w.G_PLAIN,
        (Step(q.SetCpuid(w.PLAIN._replace(leaf=GOLDEN_COVE._replace(eax=0, ebx=0, ecx=0))), w.done),),
        11,
        (Known("series-v2", 0, w.refused, w.EINVAL),),
    ),
    *_off("no-1c", w.GUEST._replace(leaf=None), "P5", 12),
    _contradictory(
        "xss-without-size",
        w.GUEST._replace(component_size=0),
        "0DH.1:ECX[15] = 1 and no leaf 0DH.15: off, and XSS[15] faults",
    ),
    _contradictory(
        "xss-of-another-size",
        w.GUEST._replace(component_size=0x100),
        "0DH.1:ECX[15] = 1 and 0DH.15 of 256 bytes: off, and XSS[15] faults",
    ),
    _contradictory(
        "size-without-xss",
        w.GUEST._replace(component=0),
        "0DH.15 of 808 bytes and 0DH.1:ECX[15] = 0: off, and XSS[15] faults",
    ),
    _contradictory(
        "xss-without-xsaves", w.GUEST._replace(xsaves=0), "0DH.1:ECX[15] = 1 without XSAVES: off, and XSS[15] faults"
    ),
    Case(
        "cpuid-without-xsave-component",
        "EDX[19] with neither is consistent: the registers work, XSS[15] faults",
        "architecture.md 6.1; 8c16dc047b5d",
        w.G_PLAIN,
        (
            Step(q.SetCpuid(w.GUEST._replace(component=0, component_size=0)), w.done),
            w.rd(w.CTL, w.reads(0)),
            w.wr(w.XSS, 1 << 15, w.gp),
        ),
        0,
        (Known("series-v2", 2, w.done, _V2_XSS),),
    ),
    Case(
        "cpuid-zero-1c-any",
        "a guest without the feature is accepted on any host, with a leaf 1CH of zeros",
        "SC P15",
        w.ANY_PLAIN,
        (Step(q.SetCpuid(w.PLAIN._replace(leaf=GOLDEN_COVE._replace(eax=0, ebx=0, ecx=0))), w.done),),
        11,
        (Known("series-v2", 0, w.refused, w.EINVAL),),
    ),
    Case(
        "cpuid-guest-sees-1c",
        "the guest reads the leaf 1CH it was given",
        "P15; SC P3",
        w.G,
        (Step(q.Cpuid(0x1C), Is(Registers(*w.ONE_DEPTH))),),
        5,
    ),
    Case(
        "cpuid-guest-sees-edx19",
        "the guest reads the EDX[19] it was given",
        "P15; SC P3",
        w.G,
        (Step(q.Cpuid(7), w.bits(w.ARCH_LBR, w.ARCH_LBR, w.EDX)),),
        5,
    ),
    Case(
        "cpuid-plain-guest-sees-no-edx19",
        "a guest without the feature reads EDX[19] = 0",
        "SC P15",
        w.ANY_PLAIN,
        (Step(q.Cpuid(7), w.bits(w.ARCH_LBR, 0, w.EDX)),),
        13,
    ),
    Case(
        "model-newer-host",
        "a Sapphire Rapids guest works on another model of equal depth",
        "LX P5",
        q.Setup(w.HW, w.GUEST._replace(model=0x806F8)),
        (w.wr(w.CTL, 7 | 0x7F0000), w.jump(0x401000, 0x402000), w.rd(w.FROM, w.reads(0x401000))),
        76,
    ),
    Case(
        "lbr-on-then-off",
        "CPUID given twice before the first run: the second one counts",
        "P5",
        w.G,
        (Step(q.SetCpuid(w.PLAIN), w.done), w.rd(w.CTL, w.gp), w.rd(w.DEPTH, w.gp), w.rd(w.FROM, w.gp)),
        97,
    ),
    Case(
        "lbr-off-then-on",
        "CPUID given twice before the first run, the other way round",
        "P5",
        w.G_PLAIN,
        (Step(q.SetCpuid(w.GUEST), w.done), w.rd(w.CTL, w.reads(0)), w.rd(w.DEPTH, w.reads(w.D))),
        97,
    ),
    Case(
        "cpuid-after-run",
        "another CPUID after the first run is refused",
        "base (KVM_SET_CPUID2 after KVM_RUN)",
        w.G,
        (*w.let(q.Event.ENTRY, q.Event.EXIT), Step(q.SetCpuid(w.PLAIN), w.refused), w.rd(w.CTL, w.reads(0))),
        96,
    ),
    Case(
        "cpuid-same-after-run",
        "the same CPUID after the first run is accepted",
        "base (KVM_SET_CPUID2 after KVM_RUN)",
        w.G,
        (*w.let(q.Event.ENTRY, q.Event.EXIT), Step(q.SetCpuid(w.GUEST), w.done)),
        96,
    ),
)

# Guests that may not have the facility, though their CPUID says so: any access faults. (name, host, guest, row, cite)
_UNSERVED = (
    ("host-without", w.NO_LBR, w.GUEST, 18, "SC P4"),
    ("host-without-controls", w.NO_CONTROLS, w.GUEST, 1, "P11"),
    ("amd", w.AMD, w.GUEST, 104, "SC P11"),
    ("pmu-off", w.HW._replace(pmu=0), w.GUEST, 98, "base; d8f992e9fde8"),
    ("guest-pmu-0", w.HW, w.GUEST._replace(pmu_version=0), 98, "base; d8f992e9fde8"),
)


def _opted_out(host: q.Host, msr: int) -> tuple[Known, ...]:
    if host.vendor != "amd":
        return ()
    written = w.gp if msr == w.DEPTH else w.done  # 0 is no depth
    return Known("series-v2", 0, w.any_value, OPT_OUT), Known("series-v2", 1, written, OPT_OUT)


_UNSERVED_CASES = tuple(
    Case(
        f"unserved-{name}-{register}",
        "each access faults",
        cite,
        q.Setup(host, guest),
        (w.rd(msr, w.gp), w.wr(msr, 0, w.gp)),
        row,
        _opted_out(host, msr),
    )
    for name, host, guest, row, cite in _UNSERVED
    for register, msr in (
        ("CTL", w.CTL),
        ("DEPTH", w.DEPTH),
        ("FROM_0", w.FROM),
        ("TO_31", w.TO + 31),
        ("INFO_0", w.INFO),
    )
)

CASES: tuple[Case, ...] = (*_ACCEPTED, *_UNSERVED_CASES)
