"""How KVM and perf share the LBRs under a design: the choices as data, and what KVM keeps of a vCPU for it.

`vlbr`, `series_v2_sharing`, `request`, `mediated`, `mediated_lbr` and `archlbr_sharing` fill it in; `host` composes
it with perf's side. A design of the family `handover` is a set of steps, and a step left out is a seeded bug, or what
makes a design naive.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from archlbr.lbr.bank import NOBODY

# vlbr: an event of perf's stands for the guest, and perf schedules it. request: perf asks, KVM serves. handover: the
# registers change hands at named points with interrupts off.
VLBR, REQUEST, HANDOVER = "vlbr", "request", "handover"


class Vcpu(NamedTuple):
    """What KVM keeps of one vCPU's LBRs.

    enable: the guest's own DEBUGCTL.LBR or LBREn. cleanup: need_cleanup. level: 1,
    or 2 while L2 runs. smm: 0, or 1 + the LBREn that SMRAM holds. image, select: the guest's saved records and filter,
    where KVM and not perf keeps them. want: perf's request, where it is stored with the vCPU. starved: it entered the
    guest wanting the LBRs and not having them.
    """

    enable: int = 0
    cleanup: int = 0
    level: int = 1
    smm: int = 0
    image: tuple[Any, ...] = ()
    select: int = NOBODY
    want: int = 0
    starved: int = 0


class Sharing(NamedTuple):
    """A design's choices.

    exposes: the guest sees LBRs. snapshot_at_load: host_debugctl is read in vcpu_load, with interrupts on, rather than
    in vcpu_enter_guest with interrupts off. restores_host: after an exit KVM writes the host's enable bit back.
    nmi_first: an NMI that caused an exit is handled before that write. masks: the guest's enable bit is loaded only if
    the guest owns the LBRs. shortcut: a restore is skipped where nobody else was saved since. own_filter: perf counts
    call-stack users by each event's own filter. architectural: LBR_CTL, with XSAVES and SMRAM. raw_depth: a DEPTH write
    reaches the hardware, whoever owns it. l2_open: L2 runs with whatever enable bit the processor holds. rsm_sets: RSM
    sets LBREn whatever SMRAM holds. refuses_guest_events: perf refuses an event that would count in the guest. lost:
    the steps of a hand-over that are not taken, or are taken wrongly.
    """

    name: str
    family: str
    exposes: int = 1
    snapshot_at_load: int = 0
    restores_host: int = 1
    nmi_first: int = 0
    masks: int = 0
    shortcut: int = 1
    own_filter: int = 0
    architectural: int = 0
    raw_depth: int = 0
    l2_open: int = 0
    rsm_sets: int = 0
    refuses_guest_events: int = 0
    lost: frozenset[str] = frozenset()
