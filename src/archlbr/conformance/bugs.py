"""Real bugs of hypervisors as targets that misbehave: the suite must catch each, and reports none where it is absent.

Each row wraps another target and breaks one answer as the bug did. The list is that of reference users-and-peers.md
3.2, in its order. `tests` ask the whole table of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from archlbr.arch import msrs, xsave
from archlbr.arch.outcomes import DONE, GP, Value
from archlbr.conformance import questions as q
from archlbr.conformance.answers import FAILED, Indices, Registers, VmFail
from archlbr.conformance.wrapped import Wrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.conformance.answers import Answer
    from archlbr.conformance.target import Target

_LBR = xsave.COMPONENT_BIT
_CTL = msrs.IA32_LBR_CTL.index
_DEBUGCTL = msrs.IA32_DEBUGCTL.index
_XSS = msrs.IA32_XSS.index
_LEGACY = {msrs.MSR_LBR_SELECT.index, msrs.MSR_LASTBRANCH_TOS.index}
_LER = {msrs.IA32_LER_FROM_IP.index, msrs.IA32_LER_TO_IP.index, msrs.IA32_LER_INFO.index}
_FROM_0 = msrs.IA32_LBR_FROM_IP.index
_ENTRIES = {
    block.index + x for block in (msrs.IA32_LBR_FROM_IP, msrs.IA32_LBR_TO_IP, msrs.IA32_LBR_INFO) for x in range(32)
}
_IMAGE_DEPTH = xsave.COMPONENT_OFFSET + xsave.DEPTH


class OnSomeHost(Wrapped):
    """A bug that only hosts of one facility have."""

    def __init__(self, inside: Target) -> None:
        super().__init__(inside)
        self.legacy = False

    def start(self, setup: q.Setup) -> Answer:
        """Keep which facility the host has."""
        self.legacy = setup.host is not None and not setup.host.arch_lbr
        return super().start(setup)


class NoComponentSize(Wrapped):
    """CPUID shows the facility, and component 15 with a size of 0."""

    def offered(self, leaf: int, subleaf: int) -> Answer:
        """Hide sub-leaf 15 of 0DH."""
        return Registers(0, 0, 0, 0) if (leaf, subleaf) == (0xD, 15) else super().offered(leaf, subleaf)


class XssFaults(Wrapped):
    """The same setting, and XSS[15] faults, though CPUID.0DH.1:ECX[15] offers it."""

    def execute(self, instruction: q.Instruction) -> Answer:
        """Fault on a write of XSS[15]."""
        if isinstance(instruction, q.Wrmsr) and instruction.msr == _XSS and instruction.value & _LBR:
            return GP
        return super().execute(instruction)


class LegacyPassedThrough(OnSomeHost):
    """Legacy registers pass through on a processor that does not have them."""

    def look(self, place: q.Place, at: int) -> Answer:
        """Show them in the bitmap."""
        return Value(0) if place is q.Place.INTERCEPTED and at in _LEGACY else super().look(place, at)

    def execute(self, instruction: q.Instruction) -> Answer:
        """Let an access reach the hardware, where it kills the guest's entry rather than faulting in the guest."""
        if isinstance(instruction, q.Rdmsr | q.Wrmsr) and instruction.msr in _LEGACY and not self.legacy:
            return VmFail(33)
        return super().execute(instruction)


class DebugctlKillsGuest(OnSomeHost):
    """Setting DEBUGCTL.LBR without legacy LBRs crashes the guest."""

    def execute(self, instruction: q.Instruction) -> Answer:
        """Let the entry after it fail."""
        if isinstance(instruction, q.Wrmsr) and instruction.msr == _DEBUGCTL and instruction.value & ~self.legacy & 1:
            return VmFail(33)
        return super().execute(instruction)


class EventStaysActive(Wrapped):
    """The vLBR event counts as active though a CPU-pinned host event owns the LBRs."""

    def __init__(self, inside: Target) -> None:
        super().__init__(inside)
        self._host_owns = False

    def start(self, setup: q.Setup) -> Answer:
        """Begin with the LBRs free."""
        self._host_owns = False
        return super().start(setup)

    def happen(self, event: q.Event | q.EnterL2) -> Answer:
        """Keep who owns the LBRs."""
        if event is q.Event.HOST_PINNED:
            self._host_owns = True
        elif event is q.Event.HOST_PINNED_GONE:
            self._host_owns = False
        return super().happen(event)

    def execute(self, instruction: q.Instruction) -> Answer:
        """Read the host's record as if it were the guest's."""
        if self._host_owns and instruction == q.Rdmsr(_FROM_0):
            return super().look(q.Place.HARDWARE_FROM, 0)
        return super().execute(instruction)

    def look(self, place: q.Place, at: int) -> Answer:
        """Leave the bitmap open."""
        if self._host_owns and place is q.Place.INTERCEPTED and at in _ENTRIES:
            return Value(0)
        return super().look(place, at)


class LegacyNeverWorked(OnSomeHost):
    """The legacy facility is offered where it cannot work: the enable bit is kept and nothing is recorded."""

    def branch(self, branch: q.Branch) -> Answer:
        """Record nothing there."""
        return DONE if self.legacy else super().branch(branch)


class OnWithoutPmu(Wrapped):
    """The LBRs stay on when the virtual PMU is disabled."""

    def start(self, setup: q.Setup) -> Answer:
        """Start as if there were a PMU."""
        host, guest = setup.host, setup.guest
        if host is not None and not host.pmu:
            host = host._replace(pmu=1)
        if not guest.pmu_version:
            guest = guest._replace(pmu_version=2)
        return super().start(q.Setup(host, guest, setup.vcpus))


