"""What each design answers to the review's three questions, and what each context may do, with the check behind it.

`document` writes it out; a test explores each check and compares. A check is a scenario and a property, and what the
search must say.
"""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """What the search says; broken: 1 when the scenario violates the property."""

    scenario: str
    claim: str
    broken: int


class Answer(NamedTuple):
    """One answer of one design."""

    design: str
    says: str
    checks: tuple[Check, ...]


class Context(NamedTuple):
    """A context in which perf code may run. legacy, archlbr: may it take the LBRs here, and what happens."""

    name: str
    legacy: str
    archlbr: str


QUESTIONS = (
    "When may perf take the LBRs?",
    "What is expected when perf uses the LBRs: is the guest traced?",
    "Why is DEBUGCTL read with interrupts on, and the LBRs with interrupts off?",
)

CONTEXTS: tuple[Context, ...] = (
    Context(
        "task switch, before vcpu_put and before vcpu_load",
        "yes; the only path that saves and restores (perf_event_context_sched_out, _in in kernel/events/core.c)",
        "yes; vcpu_put saves the guest's records and ends its ownership",
    ),
    Context(
        "IPI: an event is opened, enabled, disabled, closed",
        "yes; users of the LBRs change and the registers may be reset, nothing is saved (ctx_resched)",
        "yes; what the registers hold of a guest is saved, then they are wiped, in the IPI",
    ),
    Context("rotation by hrtimer", "yes; only flexible events move", "yes; as an IPI"),
    Context(
        "NMI",
        "ownership never changes; the enable bit may, on perfmon versions 2 and 3 (intel_pmu_handle_irq)",
        "no; it reads if the host owns the registers, and says that it has no stack if not",
    ),
    Context("interrupts off, before VM entry", "NMI alone", "NMI alone; the hand-over to the guest happens here"),
    Context("the guest runs", "no perf code runs without an exit", "no perf code runs without an exit"),
    Context(
        "interrupts off, after VM exit",
        "KVM writes the snapshot of DEBUGCTL back (vmx_vcpu_run)",
        "the hand-over to the host happens here, if it has an event",
    ),
)

WHEN: tuple[Answer, ...] = (
    Answer(
        "vlbr-6.12",
        "In a task switch and in any IPI. Neither saves when it takes, and the scheduler lets both run at once.",
        (Check("opened-pinned", "G1", 1), Check("steady-pinned", "S1", 1)),
    ),
    Answer("series-v2", "As vlbr-6.12, and XSAVES goes round it.", (Check("xsaves", "S1", 1),)),
    Answer(
        "request",
        "When KVM serves the request; naively, that may be never.",
        (Check("lend", "L2", 1), Check("user", "L2", 1), Check("roam-traced", "L2-sched", 1)),
    ),
    Answer("mediated", "Outside kvm_mediated_pmu_load and kvm_mediated_pmu_put.", (Check("lend", "H1", 0),)),
    Answer(
        "archlbr",
        "In a task switch and in any IPI, at once; the guest's records are saved first. Never in an NMI.",
        (Check("lend", "G1", 0), Check("lend", "S1", 0), Check("lend", "L2", 0)),
    ),
)
TRACED: tuple[Answer, ...] = (
    Answer(
        "vlbr-6.12",
        "At the guest's whim: its enable bit is loaded whoever owns the registers, and exclude_guest does not count.",
        (Check("failing-traced", "H2", 1), Check("guest-sampled", "H3", 1)),
    ),
    Answer("series-v2", "As vlbr-6.12, and in L2 by what the processor holds.", (Check("nested-traced", "H2", 1),)),
    Answer("request", "Naively, as vlbr-6.12.", (Check("steady", "H2", 1),)),
    Answer("mediated", "No; an event that would count in the guest is refused.", (Check("guest-sampled", "H3", 0),)),
    Answer(
        "archlbr",
        "By its own LBR_CTL and for itself alone. A host sample taken in the guest says that it has no stack.",
        (Check("guest-sampled", "H3", 0), Check("guest-sampled", "H1", 0), Check("failing-traced", "H2", 0)),
    ),
)
WHY: tuple[Answer, ...] = (
    Answer(
        "vlbr-6.1",
        "Two authors, two assumptions. The snapshot is stale as soon as an IPI has run, in both directions.",
        (Check("steady", "S1", 1), Check("opened", "H4", 1)),
    ),
    Answer(
        "vlbr-6.12",
        "The snapshot is taken with interrupts off, which closes that hole; an NMI still makes it stale where an"
        " overflow clears the enable bit.",
        (Check("steady", "S1", 0), Check("opened", "H4", 0), Check("freeze", "H4", 1)),
    ),
    Answer("mediated", "The snapshot precedes the load, and is stale at each exit.", (Check("lend", "H4", 1),)),
    Answer(
        "archlbr", "There is no snapshot: perf knows what it wants.", (Check("freeze", "H4", 0), Check("lend", "H4", 0))
    ),
)
ANSWERS = tuple(zip(QUESTIONS, (WHEN, TRACED, WHY), strict=True))

TO_THE_GUEST = ("S1", "S2", "S4", "G1", "G2", "M1", "M1-live", "L1")
TO_THE_HOST = ("S3", "S5", "H1", "H2", "H3", "H4", "H5", "C1", "L2-entry", "L2", "L2-sched", "L3")
GAPS = (
    "Between the hand-over and VM entry, and between VM exit and the hand-over, host code is recorded for nobody.",
    "A host stack starts empty after an exit. A host task's call-stack event keeps its frames; one that follows a vCPU"
    " thread is not modelled.",
    "A guest's PMI freezes by KVM's hand, some branches late, because the guest's freeze bit is not loaded.",
    "One host event a pCPU is modelled, and two that take turns. A group matters by the counters it takes from the vLBR"
    " event, which is modelled as their loss; cgroups, PEBS and the BPF branch snapshot are not modelled.",
)
