"""The file header: `struct perf_file_header`, which says where attributes, records and features stand.

`writer` leaves room for it and fills it last; `reader` starts from it. Layout: tools/perf/util/header.h and
tools/perf/Documentation/perf.data-file-format.txt.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from archlbr.errors import InputError

MAGIC = b"PERFILE2"
SIZE = 104
FEATURE_BITS = 256

_LAYOUT = struct.Struct("<8sQQ6Q4Q")
_SECTION = struct.Struct("<QQ")


class Section(NamedTuple):
    """A stretch of the file (`struct perf_file_section`): offset and size in bytes."""

    offset: int
    size: int

    def pack(self) -> bytes:
        """Return the section's 16 bytes."""
        return _SECTION.pack(self.offset, self.size)

    @classmethod
    def parse(cls, raw: bytes, at: int = 0) -> Section:
        """Return the section at byte `at` of `raw`."""
        return cls(*_SECTION.unpack_from(raw, at))

    def check(self, name: str, file_size: int) -> Section:
        """Return this section; InputError when it reaches beyond the file."""
        if self.offset + self.size > file_size:
            raise InputError(
                f"{name} at offset {self.offset:#x}: {self.size} bytes, but the file ends at {file_size:#x}; cut short?"
            )
        return self


class Header(NamedTuple):
    """The header's content; `features` is a set of bits, bit number = feature number."""

    attr_size: int
    attrs: Section
    data: Section
    features: int

    def pack(self) -> bytes:
        """Return the header's 104 bytes."""
        bitmap = [self.features >> shift & (1 << 64) - 1 for shift in range(0, FEATURE_BITS, 64)]
        return _LAYOUT.pack(MAGIC, SIZE, self.attr_size, *self.attrs, *self.data, 0, 0, *bitmap)

    @classmethod
    def parse(cls, raw: bytes) -> Header:
        """Return the header in the first bytes of a file; InputError when it is none of ours to read."""
        if raw[:8] == MAGIC[::-1]:
            raise InputError("perf.data of a big-endian machine: only little-endian files can be read")
        if raw[:8] != MAGIC:
            raise InputError(f"not a perf.data file: it starts with {raw[:8]!r}, not {MAGIC!r}")
        size = struct.unpack_from("<Q", raw, 8)[0] if len(raw) >= 16 else 0
        if size == 16:
            raise InputError("perf.data in pipe mode: only files can be read; run `perf inject -i IT -o FILE` first")
        if len(raw) < SIZE or size < SIZE:
            raise InputError(
                f"perf.data header: {min(size, len(raw))} bytes, {SIZE} needed; the file is cut short or damaged"
            )
        _, _, attr_size, *rest = _LAYOUT.unpack_from(raw)
        features = sum(word << 64 * index for index, word in enumerate(rest[6:10]))
        return cls(attr_size, Section(*rest[0:2]), Section(*rest[2:4]), features)
