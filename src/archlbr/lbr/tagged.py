"""The facility with its addresses forgotten: a record is the tag of whose branch it is.

`perf`, `vpmu.designs` and `contract` reason about who owns the registers with it, so that "whose branch is this" is
decidable. It is a projection of `step`: tests drive both by one stream of operations and compare.
"""

from __future__ import annotations

from typing import NamedTuple

# Whose branch, whose filter: nobody's, the host's (its kernel or one of its tasks), a VM's (VM + its number).
NOBODY, HOST, VM = 0, 1, 2


class Lbrs(NamedTuple):
    """The LBR registers of one processor.

    enable: DEBUGCTL.LBR or LBR_CTL.LBREn. select: whose filter is programmed (LBR_SELECT, or LBR_CTL's filter bits).
    stack: a tag a record, newest first; NOBODY where FROM reads 0.
    """

    enable: int
    select: int
    stack: tuple[int, ...]


def reset(depth: int) -> Lbrs:
    """Return the registers after a cold reset."""
    return Lbrs(0, NOBODY, (NOBODY,) * depth)


def recorded(lbrs: Lbrs, tag: int) -> Lbrs:
    """Return the registers after a taken branch of `tag` that the filter lets in."""
    if not lbrs.enable:
        return lbrs
    return Lbrs(1, lbrs.select, (tag, *lbrs.stack[:-1]))


def wiped(lbrs: Lbrs) -> Lbrs:
    """Return the registers with every record 0: intel_pmu_lbr_reset(), or one write of IA32_LBR_DEPTH."""
    return Lbrs(lbrs.enable, lbrs.select, (NOBODY,) * len(lbrs.stack))
