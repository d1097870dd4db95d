"""Who has the LBRs: the host's own session, two vCPUs, other threads and processors; what leaks and what is kept.

Rows 44, 45, 50, 53, 54, 69, 74, 75 and 100 to 102 of reference kvm-series.md D; users-and-peers.md 3.2 (5).
"""

from __future__ import annotations

from archlbr.arch import msrs, xsave
from archlbr.arch.outcomes import Value
from archlbr.conformance import questions as q
from archlbr.conformance.case import ANY_STEP, Case, Known, Step
from archlbr.conformance.cases import words as w
from archlbr.conformance.cases.branches import ALL, A, B, empty, entry
from archlbr.conformance.expectations import Lacks, Not

E, P = q.Event, q.Place
_ENTRY_0 = xsave.COMPONENT_OFFSET + xsave.ENTRY_0
_PINNED = w.let(E.HOST_PINNED, E.HOST_BRANCH)
_RAW = "records are read and written raw, whoever owns them (P14)"
_CLEARED = "VM exit clears IA32_LBR_CTL of every vCPU, and nothing restores the host's (P10)"

_BUSY = (
    Case(
        "busy-read",
        "while the host owns the LBRs a record reads 0 or the guest's own value, without a fault",
        "SC P14; base",
        w.G,
        (w.wr(w.FROM, 0x5000), *_PINNED, w.rd(w.FROM, w.reads(0, 0x5000)), w.rd(w.TO, w.reads(0))),
        44,
        (Known("series-v2", 3, w.reads(q.HOST_FROM), _RAW), Known("series-v2", 4, w.reads(q.HOST_TO), _RAW)),
    ),
    *(
        Case(
            f"busy-no-leak-{name}",
            "nothing of the host's record shows",
            "SC P14",
            w.G,
            (*_PINNED, w.rd(msr, Not(Value(value)))),
            44,
            (Known("series-v2", 2, w.reads(value), _RAW),),
        )
        for name, msr, value in (("FROM", w.FROM, q.HOST_FROM), ("TO", w.TO, q.HOST_TO))
    ),
    Case(
        "busy-write",
        "a write is dropped or kept for the guest; the host's record stays",
        "SC P14",
        w.G,
        (*_PINNED, w.wr(w.FROM, 0x5000), w.look(P.HARDWARE_FROM, w.reads(q.HOST_FROM))),
        45,
        (Known("series-v2", 3, w.reads(0x5000), _RAW),),
    ),
    Case(
        "busy-vmm-read",
        "the VMM reads the guest's value or 0, never the host's",
        "SC P14",
        w.G,
        (w.wr(w.FROM, 0x5000), *_PINNED, w.get(w.FROM, w.reads(0, 0x5000)), w.get(w.TO, w.reads(0))),
        74,
        (Known("series-v2", 3, w.reads(q.HOST_FROM), _RAW), Known("series-v2", 4, w.reads(q.HOST_TO), _RAW)),
    ),
    Case(
        "busy-vmm-write",
        "the VMM's write does not reach the host's record",
        "SC P14",
        w.G,
        (*_PINNED, w.put(w.FROM, 0x5000), w.look(P.HARDWARE_FROM, w.reads(q.HOST_FROM))),
        74,
        (Known("series-v2", 3, w.reads(0x5000), _RAW),),
    ),
    Case(
        "busy-guest-not-recorded",
        "the guest's branches do not enter the host's stack",
        "SC cover; derived",
        w.G,
        (*_PINNED, w.wr(w.CTL, ALL), w.jump(*A), *w.let(E.EXIT), w.look(P.HARDWARE_FROM, w.reads(q.HOST_FROM))),
        54,
        (Known("series-v2", 5, w.reads(A[0]), "the control loads the guest's CTL over a stack of the host's (P10)"),),
    ),
    Case(
        "busy-host-samples",
        "a host session that excludes the guest sees no address of the guest",
        "SC cover Q2",
        w.G,
        (w.wr(w.CTL, ALL), w.jump(*A), *_PINNED, *w.let(E.ENTRY, E.EXIT), w.look(P.HARDWARE_FROM, Not(Value(A[0])))),
        53,
    ),
    Case(
        "busy-xsaves",
        "XSAVES writes nothing of the host's to guest memory",
        "derived; SC (leak)",
        w.G,
        (*_PINNED, w.wr(w.XSS, 1 << 15, w.done_or_gp), Step(q.Xsaves(), Lacks(q.HOST_FROM))),
        69,
        (Known("series-v2", 3, w.stored((_ENTRY_0, q.HOST_FROM)), "XSAVES goes round interception (P11)"),),
    ),
)

