"""What the hooks counted since the counters were last looked at, and when they must be looked at again.

`machine.observing` counts by ring as blocks retire; `machine.vcpu` turns the counts into the vPMU's `Count` actions and
asks here for marks: the hook stops at the block in which a counter that wants a PMI overflows. Cycles are the model's:
an instruction takes one. Design: docs/decisions/015 and 016.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from archlbr.cpu import words as at
from archlbr.machine import observing
from archlbr.vpmu.actions import Count
from archlbr.vpmu.counters import BRANCHES, CYCLES, INSTRUCTIONS, MISPREDICTED, OS, TAKEN, USR, left, running

if TYPE_CHECKING:
    from archlbr.cpu.words import Words
    from archlbr.vpmu.counters import Running
    from archlbr.vpmu.state import State

# What the vPMU counts, to the first of four words by ring.
_SOURCES: Final = {
    INSTRUCTIONS: observing.RETIRED_BY_RING,
    CYCLES: observing.RETIRED_BY_RING,
    TAKEN: observing.TAKEN_BY_RING,
    BRANCHES: observing.BRANCHES_BY_RING,
    MISPREDICTED: observing.MISSED_BY_RING,
}
_FIRST, _END = observing.RETIRED_BY_RING, observing.MISSED_BY_RING + 4
_COUNTS, _COUNTS_AT = struct.Struct(f"={_END - _FIRST}Q"), 8 * _FIRST
_RINGS: Final = ((OS, 0), (USR, 3))
# By name in this module: a guest's access to a counter waits for these lines.
_NEVER: Final = observing.NEVER
_MARK_AT: Final = observing.MARK_AT
_LIMIT: Final = at.LIMIT


class Counting:
    """The counts of one processor's hooks."""

    def __init__(self, words: Words) -> None:
        self._words = words.data  # faster word by word than the array
        self._raw = self._words.cast("B")
        self._places: tuple[int, ...] | None = None
        self._seen: tuple[int, ...] = _COUNTS.unpack_from(self._raw, _COUNTS_AT)

    def skip(self) -> None:
        """Forget what was counted until now: no counter counted it."""
        self._seen = _COUNTS.unpack_from(self._raw, _COUNTS_AT)

    def counted(self) -> list[Count]:
        """Return what was counted since the last look, an action for each of ring 0 and the others."""
        now: tuple[int, ...] = _COUNTS.unpack_from(self._raw, _COUNTS_AT)
        before, self._seen = self._seen, now
        if now == before:
            return []
        actions = []
        for ring in (0, 3):
            retired, branches = now[ring] - before[ring], now[ring + 8] - before[ring + 8]
            if retired or branches:
                taken, missed = now[ring + 4] - before[ring + 4], now[ring + 12] - before[ring + 12]
                actions.append(tuple.__new__(Count, (retired, branches, retired, ring, taken, missed)))
        return actions

    def arm(self, state: State) -> bool:
        """Let the hook stop where a counter that asks for a PMI may have overflowed; say whether any counts.

        With both rings the nearer mark of each alone is a safe one: the board looks, and arms again.
        """
        counters = running(state)
        words, seen = self._words, self._seen
        places, watched = _watched(counters)
        if places is not self._places:
            self._watch(places)
        marks = [_NEVER] * len(places)
        for counter, indices in watched:
            share = left(state, counter) // len(indices) or 1
            for index in indices:
                mark = seen[places[index]] + share
                if mark < marks[index]:
                    marks[index] = mark
        here = _MARK_AT
        for mark in marks:
            words[here] = mark
            here += 1
        words[_LIMIT] = 0
        return bool(counters)

    def _watch(self, places: tuple[int, ...]) -> None:
        words, self._places = self._words, places
        for index in range(observing.MARKS):
            words[observing.MARK_WORD + index] = _FIRST + places[index] if index < len(places) else observing.NOTHING
            words[observing.MARK_AT + index] = observing.NEVER


# The places of counts that counters which ask for a PMI count; each of these counters, with which of the places.
@lru_cache(maxsize=1024)
def _watched(counters: tuple[Running, ...]) -> tuple[tuple[int, ...], tuple[tuple[Running, tuple[int, ...]], ...]]:
    asking = {
        counter: [_SOURCES[counter.event] - _FIRST + ring for which, ring in _RINGS if counter.rings & which]
        for counter in counters
        if counter.asks
    }
    places = tuple(dict.fromkeys(place for counted in asking.values() for place in counted))
    return places, tuple(
        (counter, tuple(places.index(place) for place in counted)) for counter, counted in asking.items()
    )
