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


# Types from here on are perf's own, not the kernel's, and need not be a multiple of 8 long
# (PERF_RECORD_USER_TYPE_START).
_USER_TYPE = 64


# After so many records with the same header the next ones are looked at together: the samples of full branch stacks.
_ALIKE = 8


class Walk(NamedTuple):
    """The whole records of a stretch: their starts and lengths in words, int64[n]; how many bytes to go on behind.

    `skip` of those bytes are the payload behind the last record, and perhaps not in the stretch.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    used: int
    skip: int


def _run(words: Words, at: int, header: int) -> list[int]:
    # The starts of the whole records from `at` on that have the header of those before them.
    stride = header >> 51
    heads = words[at : len(words) - stride + 1 : stride] == np.uint64(header)
    count = len(heads) if heads.all() else int(np.argmin(heads))
    return list(range(at, at + count * stride, stride))


def walk(words: Words, offset: int) -> Walk:
    """Return the whole records in `words`, which began at byte `offset` of the file; the rest may be a record's first
    part.

    Stops behind a record after which words would be out of step: one of odd length (left out: perf's own), or an
    AUXTRACE record with its payload. InputError for a size no record can have, and for compressed records.
    """
    view = words.data
    end, at, skip = len(view), 0, 0
    starts: list[int] = []
    append = starts.append
    before, alike = 0, 0
    while at < end:
        header = view[at]
        alike = alike + 1 if header == before else 0
        before = header
        size = header >> 48
        after = at + (size >> 3)
        kind = header & 0xFFFFFFFF
        if alike >= _ALIKE and kind < _USER_TYPE and after <= end:
            starts += _run(words, at, header)
            at = starts[-1] + (size >> 3)
            alike = 0
            continue
        if size < 8 or (size & 7 and kind < _USER_TYPE):
            raise InputError(f"record at offset {offset + 8 * at:#x}: size {size} is no multiple of 8; damaged file")
        if after + (size & 7 > 0) > end:
            break
        if kind >= _USER_TYPE:
            if kind in COMPRESSED_TYPES:
                raise InputError(
                    f"record at offset {offset + 8 * at:#x}: compressed records cannot be read; record without -z"
                )
            if size & 7:
                found = np.array(starts, dtype=np.int64)
                return Walk(found, np.diff(found, append=at), 8 * at + size, 0)
            if kind == AUXTRACE_TYPE and size >= 16:
                skip = view[at + 1]
        append(at)
        at = after
        if skip:
            break
    found = np.array(starts, dtype=np.int64)
    return Walk(found, np.diff(found, append=at), 8 * at + skip, skip)
