"""VM entry and VM exit: what is loaded, saved, cleared and given back, and what the MSR bitmap lets through.

Rows 47 to 49, 51, 52 and 103 of reference kvm-series.md D; users-and-peers.md 3.2 (3, 8).
"""

from __future__ import annotations

from archlbr.arch import msrs, xsave
from archlbr.conformance import questions as q
from archlbr.conformance.case import Case, Known
from archlbr.conformance.cases import words as w
from archlbr.conformance.cases.branches import ALL, A, B, entry

E, P = q.Event, q.Place
_ENTRY_0 = xsave.COMPONENT_OFFSET + xsave.ENTRY_0
_PINNED = w.let(E.HOST_PINNED, E.HOST_BRANCH)
_RAW = "records are read and written raw, whoever owns them (P14)"
_CLEARED = "VM exit clears IA32_LBR_CTL of every vCPU, and nothing restores the host's (P10)"

_ALWAYS_ON = tuple(
    Known(design, step, w.reads(1), reason)
    for design, reason in (
        ("series-v2", "both controls are in every VMCS (P10)"),
        (
            "archlbr",
            "both controls are in every VMCS, and the host's CTL is written back after each exit (decision 021)",
        ),
    )
    for step in (1, 2)
)

_ENTRY_EXIT = (
    Case(
        "entry-loads",
        "entry loads CTL from the VMCS",
        "P10; architecture.md 3.7",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.ENTRY), w.look(P.HARDWARE_CTL, w.reads(7))),
    ),
    Case(
        "exit-saves",
        "exit saves CTL to the VMCS",
        "P10; architecture.md 3.7",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.ENTRY, E.EXIT), w.look(P.VMCS_CTL, w.reads(7)), w.get(w.CTL, w.reads(7))),
    ),
    Case(
        "exit-clears",
        "after exit the guest's CTL is not in hardware",
        "P10",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.ENTRY, E.EXIT), w.look(P.HARDWARE_CTL, w.reads(0))),
    ),
    Case(
        "exit-keeps-records",
        "an exit and an entry leave the records",
        "B 10",
        w.G,
        (w.wr(w.CTL, ALL), w.jump(*A), *w.let(E.ENTRY, E.EXIT, E.ENTRY), *entry(0, A)),
    ),
    Case(
        "controls-pair-active",
        "an owned vCPU has both controls",
        "P10",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.ENTRY), w.look(P.ENTRY_CONTROL, w.reads(1)), w.look(P.EXIT_CONTROL, w.reads(1))),
    ),
    Case(
        "controls-pair-idle",
        "a vCPU that does not record has neither control",
        "SC P10",
        w.G,
        (*w.let(E.ENTRY), w.look(P.ENTRY_CONTROL, w.reads(0)), w.look(P.EXIT_CONTROL, w.reads(0))),
        51,
        _ALWAYS_ON,
    ),
    Case(
        "controls-plain-guest",
        "a vCPU without the feature has neither control",
        "SC P10",
        w.G_PLAIN,
        (*w.let(E.ENTRY), w.look(P.ENTRY_CONTROL, w.reads(0)), w.look(P.EXIT_CONTROL, w.reads(0))),
        51,
        _ALWAYS_ON,
    ),
    Case(
        "host-ctl-after-plain-guest",
        "the host's session survives the run of a vCPU without LBRs",
        "SC P10",
        w.G_PLAIN,
        (*_PINNED, *w.let(E.ENTRY, E.EXIT), w.look(P.HARDWARE_CTL, w.reads(q.HOST_CTL))),
        51,
        (Known("series-v2", 4, w.reads(0), _CLEARED),),
    ),
    Case(
        "host-ctl-after-lbr-guest",
        "the host's CTL is restored after the run of a vCPU with LBRs",
        "SC P10; v4",
        w.G,
        (*_PINNED, w.wr(w.CTL, 7), *w.let(E.ENTRY, E.EXIT), w.look(P.HARDWARE_CTL, w.reads(q.HOST_CTL))),
        52,
        (Known("series-v2", 5, w.reads(0), _CLEARED),),
    ),
    Case(
        "host-ctl-before-and-after",
        "the host's CTL is the same before and after",
        "SC P10",
        w.G,
        (
            *_PINNED,
            w.look(P.HARDWARE_CTL, w.reads(q.HOST_CTL)),
            *w.let(E.ENTRY, E.EXIT),
            w.look(P.HARDWARE_CTL, w.reads(q.HOST_CTL)),
        ),
        51,
        (Known("series-v2", 5, w.reads(0), _CLEARED),),
    ),
    Case(
        "dump-active",
        "dump_vmcs prints LBR_CTL where the entry control is on",
        "P10, SC",
        w.G,
        (w.wr(w.CTL, 7), *w.let(E.ENTRY, E.EXIT), w.look(P.DUMP, w.reads(1))),
        103,
    ),
    Case(
        "dump-idle",
        "dump_vmcs does not print LBR_CTL where the entry control is off",
        "P10, SC",
        q.Setup(w.NO_CONTROLS, w.PLAIN),
        (*w.let(E.ENTRY, E.EXIT), w.look(P.DUMP, w.reads(0))),
        103,
    ),
)

