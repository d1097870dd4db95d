"""What may happen, where, and in whose words: the actions of every design, by the phase of the pCPU they happen on.

`actors` asks which actions a state offers; `document` and `cli` ask for words and lanes. An action is (kind, pCPU,
argument).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from archlbr.host import state as at

if TYPE_CHECKING:
    from archlbr.contract.world import Scenario
    from archlbr.host import Action

GUEST_LANE, KVM, PERF, HARDWARE = "guest", "KVM", "perf", "hardware"


class Kind(NamedTuple):
    """One kind of action. phases: where it may happen. vcpu: 1 only with a vCPU thread current, 0 only with none, -1
    with any. always: it may happen in each scenario; else the scenario names it.
    """

    lane: str
    words: str
    phases: tuple[int, ...]
    vcpu: int = -1
    always: int = 0


_ROOT = (at.HOST_ON, at.ENTRY, at.EXIT, at.CHECKED, at.ENTRY_STOPPED, at.ENTRY_LOADED, at.EXIT_SAVED, at.EXIT_DONE)
_IRQS_ON = (at.HOST_ON, at.USER, at.CHECKED)

KINDS: dict[str, Kind] = {
    # KVM's run loop
    "enter": Kind(KVM, "vcpu_enter_guest: requests are served, interrupts go off", (at.HOST_ON,), 1, 1),
    "check": Kind(KVM, "vcpu_enter_guest: requests are served", (at.HOST_ON,), 1),
    "irqs_off": Kind(KVM, "interrupts go off", (at.CHECKED,), 1),
    "stop_host": Kind(KVM, "hand-over 1/2: the host's recording stops", (at.ENTRY,), 1),
    "load_guest": Kind(KVM, "hand-over 2/2: the guest's records are loaded", (at.ENTRY_STOPPED,), 1),
    "vmenter": Kind(KVM, "VM entry", (at.ENTRY, at.ENTRY_LOADED), 1, 1),
    "exit": Kind(HARDWARE, "VM exit", (at.GUEST,), 1, 1),
    "save_guest": Kind(KVM, "hand-over 1/2: the guest's records are saved", (at.EXIT,), 1),
    "start_host": Kind(KVM, "hand-over 2/2: the host records again", (at.EXIT_SAVED,), 1),
    "irqs_on": Kind(KVM, "interrupts go on", (at.EXIT, at.EXIT_DONE), 1, 1),
    "reenter": Kind(KVM, "fast path: VM entry again, interrupts stayed off", (at.EXIT, at.EXIT_DONE), 1),
    "to_user": Kind(KVM, "KVM_RUN returns to user space", (at.HOST_ON,), 1),
    "to_kernel": Kind(KVM, "KVM_RUN", (at.USER,), 1),
    # the scheduler
    "switch": Kind(PERF, "task switch to {thread}", (at.HOST_ON, at.USER), -1, 1),
    # the guest
    "branch": Kind(GUEST_LANE, "branches", (at.GUEST,), 1, 1),
    "read": Kind(GUEST_LANE, "RDMSR of the records", (at.GUEST,), 1),
    "lbr_on": Kind(GUEST_LANE, "programs its filter and sets the enable bit", (at.GUEST,), 1),
    "lbr_on_fails": Kind(GUEST_LANE, "sets the enable bit; perf cannot create the vLBR event", (at.GUEST,), 1),
    "lbr_off": Kind(GUEST_LANE, "clears the enable bit", (at.GUEST,), 1),
    "hole": Kind(GUEST_LANE, "WRMSR: an empty newest record before an older one", (at.GUEST,), 1),
    "xsaves": Kind(GUEST_LANE, "XSAVES of component 15", (at.GUEST,), 1),
    "xrstors": Kind(GUEST_LANE, "XRSTORS of component 15", (at.GUEST,), 1),
    "depth": Kind(GUEST_LANE, "WRMSR IA32_LBR_DEPTH", (at.GUEST,), 1),
    "nest": Kind(GUEST_LANE, "L1 runs L2", (at.GUEST,), 1),
    "unnest": Kind(GUEST_LANE, "L2 exits to L1", (at.GUEST,), 1),
    "smi": Kind(GUEST_LANE, "an SMI: LBREn goes to SMRAM and is cleared", (at.GUEST,), 1),
    "rsm": Kind(GUEST_LANE, "RSM", (at.GUEST,), 1),
    # host code, host events
    "host_branch": Kind(HARDWARE, "host code branches", (*_ROOT, at.USER, at.CLAIM), -1, 1),
    "install": Kind(PERF, "IPI: a host LBR event is opened", _IRQS_ON),
    "enable": Kind(PERF, "IPI or rotation: the host event is enabled", _IRQS_ON),
    "disable": Kind(PERF, "IPI or rotation: the host event is disabled", _IRQS_ON),
    "rotate": Kind(PERF, "hrtimer: perf_rotate_context, another flexible event's turn", _IRQS_ON),
    "remove": Kind(PERF, "IPI: the host event is closed", _IRQS_ON),
    "grant": Kind(PERF, "the host event starts", (at.CLAIM,), -1, 0),
    "overflow": Kind(HARDWARE, "the host counter overflows; hardware freezes the LBRs", (*_ROOT, at.GUEST)),
    "nmi": Kind(PERF, "NMI: the host event takes a sample", (*_ROOT, at.GUEST, at.USER, at.CLAIM)),
    "lose_slot": Kind(PERF, "ctx_resched: no counter is left, the vLBR event goes to ERROR", (at.HOST_ON,), 1),
    # user space
    "get_msrs": Kind(KVM, "KVM_GET_MSRS of vCPU {vcpu} from another thread", (at.HOST_ON,), 0),
    "migrate": Kind(KVM, "vCPU {vcpu} is saved and restored elsewhere", (at.HOST_ON, at.USER), -1),
    "reborn": Kind(
        KVM, "vCPU {vcpu} is closed, and a new VM's gets a perf context at the same address", (at.HOST_ON,), 0
    ),
}


def words(action: Action) -> str:
    """Return an action in the words of the kernel, with its pCPU."""
    kind, cpu, argument = action
    thread = "the host task" if argument == 0 else f"vCPU {letter(argument - 1)}"
    return f"p{cpu}: " + KINDS[kind].words.format(thread=thread, vcpu=letter(argument))


def letter(vcpu: int) -> str:
    """Return the name of a vCPU."""
    return chr(ord("A") + vcpu)


def menu(
    scenario: Scenario, steps: frozenset[str], cpu: int, thread: int, phase: int, busy: frozenset[int]
) -> list[Action]:
    """Return what may happen on one pCPU. steps: what the design adds. busy: the threads current elsewhere."""
    actions: list[Action] = []
    for name, kind in KINDS.items():
        if phase not in kind.phases or not (kind.always or name in scenario.may or name in steps):
            continue
        if kind.vcpu >= 0 and kind.vcpu != int(thread > 0):
            continue
        if name == "switch":
            for other in range(scenario.vcpus + 1):
                home = (other - 1) % scenario.cpus
                if other in (thread, *busy) or (other == 0 and not scenario.host_task):
                    continue
                if other == 0 or scenario.roams or home == cpu:
                    actions.append((name, cpu, other))
        elif name in ("get_msrs", "migrate", "reborn"):
            actions += [
                (name, cpu, v)
                for v in range(scenario.vcpus)
                if v + 1 != thread and (name == "get_msrs" or v + 1 not in busy)
            ]
        else:
            actions.append((name, cpu, 0))
    return actions
