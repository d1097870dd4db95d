"""The compiled hooks for what ends a block in its middle: exceptions, and instructions that the engine does not know.

`machine.board` plants them. They account for the part of the block that has retired, have the event delivered through
the guest's IDT or the instruction executed for the engine (`cpu.unicorn.undefined`), and record what is a branch:
exceptions and software interrupts of kind OTHER, an executed instruction none. Design: docs/decisions/015 and 017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from numba import carray, types, uint64

from archlbr.cpu import words as at
from archlbr.cpu.address import Word, call1, load64, store64
from archlbr.cpu.decode import count_to
from archlbr.cpu.unicorn import longmode
from archlbr.cpu.unicorn.undefined import ask_undefined, trap
from archlbr.lbr import compiled as lbr
from archlbr.machine.observing import (
    BRANCHES_BY_RING,
    CPU,
    DELIVER,
    DELIVERING,
    ENGINE,
    ENV,
    FIRST_REMAP,
    KEY_SHIFT,
    LBR_AT,
    LBR_END,
    OBSERVING_WORDS,
    PASSES,
    PATIENT_PASSES,
    REMAPPED,
    RETIRED_BY_RING,
    SCRATCH,
    VMEM_READ,
    event,
    fetch,
    land,
    passed,
    ring_of,
)
from archlbr.native import callback, native

if TYPE_CHECKING:
    from archlbr.cpu.words import Words

UNDEFINED_HOOK = types.uint8(types.uint64, types.CPointer(types.uint64))
INTERRUPT_HOOK = types.void(types.uint64, types.uint32, types.CPointer(types.uint64))

_INVALID_OPCODE: Final = 6
_INT1: Final = 0x1F1  # no vector: INT1, whose #DB is a trap that leaves DR6 alone (SDM vol. 3B, 18.3.1.6)
# #DE, #BR, #UD, #NM, #TS, #NP, #SS, #GP, #PF, #MF, #AC and #XM: RF is 1 in what they push (SDM vol. 3B, 18.3.1.1).
_FAULTS: Final = 1 << 0 | 1 << 5 | 1 << 6 | 1 << 7 | 0x7C00 | 1 << 16 | 1 << 17 | 1 << 19


@native
def _start(words: Words, entry: Word) -> Word:
    # The address of a block, out of its key.
    start = words[entry + at.KEY]
    if start >> uint64(63) == 0:
        start ^= (words[REMAPPED] - words[FIRST_REMAP]) << uint64(KEY_SHIFT)
    return start


@native
def _retire_to(words: Words, start: Word, end: Word, ring: Word) -> None:
    # The running block was left in its middle: what stands before `end` has retired.
    code = fetch(words, start, end - start)
    done = count_to(words, code, code + (end - start))
    words[at.RETIRED] += done
    words[RETIRED_BY_RING + ring] += done


# The engine gives up a block at an instruction that it does not know, and knows not how long it is: what stood before
# it has retired, and so has it. No branch leads behind it.
@native
def _executed(words: Words, source: Word) -> None:
    ring = ring_of(words[ENV])
    current = words[at.CURRENT]
    if current != 0 and words[at.UNUSUAL] == 0 and _start(words, current) < source:
        _retire_to(words, _start(words, current), source, ring)
    words[at.RETIRED] += uint64(1)
    words[RETIRED_BY_RING + ring] += uint64(1)
    words[at.CURRENT] = uint64(0)


@native
def _except(words: Words, engine: Word, vector: Word) -> None:
    env = words[ENV]
    source = behind = load64(env + uint64(longmode.RIP))
    before = ring_of(env)
    current = words[at.CURRENT]
    if current != 0 and words[at.UNUSUAL] == 0:
        start = _start(words, current)
        meta = words[current + at.META]
        is_int = vector == _INT1 or longmode.is_software(env) != 0
        if source == words[current + at.END] and is_int:  # RIP is behind it already
            done = meta >> uint64(at.META_COUNT_SHIFT) & uint64(at.META_COUNT_MASK)
            words[at.RETIRED] += done
            words[RETIRED_BY_RING + before] += done
            words[BRANCHES_BY_RING + before] += uint64(1)
            source = words[current + at.LAST]
            # A fault on the way is a fault of the INT; where it would return to, the engine keeps elsewhere.
            store64(env + uint64(longmode.RIP), source)
        elif not start <= source < words[current + at.END]:
            land(words, source)
        elif start < source:
            _retire_to(words, start, source, before)
    words[at.CURRENT] = uint64(0)
    words[at.UNUSUAL] = uint64(0)
    if words[DELIVERING] != 0 and 10 <= vector <= 13:  # #TS, #NP, #SS, #GP: met while another was being delivered
        longmode.mend_error_code(env, words[DELIVERING])
    words[DELIVERING] = uint64(2) - longmode.is_software(env)
    if vector == _INT1 or (vector == 1 and longmode.is_software(env) == 0):  # #DB clears the enable bit (lbr.freeze)
        lbr.debug_exception(words[LBR_AT:LBR_END])
    if vector < 32 and uint64(_FAULTS) >> vector & uint64(1) != 0 and longmode.is_software(env) == 0:
        longmode.mark_resumed(env)
    longmode.mend_task(env)
    if vector == _INT1:
        store64(env + uint64(longmode.RIP), behind)
        longmode.interrupt(env, uint64(1))
    else:
        call1(words[DELIVER], words[CPU])
    event(words, source, before)
    passed(words)
    if words[PASSES] >= PATIENT_PASSES:  # no block may start for a long time: where every handler faults at once
        words[at.REASON] = uint64(at.REASON_SLICE)
        call1(words[at.EMU_STOP], engine)


@callback(INTERRUPT_HOOK)
def excepting(engine: Word, vector: Word, pointer: Any) -> None:
    """Deliver an exception or a software interrupt through the guest's IDT and record it."""
    _except(carray(pointer, (OBSERVING_WORDS,)), engine, uint64(vector))


@callback(UNDEFINED_HOOK)
def undefined(engine: Word, pointer: Any) -> int:
    """Have an instruction that the engine does not know executed, or deliver #UD."""
    words = carray(pointer, (OBSERVING_WORDS,))
    source = load64(words[ENV] + uint64(longmode.RIP))
    if ask_undefined(words[ENV]) == 0:
        int1 = longmode.pass_int1(words[ENV], words[VMEM_READ], words[ENGINE], words[SCRATCH])
        _except(words, engine, uint64(_INT1 if int1 != 0 else _INVALID_OPCODE))
    else:
        _executed(words, source)
        trap(words[ENV])
    return 1
