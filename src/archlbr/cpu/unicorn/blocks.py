"""Which branch was taken, block by block, in compiled code.

The engine calls a hook as each translated block starts; `advance` looks at the block that ran before it. That block's
last instruction, decoded once, and the address where the guest went on decide whether a branch was taken: a conditional
branch followed by its own successor was not. `machine.recorder` calls it and hands the branch to the LBRs; `cpu.decode`
fills the table. What Unicorn does on a stop, under REP and when code changes is in engine.md 2 and docs/decisions/010.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import uint64

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.cpu.address import Word, native
from archlbr.cpu.decode import count_to, decode_block
from archlbr.cpu.predictor import predict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_NONE = int(BranchKind.NONE)
_COND = int(BranchKind.COND)
_OTHER = int(BranchKind.OTHER)
_MIX = 0x9E3779B97F4A7C15
_SHIFT = 64 - at.SLOTS_LOG2
_TABLE_END = at.TABLE + at.SLOTS * at.ENTRY


@native
def forget_blocks(words: npt.NDArray[np.uint64]) -> None:
    """Empty the block table: guest code may have changed anywhere."""
    for slot in range(at.TABLE, _TABLE_END, at.ENTRY):
        words[slot] = 0
    words[at.TABLE_USED] = 0


@native
def _volatile(words: npt.NDArray[np.uint64], address: Word, end: Word) -> bool:
    for index in range(words[at.VOLATILE_COUNT]):
        if address < words[at.VOLATILE + 2 * index + 1] and end > words[at.VOLATILE + 2 * index]:
            return True
    return False


@native
def _miss(words: npt.NDArray[np.uint64], slot: int, address: Word, size: Word) -> Word:
    if words[slot + at.KEY] == 0:
        words[at.TABLE_USED] += uint64(1)
    words[at.MISSES] += uint64(1)
    decode_block(words, slot, address, size)
    return slot


@native
def find_block(words: npt.NDArray[np.uint64], address: Word, size: Word) -> Word:
    """Return the offset of the table entry of a block, decoding it on first sight or when it may have changed."""
    slot = uint64(at.TABLE) + (((address * uint64(_MIX)) >> uint64(_SHIFT)) << uint64(2))
    while True:
        key = words[slot]
        if key == address:
            if words[slot + at.END] == address + size and words[at.VOLATILE_COUNT] == 0:
                return slot
            if words[slot + at.END] != address + size or _volatile(words, address, address + size):
                return _miss(words, slot, address, size)
            return slot
        if key == 0:
            if words[at.TABLE_USED] > at.SLOTS // 2:
                forget_blocks(words)  # probes stay short, and a table that is never full ends every search
                slot = uint64(at.TABLE) + (((address * uint64(_MIX)) >> uint64(_SHIFT)) << uint64(2))
            return _miss(words, slot, address, size)
        slot += uint64(at.ENTRY)
        if slot == _TABLE_END:
            slot = uint64(at.TABLE)


@native
def advance(words: npt.NDArray[np.uint64], address: Word, size: Word) -> Word:
    """Account for the block before this one; return the kind of branch that led here, NONE if none was taken.

    A taken branch's own address is left in words[FROM], the predictor's verdict in words[MISPREDICTED].
    """
    before = words[at.CURRENT]
    if before == 0:
        words[at.CURRENT] = find_block(words, address, size)
        return uint64(_NONE)
    meta = words[before + at.META]
    end = words[before + at.END]
    last = words[before + at.LAST]
    if words[at.STORED] != 0:
        words[at.STORED] = uint64(0)
        start = words[before + at.KEY]
        if start <= address < end:
            # The block stored into its own bytes: the engine gave it up at the store and goes on from there.
            words[at.RETIRED] += count_to(words, start, address)
            words[at.CURRENT] = find_block(words, address, size)
            return uint64(_NONE)
    kind = meta & uint64(0xFF)
    words[at.RETIRED] += meta >> uint64(at.META_COUNT_SHIFT) & uint64(at.META_COUNT_MASK)
    words[at.CURRENT] = find_block(words, address, size)
    if kind == _NONE or kind == _OTHER:
        if kind == _OTHER:
            words[at.FROM] = last
            words[at.MISPREDICTED] = uint64(0)
            return kind
        if meta & uint64(at.META_REP) != 0 and address == last:
            words[at.RETIRED] -= uint64(1)  # one more pass of the same instruction: not retired yet
        elif meta & uint64(at.META_UNDECODED) != 0:
            words[at.UNDECODED] = last
        return uint64(_NONE)
    if kind == _COND and address == end:
        predict(words, kind, last, address, end, uint64(0))
        return uint64(_NONE)
    words[at.TAKEN] += uint64(1)
    words[at.FROM] = last
    words[at.MISPREDICTED] = predict(words, kind, last, address, end, uint64(1))
    return kind


@native
def retire_current(words: npt.NDArray[np.uint64], address: Word) -> None:
    """Account for the running block up to, not including, `address`, and let no block follow it as a branch."""
    current = words[at.CURRENT]
    if current != 0 and words[at.REPEATED] == 0:
        if address == words[current + at.END]:
            words[at.RETIRED] += words[current + at.META] >> uint64(at.META_COUNT_SHIFT) & uint64(at.META_COUNT_MASK)
        else:
            words[at.RETIRED] += count_to(words, words[current + at.KEY], address)
    words[at.CURRENT] = uint64(0)
    words[at.STORED] = uint64(0)
    words[at.REPEATED] = uint64(0)
