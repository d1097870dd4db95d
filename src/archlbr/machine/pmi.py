"""One sample, natively: the twin of `host.sampling`.

`machine.hooks` calls it when the counter overflows, without leaving compiled code. A property test holds the
two equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import uint64

from archlbr.arch import msrs
from archlbr.lbr import compiled as lbr
from archlbr.lbr.compiled import words as w
from archlbr.native import native

if TYPE_CHECKING:
    from archlbr.cpu.words import Words

_LBR_CTL = msrs.IA32_LBR_CTL.index


@native
def take_sample(words: Words, owned: int, out: Words) -> int:
    """Freeze, read FROM, TO and INFO newest first into `out` (uint64[3 * DEPTH]), thaw; return the number of entries.

    Without ownership the vPMU answers every read with 0, which ends the stack at once.
    """
    enabled = words[w.CTL]
    lbr.pmi(words)
    count = lbr.read_stack(words, out) if owned != 0 else 0
    lbr.thaw(words)
    if words[w.CTL] != enabled:
        lbr.wrmsr(words, uint64(_LBR_CTL), enabled)
    return count