_TWO = q.Setup(w.HW, w.GUEST, vcpus=2)
_SEEN = (Known("series-v2", 2, w.reads(0x7000), "a change of owner neither saves nor empties the records (P14)"),)
_NO_LER = tuple(Known("series-v2", ANY_STEP, one, "LER is not virtualized (v4 text)") for one in (w.gp, w.reads(0)))
_OWN = tuple(
    Case(
        f"two-vcpus-own-{name}",
        "the other vCPU finds the reset value, the first one its own again",
        "selftests x86/msrs_test.c: two vCPUs on one thread",
        _TWO,
        (
            w.wr(msr, value),
            *w.let(E.OTHER_VCPU),
            w.rd(msr, w.reads(0)),
            *w.let(E.OTHER_VCPU),
            w.rd(msr, w.reads(value)),
        ),
        50,
        _NO_LER if name.startswith("LER") else _SEEN if (name, msr) in w.RECORDS else (),
    )
    for name, msr, value in (
        ("XSS", w.XSS, 1 << 15),
        ("DEBUGCTL", w.DEBUGCTL, 0x800),
        ("LER_FROM", msrs.IA32_LER_FROM_IP.index, 0x1000),
        ("LER_TO", msrs.IA32_LER_TO_IP.index, 0x1000),
        ("LER_INFO", msrs.IA32_LER_INFO.index, 1 << 63),
        *((name, msr, 0x7000) for name, msr in w.RECORDS if name.endswith(("_0", "_31"))),
    )
)
_SHARED = (
    Case(
        "two-vcpus-records",
        "no record of one vCPU is seen by the other",
        "SC cover (leak test)",
        _TWO,
        (w.wr(w.CTL, ALL), w.jump(*A), *w.let(E.OTHER_VCPU), *empty(0), w.wr(w.CTL, ALL), *empty(0)),
        50,
        tuple(
            Known("series-v2", step, w.reads(part), "a change of owner neither saves nor empties the records (P14)")
            for step, part in zip((3, 4, 6, 7), A * 2, strict=True)
        ),
    ),
    Case(
        "two-vcpus-back",
        "each vCPU finds its own records again",
        "SC cover",
        _TWO,
        (
            w.wr(w.CTL, ALL),
            w.jump(*A),
            *w.let(E.OTHER_VCPU),
            w.wr(w.CTL, ALL),
            w.jump(*B),
            *w.let(E.OTHER_VCPU),
            *entry(0, A),
            *empty(1),
            *w.let(E.OTHER_VCPU),
            *entry(0, B),
            *empty(1),
        ),
        50,
    ),
    Case(
        "two-vcpus-ctl",
        "CTL and DEPTH are each vCPU's own",
        "selftests msrs_test.c",
        _TWO,
        (w.wr(w.CTL, 7), *w.let(E.OTHER_VCPU), w.rd(w.CTL, w.reads(0)), *w.let(E.OTHER_VCPU), w.rd(w.CTL, w.reads(7))),
        50,
    ),
    Case(
        "other-thread-get",
        "the VMM reads the vCPU's records from any thread",
        "derived",
        w.G,
        (w.wr(w.CTL, ALL), w.jump(*A), w.get(w.FROM, w.reads(A[0]), other_thread=1)),
        75,
        (Known("series-v2", 2, w.reads(0), "RDMSR runs where the ioctl was called (P14)"),),
    ),
    Case(
        "other-thread-put",
        "the VMM writes them from any thread",
        "derived",
        w.G,
        (w.put(w.FROM, 0x5000, other_thread=1), w.rd(w.FROM, w.reads(0x5000))),
        75,
        (Known("series-v2", 1, w.reads(0), "WRMSR runs where the ioctl was called (P14)"),),
    ),
    Case(
        "other-cpu",
        "a move to another CPU keeps the records",
        "base",
        w.G,
        (w.wr(w.CTL, ALL), w.jump(*A), *w.let(E.OTHER_CPU), *entry(0, A), w.rd(w.CTL, w.reads(ALL))),
        100,
    ),
    Case(
        "sched-out-in",
        "a time slice without the CPU keeps records and recording",
        "base, P6",
        w.G,
        (
            w.wr(w.CTL, ALL),
            w.jump(*A),
            *w.let(E.SCHED_OUT, E.SCHED_IN),
            *entry(0, A),
            w.jump(*B),
            *entry(0, B),
            *entry(1, A),
        ),
        101,
    ),
    Case(
        "sched-keeps-event",
        "LBREn = 1 keeps the event over a time slice",
        "base, P6",
        w.G,
        (w.wr(w.CTL, 1), *w.let(E.ENTRY, E.SCHED_OUT, E.SCHED_IN, E.ENTRY), w.look(P.EVENT, w.reads(1))),
        101,
    ),
    Case(
        "free-releases",
        "a vCPU that is freed releases its event",
        "base",
        w.G,
        (
            w.wr(w.CTL, 1),
            *w.let(E.ENTRY, E.EXIT),
            w.look(P.EVENT, w.reads(1)),
            *w.let(E.FREE),
            w.look(P.EVENT, w.reads(0)),
        ),
        102,
    ),
    Case(
        "vmcs-readable",
        "the guest's CTL can be read from outside",
        "P6",
        w.G,
        (w.wr(w.CTL, 7), w.look(P.VMCS_CTL, w.reads(7)), w.get(w.CTL, w.reads(7))),
    ),
)

CASES: tuple[Case, ...] = (*_BUSY, *_SHARED, *_OWN)
