"""One vCPU as the hypervisor keeps it, and the processor's LBR registers under it.

`Platform` is the host: processor, kernel and module parameters; it never changes while vCPUs run. `State` is
everything that persists between two steps. It holds two register files of one kind, `lbr.state.State`:

    lbr     the registers of the processor this vCPU is loaded on, whoever's values they hold
    guest   the guest's registers as KVM keeps them

Which of them answers for the guest is decided by four flags. `loaded`: the vCPU's thread is on the processor.
`owned`: perf has given the LBRs to this vCPU, so that, while loaded, `lbr` holds its entries, LER and DEPTH. `running`:
the processor is in the guest (and then, while owned, `lbr.ctl` is live). `event`: the vCPU has asked for the LBRs
(series v2: the vLBR event exists). Two vCPUs of one thread are two States that hand `lbr` on between SchedOut and
SchedIn. `step` is the only writer; `designs` says by which rules.
Authority: reference kvm-series.md A and B; perf-kvm-contract.md A0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from archlbr.arch.vmx import VM_ENTRY_LOAD_IA32_LBR_CTL, VM_EXIT_CLEAR_IA32_LBR_CTL
from archlbr.lbr import state as lbr_state

if TYPE_CHECKING:
    from archlbr.lbr.state import Facility
    from archlbr.vpmu.cpuid import Cpuid, Rules

INTEL, AMD = "intel", "amd"

# What perf answers when the vCPU asks for the LBRs.
FAILS, BUSY, FREE = -1, 0, 1


class Platform(NamedTuple):
    """The host; built by `platform`.

    facility: the processor's LBRs, of either flavour. cpuid: the host's leaves. entry_controls, exit_controls: which
    of the two LBR controls may be 1. xss: the components the host's kernel enables in IA32_XSS. capabilities: the
    host's IA32_PERF_CAPABILITIES. vendor: INTEL or AMD. pmu: enable_pmu of the kvm module. nested: 1 when L1 is
    offered the two controls. freezes_counters: 1 when a guest has DEBUGCTL[12], which KVM refuses (ours, decision 016).
    """

    facility: Facility
    cpuid: Cpuid
    entry_controls: int
    exit_controls: int
    xss: int
    capabilities: int
    vendor: str
    pmu: int
    nested: int
    freezes_counters: int

    @property
    def controls(self) -> int:
        """Return 1 when both controls are there; one alone is dropped (P10: they are a must-match pair)."""
        return int(bool(self.entry_controls & VM_ENTRY_LOAD_IA32_LBR_CTL)) & int(
            bool(self.exit_controls & VM_EXIT_CLEAR_IA32_LBR_CTL)
        )


def platform(
    facility: Facility,
    cpuid: Cpuid,
    *,
    entry_controls: int = VM_ENTRY_LOAD_IA32_LBR_CTL,
    exit_controls: int = VM_EXIT_CLEAR_IA32_LBR_CTL,
    xss: int = 1 << 15,
    capabilities: int | None = None,
    vendor: str = INTEL,
    pmu: int = 1,
    nested: int = 0,
    freezes_counters: int = 0,
) -> Platform:
    """Build a host; without `capabilities`, PERF_CAPABILITIES holds the facility's format and nothing else."""
    held = facility.format if capabilities is None else capabilities
    return Platform(facility, cpuid, entry_controls, exit_controls, xss, held, vendor, pmu, nested, freezes_counters)


class Vmcs(NamedTuple):
    """The VMCS fields that concern the LBRs, as the last entry found them and the last exit left them.

    lbr_ctl: Guest IA32_LBR_CTL, 2816H. debugctl: Guest IA32_DEBUGCTL, 2802H. entry_controls, exit_controls: of the two
    LBR controls. xss_exiting: the XSS-exiting bitmap, 202CH. passthrough: the MSR bitmap, as the number n of entries
    whose FROM, TO and INFO registers 0..n-1 do not exit; CTL, DEPTH and LER always exit.
    """

    lbr_ctl: int = 0
    debugctl: int = 0
    entry_controls: int = 0
    exit_controls: int = 0
    xss_exiting: int = 0
    passthrough: int = 0


