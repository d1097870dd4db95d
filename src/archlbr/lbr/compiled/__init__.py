"""The facility natively, over one flat array of words; equal to the pure step by a property test.

Scalars are uint64, register accesses are at CPL 0, nothing allocates. Pass `words` as a `numba.carray` over a
pointer: an owned array costs a reference count, about 12 ns, at each call.
"""

from archlbr.lbr.compiled.access import rdmsr, wrmsr
from archlbr.lbr.compiled.area import xrstors, xsaves
from archlbr.lbr.compiled.freezing import (
    cold_reset,
    debug_exception,
    deep_c_state,
    init,
    pmi,
    rsm,
    smi,
    thaw,
    warm_reset,
)
from archlbr.lbr.compiled.recorder import read_stack, record, refresh
from archlbr.lbr.compiled.translate import new_words, state_of, words_of
from archlbr.lbr.compiled.words import COUNT, Words

__all__ = [
    "COUNT",
    "Words",
    "cold_reset",
    "debug_exception",
    "deep_c_state",
    "init",
    "new_words",
    "pmi",
    "rdmsr",
    "read_stack",
    "record",
    "refresh",
    "rsm",
    "smi",
    "state_of",
    "thaw",
    "warm_reset",
    "words_of",
    "wrmsr",
    "xrstors",
    "xsaves",
]
