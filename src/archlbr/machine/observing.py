"""The compiled hooks of a whole machine: branches of every ring, faults, interrupts, and time.

`machine.board` plants them, and those of `machine.faulting` beside them. As in `machine.hooks`, a block tells how the
one before it ended; here the ring before and after is part of the branch, exceptions and interrupts are branches of
kind OTHER, and a block is known by its address and by how often the guest's translations may have changed (CR writes,
INVLPG), so that two address spaces never share an entry. Code that was translated again was written to: its entry is
dropped. Design: docs/decisions/015.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from numba import carray, types, uint64

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.cpu.address import Word, call1, call5, load64, store64
from archlbr.cpu.decode import decode_bytes
from archlbr.cpu.unicorn import longmode, page
from archlbr.cpu.unicorn.blocks import forget_blocks, leave
from archlbr.lbr import compiled as lbr
from archlbr.native import callback, native, native_inline

if TYPE_CHECKING:
    from archlbr.cpu.words import Words

BLOCK_HOOK = types.void(types.uint64, types.uint64, types.uint32, types.CPointer(types.uint64))
EDGE_HOOK = types.void(types.uint64, types.uint64, types.uint64, types.CPointer(types.uint64))

ENV = at.WORDS  # address of the engine's CPUX86State
CPU = at.WORDS + 1  # and of its CPUState
VMEM_READ = at.WORDS + 2  # uc_vmem_read
SCRATCH = at.WORDS + 3  # address of a page that code is copied to
ENGINE = at.WORDS + 4
DELIVER = at.WORDS + 5  # x86_cpu_do_interrupt
FIRST_REMAP = at.WORDS + 6  # the count of remaps that key 0 stands for
RING = at.WORDS + 7  # of the running block
WANTED = at.WORDS + 8  # 1: a maskable interrupt waits; 2: an NMI
INJECT = at.WORDS + 9  # vector + 1 that the next block's hook delivers
REMAPPED = at.WORDS + 10  # the count of remaps at the last block
HANDLER = (
    at.WORDS + 11
)  # where the interrupt that was delivered goes on: the engine may put RIP back on the block it left
RETIRED_BY_RING = at.WORDS + 12  # four words each, by the ring of the block, 0 or 3: instructions
TAKEN_BY_RING = at.WORDS + 16  # near branches taken
BRANCHES_BY_RING = at.WORDS + 20  # branches, taken or not
MISSED_BY_RING = at.WORDS + 24  # branches, taken or not, that the predictor missed
NOTHING = at.WORDS + 28  # a word that stays 0
TRACE_AT = at.WORDS + 29  # address of the rows that branches are written down in; 0: none are
TRACE_LOW = at.WORDS + 30  # of branches from this address on
TRACE_SPAN = at.WORDS + 31  # and this many bytes
MARKS = 8  # four sources, two rings
MARK_WORD = at.WORDS + 32  # counts to watch, by their words
MARK_AT = MARK_WORD + MARKS  # and what they must reach for the board to look
TRACE_USED = at.WORDS + 48  # bytes of rows in use
TRACE_LOST = at.WORDS + 49  # branches for which there was no room
LBR_AT = at.WORDS + 56
LBR_END = LBR_AT + lbr.COUNT
DELIVERING = LBR_END  # while an event is being delivered, and after a fault on the way: 1 for INT n, 2 for all others
MODE = LBR_END + 1  # 0: 64-bit code runs; 1: 32-bit code; 2: 16-bit code
DECODERS = LBR_END + 2  # the decoder's handles by mode
PASSES = LBR_END + 5  # of REP instructions, and events, in which nothing retired: the board counts them as time
OBSERVING_WORDS = LBR_END + 6

TRACE_ROW: Final = 24  # bytes: FROM, TO, kind
TRACE_ROWS: Final = 1 << 16
# Room for what no block follows, exceptions and interrupts, until the board looks again.
TRACE_SPARE: Final = 1 << 14

NEVER: Final = 1 << 62
PATIENT_PASSES: Final = 1 << 16  # so many, and the hook stops: a guest in which nothing retires does not stop the clock

REASON_READY: Final = 16  # an interrupt that was wanted can be taken now
REASON_TAKEN: Final = 17  # it was delivered; RIP is the handler

_NONE, _OTHER = int(BranchKind.NONE), int(BranchKind.OTHER)
_KERNEL: Final = 1 << 63
_KEYS: Final = 1 << 16
KEY_SHIFT: Final = 47
_EVENT: Final = 8  # lbr.record's flag for what updates LER
_MIX: Final = 0x9E3779B97F4A7C15
_HASH_SHIFT: Final = 64 - at.SLOTS_LOG2
_TABLE_END: Final = at.TABLE + at.SLOTS * at.ENTRY
_READ: Final = 1  # UC_PROT_READ


def home(key: int) -> int:
    """Return the slot at which the search for a block's key begins."""
    return (key * _MIX & (1 << 64) - 1) >> _HASH_SHIFT


