"""Where records begin: the one walk over a stretch of records that `reader` and `spool` share.

Records follow one another by the size in their header, whatever their type; a type that is not known is still walked
over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from archlbr.errors import InputError
from archlbr.profile.perfdata.records import AUXTRACE_TYPE, COMPRESSED_TYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archlbr.profile.stack import Words


class Walk(NamedTuple):
    """The whole records of a stretch: starts and lengths in words, int64[n]; words used; bytes of payload to skip
    behind them.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    used: int
    skip: int


def walk(words: Words, offset: int) -> Walk:
    """Return the whole records in `words`, which began at byte `offset` of the file; the rest may be a record's first
    part.

    Stops behind an AUXTRACE record, whose payload is no record. InputError for a size no record can have, and for
    compressed records.
    """
    view = words.data
    end, at, skip = len(view), 0, 0
    starts: list[int] = []
    append = starts.append
    while at < end:
        header = view[at]
        size = header >> 48
        if size < 8 or size & 7:
            raise InputError(f"record at offset {offset + 8 * at:#x}: size {size} is no multiple of 8; damaged file")
        after = at + (size >> 3)
        if after > end:
            break
        append(at)
        kind = header & 0xFFFFFFFF
        if kind >= AUXTRACE_TYPE:
            if kind in COMPRESSED_TYPES:
                raise InputError(
                    f"record at offset {offset + 8 * at:#x}: compressed records cannot be read; record without -z"
                )
            if kind == AUXTRACE_TYPE and size >= 16:
                skip = view[at + 1]
                at = after
                break
        at = after
    found = np.array(starts, dtype=np.int64)
    return Walk(found, np.diff(found, append=at), at, skip)
