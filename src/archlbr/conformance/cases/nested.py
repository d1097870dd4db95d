"""L1 and L2: what L1 is told of the controls, and whose LBRs L2 runs with.

Rows 56 and 90 to 95 of reference kvm-series.md D; users-and-peers.md 3.2 (11).
"""

from __future__ import annotations

from archlbr.arch import vmx
from archlbr.conformance import questions as q
from archlbr.conformance.answers import VmFail
from archlbr.conformance.case import Case, Known, Step
from archlbr.conformance.cases import words as w
from archlbr.conformance.cases.branches import ALL, A, B, empty, entry
from archlbr.conformance.expectations import Is

E, P = q.Event, q.Place
G1 = q.Setup(w.HW, w.GUEST._replace(vmx=1))
OFFERED = q.Setup(w.HW, w.GUEST._replace(vmx=1, lbr_controls=1))
LOAD, CLEAR = vmx.VM_ENTRY_LOAD_IA32_LBR_CTL, vmx.VM_EXIT_CLEAR_IA32_LBR_CTL
L2 = Step(q.EnterL2(), w.done)
_OPEN = "L2 runs with whatever IA32_LBR_CTL the processor holds (P10)"

_HIDDEN = (
    *(
        Case(
            f"l1-{name}-hidden",
            "the control may not be 1",
            "P10",
            G1,
            (w.rd(msr, w.bits(bit << 32, 0)),),
            90,
        )
        for name, msr, bit in (
            ("entry-controls", vmx.IA32_VMX_ENTRY_CTLS, LOAD),
            ("true-entry-controls", vmx.IA32_VMX_TRUE_ENTRY_CTLS, LOAD),
            ("exit-controls", vmx.IA32_VMX_EXIT_CTLS, CLEAR),
            ("true-exit-controls", vmx.IA32_VMX_TRUE_EXIT_CTLS, CLEAR),
        )
    ),
    Case(
        "l1-uses-load",
        "VMLAUNCH with the hidden entry control fails",
        "mem",
        G1,
        (Step(q.EnterL2(entry_controls=LOAD), Is(VmFail(7))), w.rd(w.CTL, w.reads(0))),
        91,
    ),
    Case(
        "l1-uses-clear",
        "VMLAUNCH with the hidden exit control fails",
        "mem",
        G1,
        (Step(q.EnterL2(exit_controls=CLEAR), Is(VmFail(7))), w.rd(w.CTL, w.reads(0))),
        91,
    ),
)

_KEPT = (
    Case(
        "l1-ctl-survives",
        "L1's CTL and records survive a run of L2",
        "SC P10",
        G1,
        (w.wr(w.CTL, ALL), w.jump(*A), L2, *w.let(E.L2_EXIT), w.rd(w.CTL, w.reads(ALL)), *entry(0, A)),
        92,
    ),
    Case(
        "l2-not-in-l1-stack",
        "L2's branches are not put into L1's stack",
        "SC P10",
        G1,
        (w.wr(w.CTL, ALL), w.jump(*A), L2, w.jump(*B), *w.let(E.L2_EXIT), *entry(0, A), *empty(1)),
        92,
    ),
    Case(
        "l1-records-after-l2",
        "after L2 L1 records again",
        "SC P10",
        G1,
        (w.wr(w.CTL, ALL), L2, *w.let(E.L2_EXIT), w.jump(*B), *entry(0, B)),
        92,
    ),
    Case(
        "l2-not-in-host-stack",
        "with L1's CTL = 0 and a host session, L2 is not recorded and the host's CTL stays",
        "SC P10; derived",
        G1,
        (
            *w.let(E.HOST_PINNED, E.HOST_BRANCH),
            L2,
            w.jump(*B),
            *w.let(E.L2_EXIT, E.EXIT),
            w.look(P.HARDWARE_FROM, w.reads(q.HOST_FROM)),
            w.look(P.HARDWARE_CTL, w.reads(q.HOST_CTL)),
        ),
        93,
        (
            Known("series-v2", 6, w.reads(B[0]), _OPEN),
            Known("series-v2", 7, w.reads(0), "VM exit clears the host's CTL (P10)"),
        ),
    ),
    Case(
        "l2-no-ctl",
        "L2 has no LBRs, whatever L1's bitmap says",
        "v10 12/16; LX",
        G1,
        (w.wr(w.CTL, 7), Step(q.EnterL2(passthrough=1), w.done), w.rd(w.CTL, w.gp)),
        94,
        (Known("series-v2", 2, w.reads(0), "KVM asks for no nested state (P10)"),),
    ),
    Case(
        "l2-debugctl-0",
        "bit 0 of DEBUGCTL never reaches vmcs12",
        "SC P6",
        G1,
        (L2, w.wr(w.DEBUGCTL, 1), *w.let(E.L2_EXIT), w.look(P.VMCS12_DEBUGCTL, w.bits(1, 0))),
        56,
        (Known("series-v2", 3, w.bits(1, 1), "bit 0 is dropped after the copy into vmcs12 (P6)"),),
    ),
    Case(
        "kvm-as-l1",
        "a KVM that is not offered the controls never writes GUEST_IA32_LBR_CTL",
        "v1 fix 5",
        q.Setup(w.NO_CONTROLS, w.PLAIN),
        (
            *w.let(E.COLD_RESET, E.ENTRY, E.EXIT),
            w.look(P.ENTRY_CONTROL, w.reads(0)),
            w.look(P.EXIT_CONTROL, w.reads(0)),
        ),
        95,
    ),
)

_NEVER = "the controls are hidden from L1 always (P10)"
_GIVEN = (
    Case(
        "l1-offered",
        "where they are offered, the controls may be 1",
        "v7-v12; SC P10",
        OFFERED,
        (
            w.rd(vmx.IA32_VMX_ENTRY_CTLS, w.bits(LOAD << 32, LOAD << 32)),
            w.rd(vmx.IA32_VMX_EXIT_CTLS, w.bits(CLEAR << 32, CLEAR << 32)),
        ),
        90,
        tuple(Known("series-v2", step, w.reads(0), _NEVER) for step in (0, 1)),
    ),
    *(
        Case(
            f"l1-loads-l2-{name}",
            requirement,
            "v7-v12; SC P10; architecture.md 3.7",
            OFFERED,
            (
                w.wr(w.CTL, 6),
                Step(q.EnterL2(LOAD, exit_controls, 7), w.done),
                *w.let(E.L2_EXIT),
                w.look(P.VMCS12_CTL, w.reads(7)),
                w.rd(w.CTL, w.reads(after)),
            ),
            92,
            (
                Known("series-v2", 1, Is(VmFail(7)), _NEVER),
                Known("series-v2", 2, w.refused, _NEVER),
                Known("series-v2", 3, w.reads(0), _NEVER),
                Known("series-v2", 4, w.reads(6), _NEVER),
            ),
        )
        for name, exit_controls, after, requirement in (
            ("and-clears", CLEAR, 0, "L2 runs with the CTL of vmcs12, and the exit clears it for L1"),
            ("and-keeps", 0, 7, "without the exit control L2's CTL is what L1 finds"),
        )
    ),
)

CASES: tuple[Case, ...] = (*_HIDDEN, *_KEPT, *_GIVEN)