_BITMAP = (
    *(
        Case(
            f"bitmap-owned-{name}",
            "a record passes through while the guest owns the LBRs",
            "P4, P7",
            w.G,
            (w.wr(w.CTL, 1), *w.let(E.ENTRY), w.look(P.INTERCEPTED, w.reads(0), msr)),
            47,
        )
        for name, msr in (("FROM_0", w.FROM), ("TO_15", w.TO + 15), ("INFO_31", w.INFO + 31))
    ),
    *(
        Case(
            f"bitmap-always-{name}",
            "CTL, DEPTH and entries past DEPTH are always intercepted",
            "P4, P7",
            w.G,
            (w.wr(w.CTL, 1), *w.let(E.ENTRY), w.look(P.INTERCEPTED, w.reads(1), msr)),
            47,
        )
        for name, msr in (("CTL", w.CTL), ("DEPTH", w.DEPTH), ("FROM_32", w.FROM + 32), ("INFO_63", w.INFO + 63))
    ),
    Case(
        "bitmap-idle",
        "without ownership a record is intercepted",
        "B 3",
        w.G,
        (*w.let(E.ENTRY), w.look(P.INTERCEPTED, w.reads(1), w.FROM)),
        47,
    ),
    Case(
        "bitmap-lost",
        "a slot that was lost is intercepted again before the guest runs",
        "base",
        w.G,
        (w.wr(w.CTL, 1), *w.let(E.ENTRY, E.EXIT, E.HOST_PINNED, E.ENTRY), w.look(P.INTERCEPTED, w.reads(1), w.FROM)),
        48,
    ),
    Case(
        "bitmap-back",
        "when the slot comes back the records pass through, and none of the host's shows",
        "base; contract",
        w.G,
        (
            w.wr(w.CTL, ALL),
            w.jump(*A),
            *_PINNED,
            *w.let(E.ENTRY, E.EXIT, E.HOST_PINNED_GONE, E.ENTRY),
            w.look(P.INTERCEPTED, w.reads(0), w.FROM),
            w.rd(w.FROM, w.reads(0, A[0])),
            w.rd(w.TO, w.reads(0, A[1])),
        ),
        49,
        (Known("series-v2", 9, w.reads(q.HOST_FROM), _RAW), Known("series-v2", 10, w.reads(q.HOST_TO), _RAW)),
    ),
    Case(
        "bitmap-back-records",
        "and recording goes on by itself",
        "base; contract",
        w.G,
        (w.wr(w.CTL, ALL), *_PINNED, *w.let(E.ENTRY, E.EXIT, E.HOST_PINNED_GONE), w.jump(*B), *entry(0, B)),
        49,
    ),
    Case(
        "legacy-bitmap-select",
        "an absent legacy register is never passed through",
        "users-and-peers.md 3.2, 3; 098f4c061ea1",
        w.G,
        (
            w.wr(w.CTL, 1),
            *w.let(E.ENTRY),
            w.look(P.INTERCEPTED, w.reads(1), w.LBR_SELECT),
            w.look(P.INTERCEPTED, w.reads(1), w.LBR_TOS),
        ),
        19,
    ),
)

_FROZEN = msrs.DEBUGCTL_FREEZE_SMM
_SMM_FREEZE = (
    Case(
        "freeze-in-smm-stays",
        "the host's FREEZE_WHILE_SMM stays set while the guest runs and afterwards",
        "users-and-peers.md 3.2, 9 (lkml 2506.3/01585)",
        w.G,
        (
            *w.let(E.HOST_FREEZES_SMM, E.ENTRY),
            w.look(P.HARDWARE_DEBUGCTL, w.bits(_FROZEN, _FROZEN)),
            *w.let(E.EXIT),
            w.look(P.HARDWARE_DEBUGCTL, w.bits(_FROZEN, _FROZEN)),
        ),
        0,
        (
            Known(
                "series-v2", 2, w.bits(_FROZEN, 0), "the guest runs with its own bit 14, whatever the host had (base)"
            ),
        ),
    ),
    Case(
        "freeze-in-smm-hidden",
        "the guest does not see the host's bit",
        "users-and-peers.md 3.2, 9",
        w.G,
        (*w.let(E.HOST_FREEZES_SMM, E.ENTRY), w.rd(w.DEBUGCTL, w.reads(0))),
    ),
)

_USER_AREA = (
    Case(
        "user-xsave-without-lbrs",
        "KVM_GET_XSAVE2 shows no supervisor component: the records go by MSRs",
        "arch/x86/kernel/fpu/xstate.c __copy_xstate_to_uabi_buf; QEMU",
        w.ANY_PLAIN,
        (w.look(P.USER_XSAVE, w.bits(1 << 15, 0), xsave.XSTATE_BV),),
    ),
)

CASES: tuple[Case, ...] = (*_ENTRY_EXIT, *_BITMAP, *_SMM_FREEZE, *_USER_AREA)
