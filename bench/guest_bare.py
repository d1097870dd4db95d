"""The board's hook without branches: it counts instructions, which are the clock, and delivers interrupts.

What `bench.guest` measures recording against. A machine that records nothing would still need this much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba import carray, uint64

from archlbr.cpu import words as at
from archlbr.cpu.address import load64
from archlbr.cpu.unicorn import page
from archlbr.machine import observing
from archlbr.native import callback

if TYPE_CHECKING:
    from archlbr.cpu.address import Word


@callback(observing.BLOCK_HOOK)
def counting(engine: Word, address: Word, size: Word, pointer: Any) -> None:
    """Count what the block before this one retired, and look after interrupts and the clock."""
    words = carray(pointer, (observing.OBSERVING_WORDS,))
    if words[at.UNUSUAL] != 0:
        words[at.UNUSUAL] = uint64(0)
        if words[observing.INJECT] != 0:
            observing._deliver_wanted(words, engine, address)
        return
    if load64(uint64(page.REMAPS)) != words[observing.REMAPPED]:
        observing._remapped(words)
    if words[at.CURRENT] != 0:
        meta = words[words[at.CURRENT] + at.META]
        words[at.RETIRED] += meta >> uint64(at.META_COUNT_SHIFT) & uint64(at.META_COUNT_MASK)
        if meta & uint64(at.META_REP) != 0 and address == words[words[at.CURRENT] + at.LAST]:
            words[at.RETIRED] -= uint64(1)
    words[at.CURRENT] = observing._find(words, address, uint64(size))
    if words[at.RETIRED] >= words[at.LIMIT]:
        observing._look_around(words, engine)