class HostValueInGuest(Wrapped):
    """The guest runs with the host's control register instead of its own."""

    def __init__(self, inside: Target) -> None:
        super().__init__(inside)
        self._host: Answer | None = None

    def happen(self, event: q.Event | q.EnterL2) -> Answer:
        """Keep the host's value over the entry."""
        self._host = self.inside.look(q.Place.HARDWARE_CTL, 0) if event is q.Event.ENTRY else None
        return super().happen(event)

    def look(self, place: q.Place, at: int) -> Answer:
        """Show the host's value in the guest."""
        if place is q.Place.HARDWARE_CTL and self._host is not None:
            return self._host
        return super().look(place, at)


class FreezeInSmmLost(Wrapped):
    """The host's DEBUGCTL.FREEZE_WHILE_SMM is not kept while the guest runs."""

    def __init__(self, inside: Target) -> None:
        super().__init__(inside)
        self._in_guest = False

    def happen(self, event: q.Event | q.EnterL2) -> Answer:
        """Keep whether the guest runs."""
        self._in_guest = event is q.Event.ENTRY
        return super().happen(event)

    def look(self, place: q.Place, at: int) -> Answer:
        """Show the bit cleared there."""
        answer = super().look(place, at)
        if self._in_guest and place is q.Place.HARDWARE_DEBUGCTL and isinstance(answer, Value):
            return Value(answer.value & ~msrs.DEBUGCTL_FREEZE_SMM)
        return answer


class NotSavable(Wrapped):
    """DEBUGCTL is not in the save list, and the LBR registers cannot be set by userspace."""

    def msr_list(self) -> Answer:
        """Leave DEBUGCTL out."""
        return _without(super().msr_list(), _DEBUGCTL)

    def set_msr(self, msr: int, value: int, other_thread: int) -> Answer:
        """Refuse the records."""
        return FAILED if msr in _ENTRIES else super().set_msr(msr, value, other_thread)


class NestedExitClears(Wrapped):
    """An exit from L2 loses L1's LBR state."""

    def happen(self, event: q.Event | q.EnterL2) -> Answer:
        """Leave L1 with CTL = 0."""
        answer = super().happen(event)
        if event is q.Event.L2_EXIT:
            super().execute(q.Wrmsr(_CTL, 0))
        return answer


class NoLer(Wrapped):
    """The LER registers are absent, and Windows stops with 0x3B."""

    def execute(self, instruction: q.Instruction) -> Answer:
        """Fault."""
        if isinstance(instruction, q.Rdmsr) and instruction.msr in _LER:
            return GP
        return super().execute(instruction)


class XssNotSaved(Wrapped):
    """IA32_XSS is left out of what is saved, and the restored guest's XRSTORS faults."""

    def msr_list(self) -> Answer:
        """Leave XSS out."""
        return _without(super().msr_list(), _XSS)


class DepthIgnored(Wrapped):
    """XRSTORS loads an image of another DEPTH as if it were the guest's own."""

    def execute(self, instruction: q.Instruction) -> Answer:
        """Drop the image's DEPTH."""
        if isinstance(instruction, q.Xrstors):
            kept = tuple(store for store in instruction.stores if store[0] != _IMAGE_DEPTH)
            return super().execute(q.Xrstors(kept))
        return super().execute(instruction)


def _without(answer: Answer, msr: int) -> Answer:
    return Indices(tuple(one for one in answer.msrs if one != msr)) if isinstance(answer, Indices) else answer


class Bug(NamedTuple):
    """A bug: its number in the list, its date, what went wrong, the case that must catch it, and how to have it."""

    number: int
    date: str
    what: str
    caught_by: str
    wrap: Callable[[Target], Wrapped]


BUGS: tuple[Bug, ...] = (
    Bug(
        1, "2021-12", "CPUID shows the facility with an XSAVE size of 0 (8c16dc047b5d)", "offer-0d-15", NoComponentSize
    ),
    Bug(2, "2024-08", "XSS[15] faults in the same setting: double fault", "xss-bit-15", XssFaults),
    Bug(3, "2023-01", "absent legacy registers pass through", "legacy-bitmap-select", LegacyPassedThrough),
    Bug(4, "2023-01", "DEBUGCTL.LBR crashes the domain (3edca52ce7)", "debugctl-0-accepted", DebugctlKillsGuest),
    Bug(5, "2023-06", "the vLBR event stays active beside a pinned host event", "bitmap-lost", EventStaysActive),
    Bug(6, "2024-03", "legacy LBR has never worked there (0eb2416c8111)", "debugctl-0-legacy", LegacyNeverWorked),
    Bug(7, "2023-03", "LBRs on without a vPMU (d8f992e9fde8)", "unserved-pmu-off-CTL", OnWithoutPmu),
    Bug(8, "2025-02", "the guest runs with the host's control (433265870ab3)", "entry-loads", HostValueInGuest),
    Bug(9, "2025-06", "FREEZE_IN_SMM lost while the guest runs", "freeze-in-smm-stays", FreezeInSmmLost),
    Bug(10, "2026", "LBR state is neither listed nor settable (CVE-2026-46014)", "list-debugctl", NotSavable),
    Bug(11, "2026", "a nested exit loses L1's LBR state (CVE-2026-46071)", "l1-ctl-survives", NestedExitClears),
    Bug(12, "2025-02", "LER is absent: Windows stops with 0x3B", "ler-FROM-can-be-read", NoLer),
    Bug(13, "2026-04", "XSS left out of snapshots (Firecracker)", "list-controls", XssNotSaved),
    Bug(14, "open", "an image of another DEPTH is loaded", "xrstors-depth-8", DepthIgnored),
)