class Pmu(NamedTuple):
    """The guest's counters: registers as the guest reads them.

    gp, selects: IA32_PMCx and IA32_PERFEVTSELx. fixed: IA32_FIXED_CTRx. status: IA32_PERF_GLOBAL_STATUS without
    LBR_FRZ, which `guest.frozen` holds. capabilities: IA32_PERF_CAPABILITIES.
    """

    gp: tuple[int, ...] = ()
    selects: tuple[int, ...] = ()
    fixed: tuple[int, ...] = ()
    fixed_ctrl: int = 0
    global_ctrl: int = 0
    status: int = 0
    capabilities: int = 0


class Nested(NamedTuple):
    """L2's side: what vmcs12 said, and what L1 gets back. active: 1 while L2 runs."""

    active: int = 0
    entry_controls: int = 0
    exit_controls: int = 0
    passthrough: int = 0
    l1_ctl: int = 0
    l1_debugctl: int = 0
    debugctl12: int = 0


class Kept(NamedTuple):
    """The host's values of the switched registers, read with interrupts off just before the entry."""

    ctl: int = 0
    debugctl: int = 0
    xss: int = 0
    frozen: int = 0


class State(NamedTuple):
    """One vCPU and the registers under it; built by `step.boot`.

    lbr, guest: see the module. loaded, owned, running, event: 0 or 1, likewise. offer: what perf answers when asked
    (FAILS, BUSY, FREE). vmcs: the fields. pmu: counters. nested: L2. kept: the host's values during a run. cpuid:
    what userspace set; rules: what follows from it. ran: 1 after the first KVM_RUN. xcr0: the guest's. smram: the 8
    bytes at SMRAM FF10H (KVM's slot, P13).
    """

    lbr: lbr_state.State
    guest: lbr_state.State
    running: int
    owned: int
    loaded: int
    event: int
    offer: int
    vmcs: Vmcs
    pmu: Pmu
    nested: Nested
    kept: Kept
    cpuid: Cpuid
    rules: Rules
    ran: int
    xcr0: int
    smram: int


# Places in a register file, for what is on the hot path.
CTL_AT, DEBUGCTL_AT, XSS_AT = (lbr_state.State._fields.index(name) for name in ("ctl", "debugctl", "xss"))


def changed(file: lbr_state.State, at: int, value: int) -> lbr_state.State:
    """Return a register file with one register changed; sums of tuples are the fastest way."""
    return tuple.__new__(lbr_state.State, file[:at] + (value,) + file[at + 1 :])  # noqa: RUF005


def with_both(state: State, lbr: lbr_state.State, guest: lbr_state.State) -> State:
    """Return the state with both register files replaced."""
    return tuple.__new__(State, (lbr, guest) + state[2:])  # noqa: RUF005


def with_lbr(state: State, lbr: lbr_state.State) -> State:
    """Return the state with other registers on the processor."""
    return tuple.__new__(State, (lbr,) + state[1:])  # noqa: RUF005


def with_guest(state: State, guest: lbr_state.State) -> State:
    """Return the state with other registers of the guest's."""
    return tuple.__new__(State, (state[0], guest) + state[2:])  # noqa: RUF005


def with_pmu(state: State, pmu: Pmu) -> State:
    """Return the state with other counters."""
    return tuple.__new__(State, state[:8] + (pmu,) + state[9:])  # noqa: RUF005


GP_AT, SELECTS_AT, FIXED_AT, FIXED_CTRL_AT, GLOBAL_CTRL_AT = range(5)


def with_counters(state: State, at: int, value: int | tuple[int, ...]) -> State:
    """Return the state with one field of its counters changed, by its place in `Pmu`."""
    pmu = state[8]
    pmu = tuple.__new__(Pmu, pmu[:at] + (value,) + pmu[at + 1 :])  # noqa: RUF005
    return tuple.__new__(State, state[:8] + (pmu,) + state[9:])  # noqa: RUF005
