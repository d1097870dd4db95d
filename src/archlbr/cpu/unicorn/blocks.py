"""Which branch was taken, block by block, in compiled code.

The engine calls a hook as each translated block starts; `advance` looks at the block that ran before it. That block's
last instruction, decoded once, and the address where the guest went on decide whether a branch was taken: a conditional
branch followed by its own successor was not. `machine.hooks` calls it and hands the branch to the LBRs; `cpu.decode`
fills the table. What Unicorn does on a stop, under REP and when code changes is in engine.md 2 and docs/decisions/010.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import uint64

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.cpu.decode import count_to, decode_block, direct_target
from archlbr.cpu.predictor import predict_direction, predict_target
from archlbr.native import native, native_inline

if TYPE_CHECKING:
    from archlbr.cpu.address import Word
    from archlbr.cpu.words import Words

_NONE = int(BranchKind.NONE)
_COND = int(BranchKind.COND)
_OTHER = int(BranchKind.OTHER)
_REL_JMP, _REL_CALL = int(BranchKind.REL_JMP), int(BranchKind.REL_CALL)
_TABLE_END = at.TABLE + at.SLOTS * at.ENTRY


@native
def forget_blocks(words: Words) -> None:
    """Empty the block table: guest code may have changed anywhere."""
    for slot in range(at.TABLE, _TABLE_END, at.ENTRY):
        words[slot] = 0
    words[at.TABLE_USED] = 0


@native_inline
def _home(address: Word) -> Word:
    # Neighbouring blocks have neighbouring entries: a loop's blocks then share cache lines' pages.
    place = address >> uint64(2) ^ address >> uint64(22)
    return uint64(at.TABLE) + ((place & uint64(at.SLOTS - 1)) << uint64(2))


@native
def _find_slowly(words: Words, address: Word, size: Word) -> Word:
    slot = _home(address)
    while words[slot] != 0:
        # The engine may cut a block elsewhere another time: both have their entries.
        if words[slot] == address and words[slot + uint64(at.END)] == address + size:
            return slot
        slot += uint64(at.ENTRY)
        if slot == _TABLE_END:
            slot = uint64(at.TABLE)
    if words[at.TABLE_USED] > at.SLOTS // 2:
        forget_blocks(words)  # probes stay short, and a table that is never full ends every search
        slot = _home(address)
    words[at.TABLE_USED] += uint64(1)
    words[at.MISSES] += uint64(1)
    decode_block(words, slot, address, size)
    return slot


@native_inline
def find_block(words: Words, address: Word, size: Word) -> Word:
    """Return the offset of a block's entry in the table, decoding the block on first sight."""
    slot = _home(address)
    if words[slot] == address and words[slot + uint64(at.END)] == address + size:
        return slot
    return _find_slowly(words, address, size)


@native
def make_room(words: Words, blocks: Word) -> None:
    """Let the table take so many new blocks without being emptied; the running block keeps its entry."""
    if words[at.TABLE_USED] + blocks <= at.SLOTS // 2:
        return
    current = words[at.CURRENT]
    address, end = words[current + at.KEY], words[current + at.END]
    forget_blocks(words)
    if current != 0:
        words[at.CURRENT] = find_block(words, address, end - address)


