"""Between the pure facility and state and the flat words.

`machine` makes its words here and reads a state back for snapshots and tests. Equal states give equal behaviour; the
place of the newest entry in the ring is not part of a state of the architectural facility.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from archlbr.lbr.compiled import words as w
from archlbr.lbr.compiled.recorder import refresh
from archlbr.lbr.state import (
    ARCH,
    FORMAT_EIP_FLAGS,
    FORMAT_EIP_FLAGS2,
    FORMAT_INFO,
    Entry,
    Facility,
    State,
    initial,
)

if TYPE_CHECKING:
    from archlbr.lbr.compiled.words import Words


def new_words(facility: Facility) -> Words:
    """Return the words of a facility after a cold reset."""
    return words_of(facility, initial(facility))


def words_of(facility: Facility, state: State) -> Words:
    """Return the words of a facility in this state: uint64[256]."""
    words = np.zeros(w.COUNT, np.uint64)
    leaf = facility.leaf
    form = facility.format
    if form == ARCH:
        flags = w.MISPREDICTED * leaf.mispredict | (w.IN_TX | w.ABORT) * facility.tsx
        types = w.TYPE_NIBBLES * leaf.branch_type
        times = int(leaf.timed)
    else:
        flags = w.MISPREDICTED * (form >= FORMAT_EIP_FLAGS)
        flags |= (w.IN_TX | w.ABORT) * facility.tsx * (form in (FORMAT_EIP_FLAGS2, FORMAT_INFO))
        types = 0
        times = int(form >= FORMAT_INFO)
    contents = {
        w.FORMAT: form,
        w.TYPES: types,
        w.FLAGS: flags,
        w.TIMES: times,
        w.TIMED: state.timed,
        w.SINCE: state.since,
        w.PENDING: state.pending,
        w.LANES: facility.lanes,
        w.CTL: state.ctl,
        w.DEPTH: state.depth,
        w.LER_FROM: state.ler.source,
        w.LER_TO: state.ler.target,
        w.LER_INFO: state.ler.info,
        w.DEBUGCTL: state.debugctl,
        w.FROZEN: state.frozen,
        w.XSS: state.xss,
        w.SELECT: state.select,
        w.SMM: state.smm,
        w.SMM_DEBUGCTL: state.smm_debugctl,
        w.PMU_VERSION: facility.pmu_version,
        w.TSX: facility.tsx,
        w.LINEAR_WIDTH: facility.linear_width,
        w.XSAVES: facility.xsaves,
        w.MAX_DEPTH: facility.max_depth,
        w.CTL_LEGAL: facility.ctl_legal,
        w.SELECT_LEGAL: facility.select_legal,
        w.DEBUGCTL_LEGAL: facility.debugctl_legal,
        w.DEPTH_MASK: leaf.eax & 0xFF,
        w.CPL_FILTER: int(leaf.cpl_filter),
        w.BRANCH_FILTER: int(leaf.branch_filter),
        w.DEEP_C_RESET: int(leaf.deep_c_reset),
    }
    for at, content in contents.items():
        words[at] = content
    slots = state.stack if form != ARCH else state.stack[::-1]
    for slot, entry in enumerate(slots):
        words[w.RING + w.STRIDE * slot : w.RING + w.STRIDE * (slot + 1)] = entry
    words[w.HEAD] = w.RING + w.STRIDE * (state.tos if form != ARCH else state.depth - 1)
    refresh(words)
    return words


def state_of(facility: Facility, words: Words) -> State:
    """Return the state that the words of this facility hold."""
    ints = [int(word) for word in words]
    depth = ints[w.DEPTH]
    slots = tuple(Entry(*ints[at : at + w.STRIDE]) for at in range(w.RING, w.RING + w.STRIDE * depth, w.STRIDE))
    head = (ints[w.HEAD] - w.RING) // w.STRIDE
    if facility.format == ARCH:
        slots, tos = slots[head::-1] + slots[:head:-1], 0
    else:
        tos = head
    return State(
        ctl=ints[w.CTL],
        depth=depth,
        stack=slots,
        ler=Entry(*ints[w.LER_FROM : w.LER_INFO + 1]),
        debugctl=ints[w.DEBUGCTL],
        frozen=ints[w.FROZEN],
        xss=ints[w.XSS],
        select=ints[w.SELECT],
        tos=tos,
        smm=ints[w.SMM],
        smm_debugctl=ints[w.SMM_DEBUGCTL],
        since=ints[w.SINCE],
        timed=ints[w.TIMED],
        pending=ints[w.PENDING],
    )
