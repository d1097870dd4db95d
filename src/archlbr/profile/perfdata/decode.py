"""A batch of sample records taken apart, whatever fields the recorder chose.

`reader` feeds it the records of one event; the field order is that of PERF_RECORD_SAMPLE in
include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from archlbr.errors import InputError
from archlbr.profile.perfdata import attr as a
from archlbr.profile.perfdata.records import CPUMODE_MASK
from archlbr.profile.stack import ENTRY, Entries, Samples, Words

Places = NDArray[np.int64]

# PERF_FORMAT_*: what a READ field holds.
_TIMES = (1 << 0, 1 << 1)
_PER_VALUE = (1 << 2, 1 << 4)
_GROUP = 1 << 3


class _Cursor:
    """The place of the next field in each of n records, in words; InputError when a field does not fit its record."""

    def __init__(self, words: Words, starts: Places, lengths: Places, offset: int) -> None:
        self.words, self.starts, self.ends, self.offset = words, starts, starts + lengths, offset
        self.at = starts + 1

    def skip(self, count: Places | int, field: str) -> Places:
        """Return where the field of `count` words stands and move behind it."""
        here = self.at
        self.at = here + count
        bad = self.at > self.ends
        if bad.any():
            which = int(np.argmax(bad))
            raise InputError(
                f"sample at offset {self.offset + 8 * int(self.starts[which]):#x}: {field} does not fit in "
                f"{8 * int(self.ends[which] - self.starts[which])} bytes; damaged file"
            )
        return here

    def word(self, field: str) -> Words:
        """Return the next word of each record."""
        return self.words[self.skip(1, field)]

    def count(self, field: str, limit: int = 1 << 16) -> Places:
        """Return the next word of each record as a number of things; no record holds as many as `limit`."""
        return np.minimum(self.word(field), np.uint64(limit)).astype(np.int64)


def decode(words: Words, starts: Places, lengths: Places, attr: a.Attr, offset: int) -> Samples:
    """Return the samples whose records begin at `starts` (words) in `words`, which began at byte `offset` of the file.

    Fields the event did not record read as 0, the period as the event's. InputError when a record is too short for its
    fields.
    """
    rows = len(starts)
    kind = attr.sample_type
    cursor = _Cursor(words, starts, lengths, offset)
    zero = np.zeros(rows, dtype=np.uint64)

    def word(bit: int, field: str) -> Words:
        return cursor.word(field) if kind & bit else zero

    word(a.IDENTIFIER, "IDENTIFIER")
    ip = word(a.IP, "IP")
    task = word(a.TID, "TID")
    time = word(a.TIME, "TIME")
    for bit, field in ((a.ADDR, "ADDR"), (a.ID, "ID"), (a.STREAM_ID, "STREAM_ID"), (a.CPU, "CPU")):
        word(bit, field)
    period = cursor.word("PERIOD") if kind & a.PERIOD else np.full(rows, attr.period, dtype=np.uint64)
    if kind & a.READ:
        _skip_read(cursor, attr.read_format)
    if kind & a.CALLCHAIN:
        cursor.skip(cursor.count("CALLCHAIN"), "CALLCHAIN")
    if kind & a.RAW:
        # A u32 size stands before the bytes, and both together fill whole words.
        here = cursor.skip(1, "RAW")
        size = (words[here] & np.uint64(0xFFFFFFFF)).astype(np.int64)
        cursor.skip((size + 4 + 7) // 8 - 1, "RAW")
    counts = np.zeros(rows, dtype=np.int64)
    if kind & a.BRANCH_STACK:
        counts = cursor.count("BRANCH_STACK")
        if attr.hw_index:
            cursor.skip(1, "HW_INDEX")
        first = cursor.skip(3 * counts, "BRANCH_STACK")
    else:
        first = cursor.at
    offsets = np.concatenate(([0], np.cumsum(counts)))
    entries = _entries(words, first, counts, offsets)
    low = (task & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.int32)
    high = (task >> np.uint64(32)).astype(np.uint32).view(np.int32)
    cpumode = (words[starts] >> np.uint64(32) & np.uint64(CPUMODE_MASK)).astype(np.uint8)
    return Samples(low, high, time, ip, period, cpumode, entries, offsets)


def _entries(words: Words, first: Places, counts: Places, offsets: Places) -> Entries:
    if offsets[-1] and (counts == counts[0]).all():
        # Most profiles are of full stacks in records of one length: then the entries are a rectangle.
        steps = np.diff(first)
        if not len(steps) or (steps == steps[0]).all():
            width, start, step = 3 * int(counts[0]), int(first[0]), int(steps[0]) if len(steps) else 0
            rows = np.lib.stride_tricks.as_strided(words[start:], (len(first), width), (8 * step, 8), writeable=False)
            return np.ascontiguousarray(rows).view(ENTRY).reshape(-1)
    entries = np.empty(int(offsets[-1]), dtype=ENTRY)
    place = np.repeat(first - 3 * offsets[:-1], counts) + 3 * np.arange(len(entries))
    for index, name in enumerate(("from", "to", "flags")):
        entries[name] = words[place + index]
    return entries


def _skip_read(cursor: _Cursor, read_format: int) -> None:
    times = sum(bool(read_format & bit) for bit in _TIMES)
    per_value = 1 + sum(bool(read_format & bit) for bit in _PER_VALUE)
    if read_format & _GROUP:
        values = cursor.count("READ")
        cursor.skip(times + per_value * values, "READ")
    else:
        cursor.skip(times + per_value, "READ")
