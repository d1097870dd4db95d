"""A profile for pprof: call stacks, or the places of branches with their source lines, as a gzipped protocol buffer.

Fed by `stacks`, or by `counts` and `names`; `go tool pprof` and the services that take its files read it. Format:
github.com/google/pprof, proto/profile.proto; encoding: protobuf.dev/programming-guides/encoding (varints, and fields
with a length).
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from archlbr.report.counts import fold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from archlbr.report.counts import Counts
    from archlbr.report.names import Names
    from archlbr.report.stacks import Stacks
    from archlbr.report.symbols import Place

# Field numbers of profile.proto.
_SAMPLE_TYPE, _SAMPLE, _MAPPING, _LOCATION, _FUNCTION, _STRINGS = 1, 2, 3, 4, 5, 6
_PERIOD_TYPE, _PERIOD, _COMMENT = 11, 12, 13
_DELIMITED = 2
# Mapping.has_functions: the names are here, pprof need not look for the files.
_HAS_FUNCTIONS = 7


def varint(value: int) -> bytes:
    """Return a number of up to 64 bits in groups of seven bits, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """Return a field with a number; nothing for 0, which a reader takes a missing field for."""
    return varint(field << 3) + varint(value) if value else b""


def delimited(field: int, content: bytes) -> bytes:
    """Return a field with a length: text, packed numbers, or a message."""
    return varint(field << 3 | _DELIMITED) + varint(len(content)) + content


class _Frame(NamedTuple):
    place: Place
    file: str
    line: int
    address: int


class _Builder:
    """The parts of a profile that others refer to by number, each once."""

    def __init__(self) -> None:
        self._strings: dict[str, int] = {"": 0}
        self._functions: dict[tuple[str, str], int] = {}
        self._locations: dict[_Frame, int] = {}
        self._mappings: dict[str, int] = {}
        self._body: list[bytes] = []

    def text(self, value: str) -> int:
        """Return the number of a string."""
        return self._strings.setdefault(value, len(self._strings))

    def kind(self, field: int, name: str, unit: str) -> None:
        """Add a ValueType."""
        self._body.append(delimited(field, number(1, self.text(name)) + number(2, self.text(unit))))

    def sample(self, frames: Iterable[_Frame], values: Iterable[int], thread: str = "") -> None:
        """Add a sample, its innermost frame first."""
        places = b"".join(varint(self._location(frame)) for frame in frames)
        row = delimited(1, places) + delimited(2, b"".join(map(varint, values)))
        if thread:
            row += delimited(3, number(1, self.text("thread")) + number(2, self.text(thread)))
        self._body.append(delimited(_SAMPLE, row))

    def finish(self, period: int, unit: str, comment: str) -> bytes:
        """Return the file."""
        self.kind(_PERIOD_TYPE, unit, "count")
        self._body += [number(_PERIOD, period), number(_COMMENT, self.text(comment))]
        body = b"".join(self._body)
        strings = b"".join(delimited(_STRINGS, value.encode(errors="replace")) for value in self._strings)
        return gzip.compress(body + strings, mtime=0)

    def _mapping(self, path: str) -> int:
        if path not in self._mappings:
            self._mappings[path] = len(self._mappings) + 1
            row = number(1, self._mappings[path]) + number(5, self.text(path)) + number(_HAS_FUNCTIONS, 1)
            self._body.append(delimited(_MAPPING, row))
        return self._mappings[path]

    def _function(self, name: str, file: str) -> int:
        key = (name, file)
        if key not in self._functions:
            self._functions[key] = len(self._functions) + 1
            row = number(1, self._functions[key]) + number(2, self.text(name)) + number(3, self.text(name))
            self._body.append(delimited(_FUNCTION, row + number(4, self.text(file))))
        return self._functions[key]

    def _location(self, frame: _Frame) -> int:
        if frame not in self._locations:
            self._locations[frame] = len(self._locations) + 1
            name = frame.place.frame
            line = number(1, self._function(name, frame.file)) + number(2, frame.line)
            row = number(1, self._locations[frame]) + number(2, self._mapping(frame.place.file))
            self._body.append(delimited(_LOCATION, row + number(3, frame.address) + delimited(4, line)))
        return self._locations[frame]


def of_stacks(stacks: Stacks, comment: str) -> bytes:
    """Return the call stacks: a sample a distinct stack, its value the number of samples."""
    made = _Builder()
    made.kind(_SAMPLE_TYPE, "samples", "count")
    frames = [_Frame(place, "", 0, 0) for place in stacks.frames]
    for (tid, stack), many in sorted(stacks.stacks.items()):
        thread = f"{stacks.threads.get(tid, 'thread')} {tid}"
        made.sample((frames[index] for index in reversed(stack)), (many,), thread)
    return made.finish(0, "samples", comment)


def of_branches(counts: Counts, names: Names, comment: str) -> bytes:
    """Return the branches: a sample a place that branches, its values how often it was taken and mispredicted."""
    made = _Builder()
    made.kind(_SAMPLE_TYPE, "branches", "count")
    made.kind(_SAMPLE_TYPE, "mispredictions", "count")
    table = np.zeros(
        len(counts.branches), dtype=[("file", "<i8"), ("offset", "<u8"), ("count", "<u8"), ("mispred", "<u8")]
    )
    table["file"], table["offset"] = counts.branches["from_file"], counts.branches["from_offset"]
    table["count"], table["mispred"] = counts.branches["count"], counts.branches["mispred"]
    for row in fold(table, ("file", "offset")):
        file, offset = int(row["file"]), int(row["offset"])
        line = names.line(file, offset)
        address = names.symbols(file).address(offset) if file >= 0 else offset
        frame = _Frame(
            names.place(file, offset)._replace(offset=0), line.file if line else "", line.line if line else 0, address
        )
        made.sample((frame,), (int(row["count"]), int(row["mispred"])))
    return made.finish(0, "branches", comment)
