"""The hand-over of the registers between the host and a guest, step by step: what KVM does with interrupts off.

`host` composes it with `perf.step`; `mediated`, `mediated_lbr` and `archlbr_sharing` say which steps they take.
Between two steps only an NMI can come. The owner is NOBODY while the registers are in transit, so that an NMI reads
nothing. Authority: ours, docs/decisions/030.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archlbr.lbr.bank import GRANT, LATER, NOBODY, REFUSE, VM, B
from archlbr.vpmu.designs.sharing import REQUEST

if TYPE_CHECKING:
    from archlbr.vpmu.designs.sharing import Sharing, Vcpu


def answer(sharing: Sharing, owner: int, exclude_guest: int) -> int:
    """Return KVM's answer to perf's WANT: GRANT, LATER or REFUSE, by who owns the registers.

    With GRANT while a vCPU owns them, KVM saves its records first, in the same IPI.
    """
    if sharing.refuses_guest_events and not exclude_guest:
        return REFUSE
    if owner >= VM and (sharing.family == REQUEST or "claim-defer" in sharing.lost):
        return LATER
    return GRANT


def resident(owner: int, v: int) -> bool:
    """Say whether a pCPU's registers hold a vCPU's records, so that entry has nothing to load."""
    return owner == VM + v


def loaded(lbrs: B, vcpu: Vcpu, lost: frozenset[str]) -> B:
    """Return the registers with the guest's records and filter in them, recording still off (XRSTORS)."""
    if "load" in lost:
        return lbrs if "load-select" in lost else lbrs.filtered(vcpu.select)
    empty = (NOBODY,) * len(lbrs.stack)
    stack = empty if "load-wipes" in lost else vcpu.image or empty
    return lbrs.loaded(lbrs.select if "load-select" in lost else vcpu.select, stack)


def saved(lbrs: B, vcpu: Vcpu) -> tuple[B, Vcpu]:
    """Return the registers, and the vCPU with its records saved (XSAVES)."""
    lbrs, stack = lbrs.saved()
    image: tuple[Any, ...] = stack if any(stack) else ()
    return lbrs, vcpu._replace(image=image, select=lbrs.select)


def enable_in_guest(vcpu: Vcpu, held: int, lost: frozenset[str]) -> int:
    """Return the enable bit after VM entry: the guest's own of its level (L2 asks for nothing here)."""
    if "vmenter-enable" in lost:
        return held
    if vcpu.level == 2:
        return vcpu.enable if "vmenter-l2" in lost else 0
    return vcpu.enable
