"""What the hooks counted since the counters were last looked at, and when they must be looked at again.

`machine.observing` counts by ring as blocks retire; `machine.vcpu` turns the counts into the vPMU's `Count` actions and
asks here for marks: the hook stops at the block in which a counter that wants a PMI overflows. Cycles are the model's:
an instruction takes one. Design: docs/decisions/015 and 016.
"""

from __future__ import annotations

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
_RINGS: Final = ((OS, 0), (USR, 3))


class Counting:
    """The counts of one processor's hooks."""

    def __init__(self, words: Words) -> None:
        self._words = words.data  # faster word by word than the array
        self._armed = observing.MARKS
        self._seen: list[int] = words[_FIRST:_END].tolist()

    def skip(self) -> None:
        """Forget what was counted until now: no counter counted it."""
        self._seen = self._words[_FIRST:_END].tolist()

    def counted(self) -> list[Count]:
        """Return what was counted since the last look, an action for each of ring 0 and the others."""
        now: list[int] = self._words[_FIRST:_END].tolist()
        before, self._seen = self._seen, now
        if now == before:
            return []
        actions = []
        for _, ring in _RINGS:
            retired = now[ring] - before[ring]
            branches = now[ring + 8] - before[ring + 8]
            if retired or branches:
                taken, missed = now[ring + 4] - before[ring + 4], now[ring + 12] - before[ring + 12]
                actions.append(Count(retired, branches, retired, ring, taken, missed))
        return actions

    def arm(self, state: State) -> bool:
        """Let the hook stop where a counter that asks for a PMI may have overflowed; say whether any counts.

        With both rings the nearer mark of each alone is a safe one: the board looks, and arms again.
        """
        counters = running(state)
        words = self._words
        marks: dict[int, int] = {}
        for counter, places in _watched(counters):
            share = left(state, counter) // len(places) or 1
            for place in places:
                mark = self._seen[place] + share
                if mark < marks.get(place, observing.NEVER):
                    marks[place] = mark
        index = 0
        for place, mark in marks.items():
            words[observing.MARK_WORD + index] = _FIRST + place
            words[observing.MARK_AT + index] = mark
            index += 1
        for unused in range(index, self._armed):
            words[observing.MARK_WORD + unused] = observing.NOTHING
            words[observing.MARK_AT + unused] = observing.NEVER
        words[at.LIMIT] = 0
        self._armed = index
        return bool(counters)


@lru_cache(maxsize=1024)
def _watched(counters: tuple[Running, ...]) -> tuple[tuple[Running, tuple[int, ...]], ...]:
    # The counters that ask for a PMI, each with the places of its counts.
    return tuple(
        (
            counter,
            tuple(_SOURCES[counter.event] - _FIRST + ring for which, ring in _RINGS if counter.rings & which),
        )
        for counter in counters
        if counter.asks
    )
