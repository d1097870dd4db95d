"""The compiled readers of a stream of blocks: what `machine.hooks` does as a block starts, here for blocks that ran.

QEMU's plugin or Stalker's transform writes which blocks ran (`cpu.qemu.stream`); these functions take them one by one,
as `machine.streams` calls them. Which branch was taken, what the predictor says, the LBRs, the counter and the sample
are the functions that the hooks use, over the same words; only the table of blocks is another, behind the hooks' own
words. Design: docs/decisions/042.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final

from numba import carray, types, uint64

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.cpu.address import Word, load64
from archlbr.cpu.decode import identity, kind_of, next_instruction, repeats, set_cursor
from archlbr.cpu.predictor import spread
from archlbr.cpu.qemu.stream import BLOCK_BYTES, BLOCKS, COUNTED, EVENTS, LENGTH, Ending
from archlbr.cpu.unicorn.blocks import leave
from archlbr.machine import hooks
from archlbr.machine.skimming import TABLE, count_only, learn_only
from archlbr.native import callback, native

if TYPE_CHECKING:
    from archlbr.cpu.words import Words

WORDS: Final = TABLE + BLOCKS * at.ENTRY
# Block 0 is none, and its entry holds: how many taken branches before an overflow the LBRs must begin to be written.
# A sample shows the last DEPTH records; where each taken branch is one, those before are overwritten unread.
WINDOW: Final = TABLE
ALWAYS: Final = 1 << 63
ENOUGH: Final = hooks.DEPTH_LIMIT + 8  # the oldest record's cycles count from the one before it

# words, stream, from, to -> how far it came: to an event, or to where a buffer must be written out.
READER: Final = types.uint64(types.CPointer(types.uint64), types.CPointer(types.uint32), types.uint64, types.uint64)

_NONE, _COND, _OTHER = int(BranchKind.NONE), int(BranchKind.COND), int(BranchKind.OTHER)
_REL_JMP, _RET = int(BranchKind.REL_JMP), int(BranchKind.RET)  # these two and those between are always taken
_PAGE, _LONGEST = 4096, 15  # bytes of a page, and of the longest instruction
_SAMPLES_FULL = hooks.SAMPLE_ROW * hooks.SAMPLE_ROWS
_TABLE, _WINDOW, _ALWAYS, _EVENTS, _TRACE_LIMIT = TABLE, WINDOW, ALWAYS, EVENTS, hooks.TRACE_LIMIT
_COUNTED, _COUNTED_LENGTH = COUNTED, LENGTH[COUNTED]
_UNSURE, _ODD, _PLAIN = int(Ending.UNSURE), int(Ending.ODD), int(Ending.PLAIN)
_CONDITIONAL, _ALWAYS_TAKEN = int(Ending.CONDITIONAL), int(Ending.ALWAYS)


@callback(types.uint64(types.uint64))
def _nothing_to_stop(_engine: Word) -> Word:
    return uint64(0)


def prepare(words: Words) -> None:
    """Make the words of a recorder those of a stream's reader: no engine is to be stopped when a buffer is full."""
    words[at.EMU_STOP] = _nothing_to_stop.address


@native
def agrees(meta: Word, ending: Word) -> bool:
    """Return whether what a block's entry says of its end is what the plugin counts it by (cpu.qemu.stream.Ending)."""
    kind = meta & uint64(0xFF)
    if ending <= _UNSURE or meta & uint64(at.META_UNDECODED) != 0:
        return True
    if ending == _CONDITIONAL:
        return bool(kind == _COND)
    if ending == _ALWAYS_TAKEN:
        return bool(_REL_JMP <= kind <= _RET)
    if ending == _PLAIN:
        return bool(kind == _NONE and meta & uint64(at.META_REP) == 0)
    return bool(kind == _NONE or kind == _OTHER)


