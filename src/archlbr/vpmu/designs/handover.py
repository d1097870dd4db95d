"""The hand-over of the registers between the host and a guest, step by step: what KVM does with interrupts off.

`contract` composes it with `perf.owned`; `mediated`, `mediated_lbr` and `archlbr_sharing` say which steps they take.
Between two steps only an NMI can come. The owner is NOBODY while the registers are in transit, so that an NMI reads
nothing. Authority: ours, docs/decisions/030.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.lbr.tagged import NOBODY, VM, Lbrs

if TYPE_CHECKING:
    from archlbr.vpmu.designs.sharing import Vcpu


def resident(owner: int, v: int) -> bool:
    """Say whether a pCPU's registers hold a vCPU's records, so that entry has nothing to load."""
    return owner == VM + v


def loaded(lbrs: Lbrs, vcpu: Vcpu, lost: frozenset[str]) -> Lbrs:
    """Return the registers with the guest's records and filter in them, recording still off (XRSTORS)."""
    empty = (NOBODY,) * len(lbrs.stack)
    stack = vcpu.image or empty
    if "load-wipes" in lost:
        stack = empty
    if "load" in lost:
        stack = lbrs.stack
    return Lbrs(lbrs.enable, lbrs.select if "load-select" in lost else vcpu.select, stack)


def saved(lbrs: Lbrs, vcpu: Vcpu) -> Vcpu:
    """Return the vCPU with its records saved (XSAVES)."""
    return vcpu._replace(image=lbrs.stack if any(lbrs.stack) else (), select=lbrs.select)


def enable_in_guest(vcpu: Vcpu, held: int, lost: frozenset[str]) -> int:
    """Return the enable bit after VM entry: the guest's own of its level (L2 asks for nothing here)."""
    if "vmenter-enable" in lost:
        return held
    if vcpu.level == 2:
        return vcpu.enable if "vmenter-l2" in lost else 0
    return vcpu.enable
