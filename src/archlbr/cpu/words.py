"""The words that compiled hooks and Python share: one flat uint64 array, each word named once.

The hooks of `machine` and of `intercepts` read and write them while guest code runs; `engine` reads them when it stops.
Addresses of C functions come first, so that no compiled code holds one ("ours", docs/decisions/010).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Words: TypeAlias = NDArray[np.uint64]

# Addresses that the hooks call or read, set once for an engine.
EMU_STOP = 0  # uc_emu_stop
DISASM = 1  # cs_disasm_iter
DISASM_HANDLE = 2
INSN = 3  # a cs_insn for the decoder to fill
CURSOR = 4  # address of the three words that follow: code pointer, bytes left, instruction address
CURSOR_CODE = 5
CURSOR_LEFT = 6
CURSOR_ADDRESS = 7

# What runs now.
CURRENT = 8  # offset of the running block's entry in the table; 0: none, the next block follows no branch
RETIRED = 9  # instructions retired by completed blocks: the model clock
TAKEN = 10  # near branches taken
FROM = 11  # out of `blocks.advance`: address of the branch instruction
MISPREDICTED = 12  # out of `blocks.advance`: 1 when the predictor was wrong
MISSES = 13  # blocks decoded

# Why and when to stop.
SIGNALLED = 14  # non-zero: a host signal waits; its handler also clears LIMIT, the word behind
LIMIT = 15  # when a hook's count reaches it, the hook looks around: instructions, or rows of the journal; 0: at once
DEADLINE = 16  # instructions: when RETIRED reaches it, another thread may run
UNUSUAL = 17  # flags that take the hook off its short path: the UNUSUAL_ values below
REASON = 18  # out: one of the REASON_ values
VECTOR = 19  # out: the exception vector of REASON_EXCEPTION
FAULT_ADDRESS = 20  # out: data address of REASON_FAULT
FAULT_ACCESS = 21  # out: UC_MEM_* of REASON_FAULT

UNUSUAL_REPEATED = 1  # the block that stopped the engine comes again and is accounted for already
UNUSUAL_STORED = 2  # the running block has stored into its own bytes
UNUSUAL_VOLATILE = 4  # there is code that is writable while it is executable

# Code that is writable while it is executable: decoded again each time.
VOLATILE_COUNT = 22
UNDECODED = 24  # out: address of a block whose bytes the decoder refused
TABLE_USED = 25  # entries in use

# What RETIRED and TAKEN were when the process was forked: its parent's.
INHERITED_RETIRED = 26
INHERITED_TAKEN = 27

LEAVE = 28  # leaves generated code once EMU_STOP was called; 0: generated code asks by itself
JOURNAL_USED = 29  # rows of the journal in use

# The predictor looks at branches once TAKEN has reached this: no verdict on those before is ever shown.
LEARN_FROM = 30
LEARNT = 256  # that many before a sample: what it knew before changes few verdicts (docs/decisions/011)

VOLATILE = 32  # pairs (start, end), VOLATILE_RANGES of them
VOLATILE_RANGES = 64

# The core's predictor (cpu/predictor.py).
PREDICTOR = 160
COUNTERS = 1024  # a two-bit counter a word
TARGETS = 256
RETURNS = 16
PREDICTOR_WORDS = COUNTERS + TARGETS + RETURNS + 1

# The journal: the blocks that ran and have not been accounted for, oldest first, one word a row (machine/journal.py).
JOURNAL = 1536
JOURNAL_ROWS = 2048
JOURNAL_SIZE_SHIFT = 47  # a row as the hook writes it: block address in 46:0, its bytes in 62:47

# The block table: open addressing, four words an entry.
TABLE = 4096
SLOTS_LOG2 = 18
SLOTS = 1 << SLOTS_LOG2
ENTRY = 4
KEY = 0  # block address; 0 is an empty slot
END = 1  # address after the block's last byte
LAST = 2  # address of its last instruction
META = 3  # kind in 7:0, instructions in 31:8, flags from 32, the predictor's hash of LAST in 63:40

META_COUNT_SHIFT = 8
META_COUNT_MASK = 0xFFFFFF
META_HASH_SHIFT = 40
META_REP = 1 << 32  # the last instruction is a REP string instruction: the engine repeats it block by block
META_UNDECODED = 1 << 33  # the decoder stopped before the end

WORDS = TABLE + SLOTS * ENTRY

REASON_NONE = 0
REASON_SYSCALL = 1
REASON_SLICE = 2
REASON_SIGNAL = 3
REASON_FLUSH = 4  # a buffer of samples or branches is full
REASON_EXCEPTION = 5
REASON_FAULT = 6
REASON_INVALID = 7  # an instruction the engine refuses

# How many instructions may pass before the hook looks again, whatever LIMIT it was given: a signal whose clearing of
# LIMIT met the hook's own write to it waits no longer than that.
PATIENCE = 1 << 22