@native_inline
def _key(words: Words, address: Word, remapped: Word) -> Word:
    # Kernel addresses mean the same in every address space; user addresses only until translations change.
    if address >> uint64(63) != 0:
        return address
    return address ^ (remapped - words[FIRST_REMAP]) << uint64(KEY_SHIFT)


@native
def _remapped(words: Words) -> None:
    now = load64(uint64(page.REMAPS))
    words[REMAPPED] = now
    if now - words[FIRST_REMAP] >= _KEYS:
        words[FIRST_REMAP] = now
        forget_blocks(words)


# The same bytes mean something else in code of another size: as if translations had changed.
@native
def _change_mode(words: Words) -> None:
    words[MODE] = longmode.code_size(words[ENV])
    words[at.DISASM_HANDLE] = words[DECODERS + words[MODE]]
    store64(uint64(page.REMAPS), load64(uint64(page.REMAPS)) + uint64(1))


@native
def fetch(words: Words, address: Word, size: Word) -> Word:
    """Return where code is copied to, by its linear address, through the guest's own translation."""
    # No block is cut short: the engine ends one at the first instruction that ends 4096 - 32 bytes or more from its
    # start (target/i386/translate.c), so that the longest has 4063 + 15.
    if size > uint64(4096):
        size = uint64(4096)
    call5(words[VMEM_READ], words[ENGINE], address, uint64(_READ), words[SCRATCH], size)
    return words[SCRATCH]


@native
def _find_slowly(words: Words, key: Word, address: Word, size: Word) -> Word:
    slot = uint64(at.TABLE) + (((key * uint64(_MIX)) >> uint64(_HASH_SHIFT)) << uint64(2))
    while words[slot] != 0:
        if words[slot] == key:
            if words[slot + at.END] != address + size:
                decode_bytes(words, slot, key, address, size, fetch(words, address, size))
            return slot
        slot += uint64(at.ENTRY)
        if slot == _TABLE_END:
            slot = uint64(at.TABLE)
    if words[at.TABLE_USED] > at.SLOTS // 2:
        forget_blocks(words)
        slot = uint64(at.TABLE) + (((key * uint64(_MIX)) >> uint64(_HASH_SHIFT)) << uint64(2))
    words[at.TABLE_USED] += uint64(1)
    words[at.MISSES] += uint64(1)
    decode_bytes(words, slot, key, address, size, fetch(words, address, size))
    return slot


@native_inline
def _find(words: Words, address: Word, size: Word) -> Word:
    key = _key(words, address, words[REMAPPED])
    slot = uint64(at.TABLE) + (((key * uint64(_MIX)) >> uint64(_HASH_SHIFT)) << uint64(2))
    if words[slot] == key and words[slot + at.END] == address + size:
        return slot
    return _find_slowly(words, key, address, size)


@native_inline
def ring_of(env: Word) -> Word:
    """Return 0, or 3 for the others: counters and LBRs tell no more rings (SDM vol. 3B, IA32_PERFEVTSELx)."""
    return uint64(3) if load64(env + uint64(longmode.HFLAGS)) & uint64(3) != 0 else uint64(0)


@native_inline
def _stop(words: Words, engine: Word, reason: Word) -> None:
    if words[at.REASON] == at.REASON_NONE:
        words[at.REASON] = reason
    words[at.UNUSUAL] |= uint64(at.UNUSUAL_REPEATED)
    call1(words[at.EMU_STOP], engine)


@native_inline
def _write_down(words: Words, source: Word, target: Word, kind: Word) -> None:
    # A trace from outside: what the guest sees of its own LBRs has no part in it.
    if words[TRACE_AT] == 0 or source - words[TRACE_LOW] >= words[TRACE_SPAN]:
        return
    used = words[TRACE_USED]
    if used == uint64(TRACE_ROW * (TRACE_ROWS + TRACE_SPARE)):
        words[TRACE_LOST] += uint64(1)
        return
    row = words[TRACE_AT] + used
    store64(row, source)
    store64(row + uint64(8), target)
    store64(row + uint64(16), kind)
    words[TRACE_USED] = used + uint64(TRACE_ROW)
    if words[TRACE_USED] >= uint64(TRACE_ROW * TRACE_ROWS):
        words[at.LIMIT] = uint64(0)
        words[at.DEADLINE] = uint64(0)


@native
def event(words: Words, source: Word, before: Word) -> None:
    """Record that an exception or interrupt was delivered: a branch of kind OTHER from `source` to where RIP is now."""
    env = words[ENV]
    after = ring_of(env)
    kind: Word = uint64(_OTHER)
    target: Word = load64(env + uint64(longmode.RIP))
    lbr.record(
        words[LBR_AT:LBR_END],
        source,
        target,
        kind,
        before,
        after,
        words[at.RETIRED],
        uint64(_EVENT),
    )
    _write_down(words, source, target, kind)
    words[DELIVERING] = uint64(0)
    words[RING] = after
    words[at.CURRENT] = uint64(0)