@native_inline
def leave(words: Words, address: Word) -> Word:
    """Account for the running block, which goes on at `address`; return the kind of branch taken, NONE if none was.

    A taken branch's own address is left in words[FROM], the predictor's verdict in words[MISPREDICTED].
    """
    before = words[at.CURRENT]
    meta = words[before + at.META]
    end = words[before + at.END]
    last = words[before + at.LAST]
    words[at.RETIRED] += meta >> uint64(at.META_COUNT_SHIFT) & uint64(at.META_COUNT_MASK)
    kind = meta & uint64(0xFF)
    place = meta >> uint64(at.META_HASH_SHIFT)
    words[at.FROM] = last
    if kind == _COND:  # the common case, without a branch that follows the guest's: the host could not predict it
        taken = uint64(address != end)
        if words[at.TAKEN] >= words[at.LEARN_FROM]:
            words[at.MISPREDICTED] = predict_direction(words, place, taken)
        words[at.TAKEN] += taken
        return taken * uint64(_COND)
    if kind == _NONE:
        if meta & uint64(at.META_REP | at.META_UNDECODED) != 0:
            _end_oddly(words, meta, last, address)
        return uint64(_NONE)
    if kind == _OTHER:  # a far transfer: no near branch, and nothing that the predictor follows
        words[at.MISPREDICTED] = uint64(0)
        return kind
    if words[at.TAKEN] >= words[at.LEARN_FROM]:
        words[at.MISPREDICTED] = predict_target(words, kind, place, address, end)
    words[at.TAKEN] += uint64(1)
    return kind


@native_inline
def advance(words: Words, address: Word, size: Word) -> Word:
    """Do what `leave` does for the block before this one, and let this one run."""
    kind = leave(words, address) if words[at.CURRENT] != 0 else uint64(_NONE)
    words[at.CURRENT] = find_block(words, address, size)
    return kind


@native
def _end_oddly(words: Words, meta: Word, last: Word, address: Word) -> None:
    if meta & uint64(at.META_UNDECODED) != 0:
        words[at.UNDECODED] = last
    elif address == last:
        words[at.RETIRED] -= uint64(1)  # one more pass of the same REP instruction: not retired yet


@native
def advance_with_care(words: Words, address: Word, size: Word) -> Word:
    """Do what `advance` does where code may have changed under the table."""
    before = words[at.CURRENT]
    stored = words[at.UNUSUAL] & uint64(at.UNUSUAL_STORED)
    words[at.UNUSUAL] &= ~uint64(at.UNUSUAL_STORED)
    inside = before != 0 and words[before + at.KEY] <= address < words[before + at.END]
    if inside and (stored != 0 or not _goes_to(words, before, address)):
        # The block stored into its own bytes: the engine gave it up at the store and goes on from there.
        words[at.RETIRED] += count_to(words, words[before + at.KEY], address)
        _decode_anew(words, address, size)
        words[at.CURRENT] = find_block(words, address, size)
        return uint64(_NONE)
    kind = advance(words, address, size)
    # The entry may be older than the bytes; what runs now are the bytes.
    _decode_anew(words, address, size)
    return kind


# Whether a block's end can lead to an address inside it. The engine does not call the hook for every store that ends a
# block early, but no direct branch leads where its displacement does not.
@native
def _goes_to(words: Words, entry: Word, address: Word) -> bool:
    meta = words[entry + at.META]
    kind = meta & uint64(0xFF)
    if kind == _NONE:
        return meta & uint64(at.META_REP) != 0 and address == words[entry + at.LAST]
    if kind == _COND or kind == _REL_JMP or kind == _REL_CALL:
        return address == direct_target(words[entry + at.LAST], words[entry + at.END])
    return True


@native
def _decode_anew(words: Words, address: Word, size: Word) -> None:
    for index in range(words[at.VOLATILE_COUNT]):
        pair = at.VOLATILE + 2 * index
        if address < words[pair + 1] and address + size > words[pair]:
            decode_block(words, find_block(words, address, size), address, size)
            return


@native
def retire_current(words: Words, address: Word) -> None:
    """Account for the running block up to, not including, `address`, and let no block follow it as a branch."""
    current = words[at.CURRENT]
    if current != 0 and words[at.UNUSUAL] & uint64(at.UNUSUAL_REPEATED) == 0:
        if address == words[current + at.END]:
            words[at.RETIRED] += words[current + at.META] >> uint64(at.META_COUNT_SHIFT) & uint64(at.META_COUNT_MASK)
        else:
            words[at.RETIRED] += count_to(words, words[current + at.KEY], address)
    words[at.CURRENT] = uint64(0)
    words[at.UNUSUAL] &= uint64(at.UNUSUAL_VOLATILE)
