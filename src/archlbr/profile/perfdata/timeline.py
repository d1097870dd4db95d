"""The order of a file's records: times that only grow.

`stream` asks it for the time of each record it writes. perf sorts by time and BOLT reads times in microseconds: a FORK
and an MMAP2 less than one apart compare as equal, and the child's samples are lost without a word (reference
profile-tools.md 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from archlbr.profile.stack import Words

# Side-band records keep this distance, in ns: a microsecond, the resolution of `perf script` times.
SIDEBAND_GAP = 1000


class Timeline:
    """The last times given out; a time that does not move on is nudged forward to the next that does.

    Times are ns, below 2^63. perf delivers records with time 0 unsorted, so the first is at least 1.
    """

    __slots__ = ("_sideband", "last", "sample_span")

    def __init__(self) -> None:
        self.last = 0
        # The first and the last sample's time, for the SAMPLE_TIME feature; zeros without samples.
        self.sample_span = (0, 0)
        self._sideband = 1 - SIDEBAND_GAP

    def follow(self, time: int) -> None:
        """Let everything come after `time`, a side-band record perhaps among what happened then."""
        if time > self.last:
            self.last = self._sideband = time

    def sideband(self, time: int) -> int:
        """Return the time of a side-band record that happened at `time`."""
        self.last = self._sideband = max(time, self.last + 1, self._sideband + SIDEBAND_GAP)
        return self.last

    def samples(self, times: Words) -> Words:
        """Return the times of a batch of samples, uint64[n]: each later than all before it."""
        if not len(times):
            return times
        rank = np.arange(len(times), dtype=np.int64)
        base = times.astype(np.int64) - rank
        base[0] = max(int(base[0]), self.last + 1)
        given = np.maximum.accumulate(base) + rank
        self.last = int(given[-1])
        self.sample_span = (self.sample_span[0] or int(given[0]), self.last)
        return given.astype(np.uint64)
