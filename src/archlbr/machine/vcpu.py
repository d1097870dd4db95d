"""The vPMU under the board: a guest's accesses to LBR and PMU registers go through `vpmu.step`, records are native.

`cpu.unicorn.supervisor` asks for each RDMSR, WRMSR and RDPMC, the board for CPUID. The processor's LBR registers are
the compiled facility's words, in which the hooks of `machine.observing` record; before a step the words' registers come
into `State.lbr`, after it they go back if it changed them. The entries do so only for a step that moves them: what
passes through is read and written in the words. Registers of neither are the engine's. Design: docs/decisions/016.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from archlbr.arch import msrs
from archlbr.arch.cpuid import Leaf0A, Leaf0D, Leaf0D1
from archlbr.arch.outcomes import GP, UD, Done, Image, Value
from archlbr.arch.vmx import VM_ENTRY_LOAD_IA32_LBR_CTL, VM_EXIT_CLEAR_IA32_LBR_CTL
from archlbr.arch.xsave import AREA_SIZE, COMPONENT, COMPONENT_BIT
from archlbr.cpu import words as at
from archlbr.cpu.unicorn.supervisor import ENGINES_OWN
from archlbr.errors import InternalError
from archlbr.lbr import compiled as lbr
from archlbr.lbr.actions import Rdmsr, Wrmsr, Xrstors, Xsaves
from archlbr.lbr.compiled import words as w
from archlbr.lbr.state import ARCH, EMPTY, Entry
from archlbr.lbr.state import State as LbrState
from archlbr.machine import observing
from archlbr.machine.counting import Counting
from archlbr.machine.models import OSXSAVE, PDCM, XSAVE
from archlbr.vpmu import snapshot
from archlbr.vpmu import step as vpmu
from archlbr.vpmu.actions import CpuidInstruction, Overflow, Rdpmc, Registers, VmEntry, Xsetbv
from archlbr.vpmu.cpuid import ARCH_LBR, supported
from archlbr.vpmu.designs.hypervisors import ARCHLBR_HYPERVISOR
from archlbr.vpmu.interception import loaded_debugctl
from archlbr.vpmu.registers import BY_INDEX
from archlbr.vpmu.state import platform, with_guest, with_lbr

if TYPE_CHECKING:
    from archlbr.arch.msrs import Msr
    from archlbr.cpu.unicorn.undefined import Steps
    from archlbr.cpu.words import Words
    from archlbr.machine.extended import Extended
    from archlbr.machine.models import Model
    from archlbr.vpmu.actions import Action, Outcome
    from archlbr.vpmu.cpuid import Cpuid
    from archlbr.vpmu.designs.hypervisors import Hypervisor
    from archlbr.vpmu.state import Platform, State

# Registers that the board keeps: MISC_ENABLE (performance monitoring is there, PEBS is not), the APIC's base,
# PEBS_ENABLE.
_PLAIN: Final = {0x1A0: 0x1881, 0x1B: 0xFEE00900, 0x3F1: 0}
# The LBRs of processors before Nehalem, where older software looks for them: #GP (reference guest-images.md); machine
# check banks from the eleventh on, of which IA32_MCG_CAP says nothing.
_MC0_CTL, _BANKS = 0x400, 10
_ABSENT: Final = frozenset((*range(0x40, 0x48), *range(0x60, 0x68), *range(_MC0_CTL + 4 * _BANKS, 0x480)))
# The engine's registers that hold an address: #GP unless it is canonical (SDM vol. 2B, WRMSR; CSTAR as KVM has it,
# __kvm_set_msr in arch/x86/kvm/x86.c).
_ADDRESSES: Final = frozenset((0x175, 0x176, 0xC0000082, 0xC0000083, 0xC0000100, 0xC0000101, 0xC0000102))
# IA32_MCi_CTL enables every error or none, where Linux may spare bit 0 or 10 (set_msr_mce, arch/x86/kvm/x86.c);
# IA32_MCi_STATUS can only be cleared (SDM vol. 3B, 16.3.2.2).
_ALL_OR_NOTHING: Final = (0, *((1 << 64) - 1 - spared for spared in (0, 1, 1 << 10, 1 << 10 | 1)))
_FW_WRITE: Final = msrs.IA32_PERF_CAPABILITIES.named("FW_WRITE").mask


def _numbered(*series: Msr) -> dict[int, int]:
    return {msr.index + x: x for msr in series for x in range(msr.count)}


# What counting changes, and what changes how it goes on.
_COUNTED: Final = frozenset(
    _numbered(msrs.IA32_PMC, msrs.IA32_A_PMC, msrs.IA32_FIXED_CTR, msrs.IA32_PERF_GLOBAL_STATUS)
)
_COUNTERS: Final = _COUNTED | frozenset(
    _numbered(
        msrs.IA32_PERFEVTSEL, msrs.IA32_FIXED_CTR_CTRL, msrs.IA32_PERF_GLOBAL_CTRL, msrs.IA32_PERF_GLOBAL_STATUS_RESET,
        msrs.IA32_PERF_GLOBAL_STATUS_SET,
    )
)  # fmt: skip


# Those of them that freeze and thaw the LBRs.
_THAWING: Final = frozenset(_numbered(msrs.IA32_PERF_GLOBAL_STATUS_RESET, msrs.IA32_PERF_GLOBAL_STATUS_SET))

# The registers of entries, to the entry's number: what the MSR bitmap may let through. LBR_SELECT and TOS pass with the
# legacy facility's (vmx_possible_passthrough_msrs, arch/x86/kvm/vmx/vmx.c).
_ENTRIES: Final = _numbered(msrs.IA32_LBR_FROM_IP, msrs.IA32_LBR_TO_IP, msrs.IA32_LBR_INFO)
_OLD_ENTRIES: Final = _numbered(
    msrs.MSR_LASTBRANCH_FROM_IP, msrs.MSR_LASTBRANCH_TO_IP, msrs.MSR_LBR_INFO, msrs.MSR_LBR_SELECT,
    msrs.MSR_LASTBRANCH_TOS,
)  # fmt: skip
# The words that a step may read or write beside the entries: TIMED, SINCE, PENDING; CTL to SMM_DEBUGCTL. By struct,
# the fastest way.
_TIMES, _TIMES_AT = struct.Struct("=3Q"), 8 * w.TIMED
_REGISTERS, _REGISTERS_AT = struct.Struct(f"={w.SMM_DEBUGCTL - w.CTL + 1}Q"), 8 * w.CTL


def platform_of(model: Model, hypervisor: Hypervisor) -> Platform:
    """Return the host that a model's processor makes under a hypervisor, with DEBUGCTL[12] for guests.

    A hypervisor that knows only model-specific LBRs does not use the VMX controls of the others.
    """
    sharing = hypervisor.sharing
    held = _FW_WRITE | (model.lbr_format if sharing.exposes else 0)
    entry, leave = (VM_ENTRY_LOAD_IA32_LBR_CTL, VM_EXIT_CLEAR_IA32_LBR_CTL) if sharing.architectural else (0, 0)
    return platform(
        model.facility, model.cpuid, entry_controls=entry, exit_controls=leave, capabilities=held, freezes_counters=1
    )


def guest_cpuid(hypervisor: Hypervisor, host: Platform, hidden: frozenset[str]) -> Cpuid:
    """Return the leaves that userspace sets: what KVM supports, without what the model hides from its guest."""
    cpuid = supported(hypervisor.registers, host)
    leaf0a = cpuid.leaf0a
    version = min(leaf0a.version, hypervisor.pmu_version)
    cpuid = cpuid._replace(leaf0a=leaf0a._replace(eax=leaf0a.eax & ~0xFF | version))
    if "pmu" in hidden:
        cpuid = cpuid._replace(pdcm=0, leaf0a=Leaf0A())
    if "pmu" in hidden or "arch-lbr" in hidden:
        cpuid = cpuid._replace(
            leaf07=cpuid.leaf07._replace(edx=cpuid.leaf07.edx & ~ARCH_LBR),
            leaf0d1=cpuid.leaf0d1._replace(ecx=cpuid.leaf0d1.ecx & ~COMPONENT_BIT),
            components=tuple(row for row in cpuid.components if row[0] != COMPONENT),
            leaf1c=None,
        )
    if "xsave" in hidden:
        cpuid = cpuid._replace(leaf0d=Leaf0D(), leaf0d1=Leaf0D1(), components=())
    return cpuid


def _vector(outcome: Outcome) -> int:
    return UD.vector if outcome == UD else GP.vector


def _refuses(msr: int, value: int) -> bool:
    if msr in _ADDRESSES:
        return (value + (1 << 47)) % (1 << 64) >= 1 << 48
    if _MC0_CTL <= msr < _MC0_CTL + 4 * _BANKS:
        kind = msr % 4
        return (kind == 0 and value not in _ALL_OR_NOTHING) or (kind == 1 and value != 0)
    return False


class Vcpu:
    """One guest's processor, as KVM keeps it, over the hooks' words.

    `state` is the vPMU's; its entries are the words' while the guest runs. `overflowed` is set when a PMI is due; the
    board delivers it and clears it.
    """

    STATE = ("overflowed", "_plain")

    def __init__(self, model: Model, words: Words, hypervisor: Hypervisor = ARCHLBR_HYPERVISOR) -> None:
        self.model = model
        self.hypervisor = hypervisor
        self.design = hypervisor.registers
        self.platform = platform_of(model, hypervisor)
        self.overflowed = 0
        self._words = words
        self._lbr = words[observing.LBR_AT : observing.LBR_END]
        self._fast = self._lbr.data  # faster word by word than the array
        self._raw = self._fast.cast("B")
        self._counting = Counting(words)
        self._plain = dict(_PLAIN)
        self.extended: Extended | None = None  # the board's, once there is an engine
        self._counts = False
        self.begin(vpmu.boot(self.design, self.platform, guest_cpuid(hypervisor, self.platform, model.hidden)))
        self.do(VmEntry())

    def begin(self, state: State) -> None:
        """Go on from a state, with the processor's registers as it has them and nothing counted."""
        self.state: State = state
        self._lbr[:] = lbr.words_of(self.platform.facility, state.lbr)
        lbr.refresh(self._lbr)
        self._old = state.rules.flavour != ARCH
        self._entries = _OLD_ENTRIES if self._old else _ENTRIES
        self._counting.skip()
        self._arm()

    def do(self, action: Action) -> Outcome:
        """Take a step of the vPMU's on the words, with the entries; return its outcome."""
        before = self.fetched()
        self.state, outcome = vpmu.step(self.design, self.platform, before, action)
        self._store(before.lbr)
        return outcome

    def saved(self) -> bytes:
        """Return the vCPU snapshot of what the guest has; nothing changes."""
        return snapshot.save(self.design, self.platform, self.fetched())

    def clock(self) -> tuple[int, int, int]:
        """Return what a vCPU snapshot leaves out: whether the newest record's clock counts, since when, and events."""
        timed, since, pending = _TIMES.unpack_from(self._raw, _TIMES_AT)
        return timed, since, pending

    def restore(self, data: bytes, clock: tuple[int, int, int]) -> None:
        """Write a vCPU snapshot back in the one legal order, and enter the guest; InputError when it cannot be."""
        self.begin(snapshot.restore(self.design, self.platform, self.fetched(), data))
        self.do(VmEntry())
        _TIMES.pack_into(self._raw, _TIMES_AT, *clock)
        lbr.refresh(self._lbr)

    def fetched(self) -> State:
        """Return the state with the processor's registers as the words have them, entries included."""
        return with_lbr(self.state, lbr.state_of(self.platform.facility, self._lbr))

    # What the engine asks ---------------------------------------------------------------------------------------------

    def rdmsr(self, msr: int) -> int | None:
        """Return a register's value, None for #GP, ENGINES_OWN for what the engine keeps."""
        if msr in _COUNTERS:
            if msr in _COUNTED:
                self._settle()
            outcome = self._light(Rdmsr(msr))
        elif self._entries.get(msr, w.COUNT) < self.state.vmcs.passthrough:
            fine, value = lbr.rdmsr(self._lbr, np.uint64(msr))
            return int(value) if fine else None
        elif msr not in BY_INDEX:
            return None if msr in _ABSENT else self._plain.get(msr, ENGINES_OWN)
        else:
            outcome = self._access(Rdmsr(msr), msr)
        return outcome.value if isinstance(outcome, Value) else None

    def wrmsr(self, msr: int, value: int) -> bool | int:
        """Write a register; False for #GP, ENGINES_OWN for what the engine keeps."""
        if msr in _COUNTERS:
            self._settle()
            action = Wrmsr(msr, value)
            thaws = value & msrs.LBR_FRZ and msr in _THAWING
            done = isinstance(self._access(action, msr) if thaws else self._light(action), Done)
            self._arm()
            return done
        if self._entries.get(msr, w.COUNT) < self.state.vmcs.passthrough:
            return bool(lbr.wrmsr(self._lbr, np.uint64(msr), np.uint64(value)))
        if msr not in BY_INDEX:
            if msr not in self._plain:
                return False if msr in _ABSENT or _refuses(msr, value) else ENGINES_OWN
            self._plain[msr] = value
            return True
        return isinstance(self._access(Wrmsr(msr, value), msr), Done)

    def rdpmc(self, counter: int) -> int | None:
        """Return a counter by RDPMC's number; None for #GP."""
        self._settle()
        outcome = self._light(Rdpmc(counter))
        return outcome.value if isinstance(outcome, Value) else None

    def execute(self, rip: int) -> int | Steps:
        """Do the work of an instruction that the engine does not know; a vCPU without an engine knows none."""
        return self.extended.execute(rip) if self.extended is not None else 0

    def xsetbv(self, value: int, cpl: int) -> bool:
        """Write XCR0; False for #GP."""
        return isinstance(self._light(Xsetbv(value, cpl)), Done)

    def xsaves(self) -> bytes | int:
        """Return an area of 1384 bytes, zeros before, with the header and the component as XSAVES writes them.

        Or the vector of the fault. Where the vPMU lets the instruction run in the processor, it does so in the words.
        """
        if self.state.vmcs.xss_exiting & COMPONENT_BIT or not self._lbr[w.XSAVES]:
            return self._emulated_xsaves()
        area = np.zeros(AREA_SIZE, np.uint8)
        lbr.xsaves(self._lbr, area, np.uint64(COMPONENT_BIT))
        return area.tobytes()

    def _emulated_xsaves(self) -> bytes | int:
        outcome = self.do(Xsaves(bytes(AREA_SIZE)))
        return outcome.content if isinstance(outcome, Image) else _vector(outcome)

    def xrstors(self, area: bytes) -> int:
        """Load the component from an area of 1384 bytes; return 0, or the vector of the fault."""
        if self.state.vmcs.xss_exiting & COMPONENT_BIT or not self._lbr[w.XSAVES]:
            outcome = self.do(Xrstors(area))
            return 0 if isinstance(outcome, Done) else _vector(outcome)
        return int(lbr.xrstors(self._lbr, np.frombuffer(area, np.uint8), np.uint64(COMPONENT_BIT)))

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """Return EAX, EBX, ECX and EDX: the vPMU's answer on the leaves that are its own, the model's on the others."""
        model = self.model.answer_cpuid(leaf, subleaf)
        if leaf not in (1, 7, 0xA, 0xD, 0x1C):
            return model
        outcome = self._light(CpuidInstruction(leaf, subleaf))
        if not isinstance(outcome, Registers):
            raise InternalError(f"CPUID came to {outcome}")
        if leaf == 1:
            ecx = model[2] & ~PDCM | outcome.ecx & PDCM
            if not self.state.cpuid.leaf0d.eax:
                ecx &= ~XSAVE
            elif self.extended is not None and self.extended.enabled:
                ecx |= OSXSAVE
            return (*model[:2], ecx, model[3])
        if leaf == 7 and subleaf == 0:
            return (*model[:3], model[3] & ~ARCH_LBR | outcome.edx & ARCH_LBR)
        return outcome.eax, outcome.ebx, outcome.ecx, outcome.edx

    def serve(self) -> None:
        """Bring the counters up to date, note overflows, and say when the next is due."""
        self._settle()
        if self._counts:
            self._arm()

    # The step on the words --------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        self._counts = self._counting.arm(self.state)

    def _settle(self) -> None:
        if not self._counts:
            self._counting.skip()
            return
        for count in self._counting.counted():
            if isinstance(self._light(count), Overflow):
                self.overflowed = 1
                self._words[at.DEADLINE] = 0  # the hook stops, and the board delivers

    # A step that looks at no LBR register: only if it changes one, as a PMI does, the words' are fetched for it.
    def _light(self, action: Action) -> Outcome:
        after, outcome = vpmu.step(self.design, self.platform, self.state, action)
        if after.lbr is not self.state.lbr:
            return self._access(action, 0)
        self.state = after
        return outcome

    # A #DB cleared the enable bit of the model-specific facility, of which KVM keeps the guest's value (the hook of
    # `machine.observing`; row 83 of reference kvm-series.md). With Architectural LBR the value is in the processor.
    def _debugged(self, debugctl: int) -> int:
        state = self.state
        loaded = loaded_debugctl(self.design, state, state.guest.debugctl)
        return state.running and loaded & ~debugctl & msrs.DEBUGCTL_LBR

    # A step that leaves the entries alone, or replaces them without looking: they are not fetched. An entry that is
    # intercepted is in KVM's copy, unless the design reads the processor's all the same.
    def _access(self, action: Action, index: int) -> Outcome:
        if index in self._entries and self.design.raw_records:
            return self.do(action)
        timed, since, pending = _TIMES.unpack_from(self._raw, _TIMES_AT)
        ctl, depth, source, target, info, debugctl, frozen, xss, select, smm, smm_debugctl = _REGISTERS.unpack_from(
            self._raw, _REGISTERS_AT
        )
        if self._old and self._debugged(debugctl):
            guest = self.state.guest
            self.state = with_guest(self.state, guest._replace(debugctl=guest.debugctl & ~msrs.DEBUGCTL_LBR))
        stack = self.state.lbr.stack
        if len(stack) != depth:
            stack = (EMPTY,) * depth
        head = (self._fast[w.HEAD] - w.RING) // w.STRIDE
        tos = 0 if self.platform.facility.format == ARCH else head
        ler = Entry(source, target, info)
        before = LbrState(
            ctl, depth, stack, ler, debugctl, frozen, xss, select, tos, smm, smm_debugctl, since, timed, pending
        )
        self.state, outcome = vpmu.step(self.design, self.platform, with_lbr(self.state, before), action)
        self._store(before)
        return outcome

    def _store(self, before: LbrState) -> None:
        after, words = self.state.lbr, self._lbr
        if after is before:
            return
        if after.stack is not before.stack or after.tos != before.tos:
            if after.stack != (EMPTY,) * after.depth:
                words[:] = lbr.words_of(self.platform.facility, after)
                return
            words[w.RING :] = 0
            words[w.HEAD] = w.RING + w.STRIDE * after.tos
        _TIMES.pack_into(self._raw, _TIMES_AT, after.timed, after.since, after.pending)
        _REGISTERS.pack_into(
            self._raw, _REGISTERS_AT, after.ctl, after.depth, *after.ler, after.debugctl, after.frozen, after.xss,
            after.select, after.smm, after.smm_debugctl,
        )  # fmt: skip
        lbr.refresh(words)
