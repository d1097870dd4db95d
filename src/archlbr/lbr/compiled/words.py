"""The flat form of facility and state: 256 words of 64 bits that native code reads and writes.

The other modules of this room work on it; `translate` fills it and reads it back. The ring holds the entries at
RING + 3 * slot (FROM, TO, INFO); HEAD is the word of the newest entry, so that recording moves no other entry. In the
legacy facility a slot is a register number, and HEAD is the top of stack. The layout is ours.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from archlbr.arch import msrs
from archlbr.arch.branches import BR_TYPE, CTL_BIT, SELECT_BIT, BranchKind
from archlbr.errors import InternalError

Words: TypeAlias = NDArray[np.uint64]

# The hot path's words. GATE is derived by `recorder.refresh` from the controls:
#   bits 7:0 and 15:8    kinds that enter, by ring of the destination (0, above 0)
#   bits 23:16, 31:24    kinds that pop, likewise
#   bits 32, 33          FROM is masked when the source is in ring 0, above 0
#   bit 34               recording
GATE, HEAD, RING_END, FORMAT, TYPES, FLAGS, TIMES, TIMED, SINCE, PENDING, LANES = range(11)
# The registers.
CTL, DEPTH, LER_FROM, LER_TO, LER_INFO, DEBUGCTL, FROZEN, XSS, SELECT, SMM, SMM_DEBUGCTL = range(16, 27)
# What the facility is.
PMU_VERSION, TSX, LINEAR_WIDTH, XSAVES, MAX_DEPTH, CTL_LEGAL, SELECT_LEGAL, DEBUGCTL_LEGAL = range(32, 40)
DEPTH_MASK, CPL_FILTER, BRANCH_FILTER, DEEP_C_RESET = range(40, 44)

RING = 64
STRIDE = 3
COUNT = RING + msrs.ENTRIES * STRIDE

GATE_RECORDING = 1 << 34

# A branch's flags: bits 2:0 as INFO[63:61] has them, bit 3 an event, bits 23:8 the event counts.
MISPREDICTED, IN_TX, ABORT, EVENT = 1, 2, 4, 8

# By kind, four bits each: the type code in INFO, and the suppression bit in LBR_SELECT.
TYPE_NIBBLES = sum(code << 4 * kind for kind, code in BR_TYPE.items())
SELECT_NIBBLES = sum(bit << 4 * kind for kind, bit in SELECT_BIT.items())

# `recorder.refresh` shifts CTL[22:16] to the kinds' bits in one go.
if any(bit != kind + 15 for kind, bit in CTL_BIT.items()) or max(BranchKind) > 7:
    raise InternalError("the branch kinds are not in the order of IA32_LBR_CTL[22:16]")
