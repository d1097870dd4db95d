"""What the tables are written in: registers by short name, the setups of reference kvm-series.md D, one-line steps."""

from __future__ import annotations

from archlbr.arch import msrs
from archlbr.arch.branches import BranchKind
from archlbr.arch.cpuid import GOLDEN_COVE
from archlbr.arch.outcomes import DONE, GP, UD, Value
from archlbr.conformance import questions as q
from archlbr.conformance.answers import FAILED, Registers
from archlbr.conformance.case import Step
from archlbr.conformance.expectations import Bits, Expectation, Holds, Is, OneOf, Stored

CTL = msrs.IA32_LBR_CTL.index
DEPTH = msrs.IA32_LBR_DEPTH.index
FROM = msrs.IA32_LBR_FROM_IP.index
TO = msrs.IA32_LBR_TO_IP.index
INFO = msrs.IA32_LBR_INFO.index
DEBUGCTL = msrs.IA32_DEBUGCTL.index
XSS = msrs.IA32_XSS.index
PERF_CAPABILITIES = msrs.IA32_PERF_CAPABILITIES.index
LBR_SELECT = msrs.MSR_LBR_SELECT.index
LBR_TOS = msrs.MSR_LASTBRANCH_TOS.index

D = 32
RECORDS = tuple(
    (f"{name}_{x}", base + x) for name, base in (("FROM", FROM), ("TO", TO), ("INFO", INFO)) for x in range(D)
)

# Hosts ---------------------------------------------------------------------------------------------------------------

HW = q.Host()
NO_CONTROLS = HW._replace(entry_control=0, exit_control=0)
ENTRY_ONLY = HW._replace(exit_control=0)
EXIT_ONLY = HW._replace(entry_control=0)
NO_LBR = HW._replace(arch_lbr=0, leaf=GOLDEN_COVE._replace(eax=0, ebx=0, ecx=0), entry_control=0, exit_control=0)
# Should another vendor's processor grow the bit, KVM must not take it for Intel's (SC P11).
AMD = NO_CONTROLS._replace(vendor="amd")

# Guests; G is the reference's.
GUEST = q.Guest()
PLAIN = GUEST._replace(arch_lbr=0, leaf=None, component=0, component_size=0, lbr_format=0)

G = q.Setup(HW, GUEST)
G_PLAIN = q.Setup(HW, PLAIN)
ANY_PLAIN = q.Setup(None, PLAIN)

# The words of KVM_SET_CPUID2 and of what it makes of a guest ---------------------------------------------------------

EDX = 3
ECX = 2
ARCH_LBR = 1 << 19
NOTHING = Is(Registers(0, 0, 0, 0))
ONE_DEPTH = GOLDEN_COVE._replace(eax=1 << 3)
EIGHT = GUEST._replace(leaf=ONE_DEPTH._replace(eax=1))
SIXTEEN = GUEST._replace(leaf=ONE_DEPTH._replace(eax=2))
SEVERAL = GUEST._replace(leaf=ONE_DEPTH._replace(eax=0xA))
BEYOND = GUEST._replace(leaf=ONE_DEPTH._replace(eax=0x80))
EINVAL = "series v2 refuses the whole CPUID with -EINVAL (P15)"
EVERY_DEPTH = "offers every depth that the processor has, not the largest alone"

# Expectations and steps ----------------------------------------------------------------------------------------------

done = Is(DONE)
gp = Is(GP)
any_value = any_leaf = Bits(0, 0)
any_image = Stored(())
any_list = Holds()
done_or_gp = OneOf((DONE, GP))
ud = Is(UD)
refused = Is(FAILED)


def reads(*values: int) -> Expectation:
    """Expect one of these values."""
    return Is(Value(values[0])) if len(values) == 1 else OneOf(tuple(map(Value, values)))


def rd(msr: int, expected: Expectation) -> Step:
    """RDMSR in the guest."""
    return Step(q.Rdmsr(msr), expected)


def wr(msr: int, value: int, expected: Expectation = done) -> Step:
    """WRMSR in the guest."""
    return Step(q.Wrmsr(msr, value), expected)


def get(msr: int, expected: Expectation, *, other_thread: int = 0) -> Step:
    """KVM_GET_MSRS."""
    return Step(q.GetMsr(msr, other_thread), expected)


def put(msr: int, value: int, expected: Expectation = done, *, other_thread: int = 0) -> Step:
    """KVM_SET_MSRS."""
    return Step(q.SetMsr(msr, value, other_thread), expected)


def let(*events: q.Event) -> tuple[Step, ...]:
    """Let events happen, one after another."""
    return tuple(Step(q.Happen(event), done) for event in events)


def look(place: q.Place, expected: Expectation, at: int = 0) -> Step:
    """Look from outside."""
    return Step(q.Look(place, at), expected)


def jump(source: int, target: int, kind: int = BranchKind.REL_JMP, cpl: int = 0) -> Step:
    """Take a branch in the guest."""
    return Step(q.Branch(source, target, kind, cpl), done)


def fill(depth: int = D) -> tuple[Step, ...]:
    """Write a recognisable record into each entry: FROM_x, TO_x, INFO_x."""
    return tuple(
        wr(base + x, value) for x in range(depth) for base, value in zip((FROM, TO, INFO), record(x), strict=True)
    )


def filled(depth: int = D) -> tuple[Step, ...]:
    """Expect what `fill` wrote."""
    return tuple(
        rd(base + x, reads(value))
        for x in range(depth)
        for base, value in zip((FROM, TO, INFO), record(x), strict=True)
    )


def emptied(depth: int = D) -> tuple[Step, ...]:
    """Expect every record to read 0."""
    return tuple(rd(base + x, reads(0)) for x in range(depth) for base in (FROM, TO, INFO))


def record(x: int) -> tuple[int, int, int]:
    """Return entry x of `fill`."""
    return 0x500000 + 16 * x, 0x600000 + 16 * x, x + 1


def bits(mask: int, value: int, register: int = 0) -> Bits:
    """Expect these bits of a value or of a leaf's register."""
    return Bits(mask, value, register)


def stored(*words: tuple[int, int]) -> Stored:
    """Expect these (offset, value) words in an image."""
    return Stored(words)
