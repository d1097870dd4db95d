"""The sample record's bytes, a whole batch at a time.

`stream` feeds it LBR registers as they were read; `reader` undoes it. Layout: PERF_RECORD_SAMPLE of
include/uapi/linux/perf_event.h for sample_type 0x907: header, ip, pid|tid, time, period, nr, [hw_idx], nr entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from archlbr.errors import InternalError
from archlbr.profile.perfdata.records import CPUMODE_KERNEL, CPUMODE_USER, MAX_SIZE, SAMPLE_TYPE
from archlbr.profile.stack import KERNEL_BIT, Words, entry_flags

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archlbr.profile.perfdata.attr import Attr

# Words before the entries: header, ip, pid|tid, time, period, nr.
HEAD_WORDS = 6
TIME_WORD = 3
# Linux stores -1 for architectural LBRs: there is no top of stack (intel_pmu_store_pebs_lbrs, lbr.c).
NO_HW_INDEX = (1 << 64) - 1


def live_entries(stacks: Words, counts: NDArray[np.integer], user_only: bool) -> NDArray[np.bool_]:
    """Return which entries of uint64[n, depth, 3] stacks belong in the profile, bool[n, depth].

    A stack ends at its count and at the first FROM of 0, as intel_pmu_store_lbr has it; padding would be taken for
    branches to 0. With user_only, entries that touch the kernel's half are left out and the newer and older ones kept,
    as intel_pmu_lbr_filter does.
    """
    depth = stacks.shape[1]
    live: NDArray[np.bool_] = np.arange(depth) < np.asarray(counts)[:, np.newaxis]
    live &= np.logical_and.accumulate(stacks[:, :, 0] != 0, axis=1)
    if user_only:
        live &= ((stacks[:, :, 0] | stacks[:, :, 1]) >> np.uint64(KERNEL_BIT)) == 0
    return live


def encode(
    attr: Attr,
    tasks: Words,
    times: Words,
    ips: Words,
    periods: Words,
    stacks: Words,
    counts: NDArray[np.integer],
    types: NDArray[np.integer] | None = None,
) -> Words:
    """Return the records of n samples end to end, as uint64 words.

    tasks: pid in the low half, tid in the high; stacks: uint64[n, depth, 3] of FROM, TO, INFO, newest first; counts:
    valid entries of each; types: PERF_BR_* of far transfers, [n, depth].
    """
    rows, depth = stacks.shape[:2]
    head = HEAD_WORDS + attr.hw_index
    if 8 * (head + 3 * depth) > MAX_SIZE:
        raise InternalError(f"a stack of {depth} entries does not fit in a record of {MAX_SIZE} bytes")
    live = live_entries(stacks, counts, attr.user_only)
    count = np.count_nonzero(live, axis=1).astype(np.uint64)
    words = np.empty((rows, head + 3 * depth), dtype="<u8")
    cpumode = np.where(ips >> np.uint64(KERNEL_BIT), np.uint64(CPUMODE_KERNEL), np.uint64(CPUMODE_USER))
    size = (np.uint64(3) * count + np.uint64(head)) * np.uint64(8)
    words[:, 0] = np.uint64(SAMPLE_TYPE) | cpumode << np.uint64(32) | size << np.uint64(48)
    words[:, 1] = ips
    words[:, 2] = tasks
    words[:, TIME_WORD] = times
    words[:, 4] = periods
    words[:, 5] = count
    if attr.hw_index:
        words[:, HEAD_WORDS] = NO_HW_INDEX
    words[:, head::3] = stacks[:, :, 0]
    words[:, head + 1 :: 3] = stacks[:, :, 1]
    words[:, head + 2 :: 3] = entry_flags(stacks[:, :, 2], types)
    if live.all():
        return words.reshape(-1)
    wanted = np.ones(words.shape, dtype=np.bool_)
    wanted[:, head:] = np.repeat(live, 3, axis=1)
    return words[wanted]