@native
def _deliver_wanted(words: Words, engine: Word, address: Word) -> None:
    vector = words[INJECT] - uint64(1)
    words[INJECT] = uint64(0)
    env = words[ENV]
    before = ring_of(env)
    words[DELIVERING] = uint64(2)
    longmode.mend_task(env)
    longmode.interrupt(env, vector)
    event(words, address, before)
    words[HANDLER] = load64(env + uint64(longmode.RIP))
    words[at.REASON] = uint64(REASON_TAKEN)
    words[at.UNUSUAL] = uint64(0)
    call1(words[at.EMU_STOP], engine)


@native
def _look_around(words: Words, engine: Word) -> None:
    limit = min(words[at.DEADLINE], words[at.RETIRED] + uint64(at.PATIENCE))
    for index in range(MARKS):
        count, mark = words[words[MARK_WORD + index]], words[MARK_AT + index]
        if count >= mark:
            words[MARK_AT + index] = uint64(NEVER)
            words[at.LIMIT] = uint64(0)
            _stop(words, engine, uint64(at.REASON_SLICE))
            return
        # No count grows faster than instructions retire: before that many more, it cannot have reached its mark.
        limit = min(limit, words[at.RETIRED] + (mark - count))
    words[at.LIMIT] = limit
    if words[WANTED] != 0:
        words[at.LIMIT] = uint64(0)  # look again at each block until it can be taken
        env = words[ENV]
        if words[WANTED] == 2:
            if not longmode.nmi_blocked(env):
                _stop(words, engine, uint64(REASON_READY))
                return
        elif longmode.interruptible(env):
            _stop(words, engine, uint64(REASON_READY))
            return
    if words[at.RETIRED] >= words[at.DEADLINE] or words[PASSES] >= PATIENT_PASSES:
        _stop(words, engine, uint64(at.REASON_SLICE))


@native
def passed(words: Words) -> None:
    """Count a pass or an event in which nothing retired."""
    words[PASSES] += uint64(1)
    if words[PASSES] >= PATIENT_PASSES:
        words[at.LIMIT] = uint64(0)


@native_inline
def _follow(words: Words, address: Word, ring: Word) -> None:
    # The running block has ended and the guest goes on at `address` in `ring`.
    before = words[RING]
    retired, taken = words[at.RETIRED], words[at.TAKEN]
    ends = words[words[at.CURRENT] + at.META] & uint64(0xFF)
    kind = leave(words, address)
    if words[at.RETIRED] == retired:
        passed(words)
    words[RETIRED_BY_RING + before] += words[at.RETIRED] - retired
    words[TAKEN_BY_RING + before] += words[at.TAKEN] - taken
    words[BRANCHES_BY_RING + before] += uint64(ends != _NONE)
    words[MISSED_BY_RING + before] += uint64(ends != _NONE) & words[at.MISPREDICTED]  # else it is an older branch's
    if kind != _NONE:
        lbr.record(
            words[LBR_AT:LBR_END],
            words[at.FROM],
            address,
            kind,
            before,
            ring,
            words[at.RETIRED],
            words[at.MISPREDICTED],
        )
        _write_down(words, words[at.FROM], address, kind)


@native
def land(words: Words, address: Word) -> None:
    """Let the running block lead where nothing can be fetched: no block starts there, but the fault comes."""
    _follow(words, address, ring_of(words[ENV]))


@callback(BLOCK_HOOK)
def observing(engine: Word, address: Word, size: Word, pointer: Any) -> None:
    """Record how the block before this one ended, count, and look after interrupts and the clock."""
    words = carray(pointer, (OBSERVING_WORDS,))
    if words[at.UNUSUAL] != 0:
        words[at.UNUSUAL] = uint64(0)
        if words[INJECT] != 0:
            _deliver_wanted(words, engine, address)
        return
    ring = ring_of(words[ENV])
    if words[at.CURRENT] != 0:
        _follow(words, address, ring)
    if longmode.code_size(words[ENV]) != words[MODE]:
        _change_mode(words)
    if load64(uint64(page.REMAPS)) != words[REMAPPED]:
        _remapped(words)  # may empty the table: only now that the block before this one is accounted for
    words[RING] = ring
    words[at.CURRENT] = _find(words, address, uint64(size))
    if words[at.RETIRED] >= words[at.LIMIT]:
        _look_around(words, engine)


@callback(EDGE_HOOK)
def translated(_engine: Word, block: Word, _before: Word, pointer: Any) -> None:
    """Forget what was decoded at an address that the engine translates again: the bytes may be others."""
    words = carray(pointer, (OBSERVING_WORDS,))
    key = _key(words, load64(block), load64(uint64(page.REMAPS)))
    slot = uint64(at.TABLE) + (((key * uint64(_MIX)) >> uint64(_HASH_SHIFT)) << uint64(2))
    while words[slot] != 0:
        if words[slot] == key:
            if slot != words[at.CURRENT]:
                words[slot + at.END] = uint64(0)
            return
        slot += uint64(at.ENTRY)
        if slot == _TABLE_END:
            slot = uint64(at.TABLE)