@native
def define(words: Words, description: Word, first: Word, last: Word) -> Word:
    """Fill the table's entries of the blocks first to last out of the plugin's descriptions, which begin at an address.

    Only the last instruction is decoded here, from the bytes that came with the block; the plugin counted the others.
    Return the address of an instruction whose end the plugin sees otherwise, 0 when there is none.
    """
    other = uint64(0)
    for number in range(first, last + uint64(1)):
        block = description + uint64(number) * uint64(BLOCK_BYTES)
        final, sizes = load64(block + uint64(16)), load64(block + uint64(24))
        count, size = sizes & uint64(0xFFFFFFFF), sizes >> uint64(32) & uint64(0xFF)
        code = block + uint64(32)
        set_cursor(words, code, size, final)
        decoded = next_instruction(words)
        end = load64(block + uint64(8))
        meta = count << uint64(at.META_COUNT_SHIFT) | spread(final) << uint64(at.META_HASH_SHIFT)
        if decoded == 0:
            if count > uint64(1) and (final & uint64(0xFFF)) > uint64(_PAGE - _LONGEST):
                # QEMU gave this instruction up, since it lies across a page end: the block ends before it.
                meta = (count - uint64(1)) << uint64(at.META_COUNT_SHIFT)
                end = final
            else:
                meta |= uint64(at.META_UNDECODED)
        else:
            meta |= uint64(kind_of(identity(words), code))
            if repeats(code) != 0:
                meta |= uint64(at.META_REP)
        entry = uint64(_TABLE) + uint64(number) * uint64(at.ENTRY)
        words[entry + uint64(at.KEY)] = load64(block)
        words[entry + uint64(at.END)] = end
        words[entry + uint64(at.LAST)] = final
        words[entry + uint64(at.META)] = meta
        if not agrees(meta, sizes >> uint64(40) & uint64(0xFF)):
            other = final
    return other


@callback(READER)
def trace_stream(pointer: Any, stream: Any, position: Word, end: Word) -> Word:
    """Write down every taken branch of a stretch of a stream."""
    words = carray(pointer, (WORDS,))
    blocks = carray(stream, (1,))
    while position < end:
        number = uint64(blocks[position])
        if number >= uint64(_EVENTS):
            return position
        position += uint64(1)
        if number == uint64(0):
            continue
        entry = uint64(_TABLE) + number * uint64(at.ENTRY)
        address = words[entry]
        kind = leave(words, address) if words[at.CURRENT] != 0 else uint64(_NONE)
        words[at.CURRENT] = entry
        if kind != _NONE and hooks.write_down(words, address, kind) == _TRACE_LIMIT:
            words[at.REASON] = uint64(at.REASON_FLUSH)
            return position
    return position


@native
def take_in(words: Words, blocks: Any, position: Word) -> bool:
    """Take in what the plugin counted, up to the block that follows; False where a sample would have needed it."""
    taken = words[at.TAKEN] + uint64(blocks[position + uint64(1)])
    if taken > words[at.LEARN_FROM] and taken > words[at.TAKEN]:
        return False
    words[at.TAKEN] = taken
    words[at.RETIRED] += uint64(blocks[position + uint64(2)]) | uint64(blocks[position + uint64(3)]) << uint64(32)
    words[at.CURRENT] = uint64(0)
    return True


@callback(READER)
def sample_stream(pointer: Any, stream: Any, position: Word, end: Word) -> Word:
    """Record every taken branch of a stretch of a stream in the LBRs, and take samples."""
    words = carray(pointer, (WORDS,))
    blocks = carray(stream, (1,))
    counting = words[_WINDOW] != uint64(_ALWAYS)
    while position < end:
        if counting and words[at.CURRENT] != 0:
            if words[at.TAKEN] < words[at.LEARN_FROM]:
                position = count_only(words, blocks, position, end)
            recorded = words[hooks.NEXT_TAKEN] - words[_WINDOW]
            if words[at.TAKEN] + uint64(1) < recorded and words[hooks.NEXT_TAKEN] > words[_WINDOW]:
                position = learn_only(words, blocks, position, end, recorded - uint64(1))
            if position == end:
                return position
        number = uint64(blocks[position])
        if number >= uint64(_EVENTS):
            if number != uint64(_COUNTED) or not take_in(words, blocks, position):
                return position
            position += uint64(_COUNTED_LENGTH)
            continue
        position += uint64(1)
        if number == uint64(0):
            continue
        entry = uint64(_TABLE) + number * uint64(at.ENTRY)
        address = words[entry]
        kind = leave(words, address) if words[at.CURRENT] != 0 else uint64(_NONE)
        words[at.CURRENT] = entry
        if words[at.TAKEN] + words[_WINDOW] >= words[hooks.NEXT_TAKEN] and kind != _NONE:
            hooks.record_branch(words, address, kind)
            hooks.count_taken(words, address)
        hooks.count_retired(words, address)
        if words[hooks.SAMPLES_USED] == _SAMPLES_FULL:
            words[at.REASON] = uint64(at.REASON_FLUSH)
            return position
    return position


_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)


def reader(address: int) -> Any:  # a ctypes function, which lets other Python threads run meanwhile
    """Return one of the readers as something to call: f(words' address, stream's address, from, to)."""
    return _FUNCTION(address)
