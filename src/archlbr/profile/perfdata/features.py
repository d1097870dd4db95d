"""The feature sections: facts about the machine and the run, behind the records.

`writer` writes them at close, `reader` reads those it knows and skips the others. Layouts:
tools/perf/Documentation/perf.data-file-format.txt and tools/perf/util/header.c. The string features are all written,
always: `perf data convert` follows NULL pointers without them (reference profile-tools.md 2).
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from archlbr.errors import InputError
from archlbr.profile.perfdata.records import HEADER_SIZE, BuildId

if TYPE_CHECKING:
    from collections.abc import Iterable

    from archlbr.profile.perfdata.attr import Attr

BUILD_ID = 2
HOSTNAME = 3
OSRELEASE = 4
VERSION = 5
ARCH = 6
NRCPUS = 7
CPUDESC = 8
CPUID = 9
CMDLINE = 11
EVENT_DESC = 12
BRANCH_STACK = 15
SAMPLE_TIME = 21
CPU_PMU_CAPS = 28

# Strings are padded to this many bytes (NAME_ALIGN in tools/perf/util/header.c).
_ALIGN = 64


class About(NamedTuple):
    """What the features say of the machine and the run; all of it comes from the caller."""

    command_line: tuple[str, ...] = ()
    depth: int = 32
    hostname: str = "localhost"
    osrelease: str = "0"
    version: str = "0"
    arch: str = "x86_64"
    cpus_configured: int = 1
    cpus_online: int = 1
    cpudesc: str = "archlbr"
    cpuid: str = "GenuineIntel"


def string(text: str) -> bytes:
    """Return a length-prefixed string, NUL-terminated and padded (`do_write_string`)."""
    raw = os.fsencode(text) + b"\0"
    room = -(-len(raw) // _ALIGN) * _ALIGN
    return struct.pack("<I", room) + raw.ljust(room, b"\0")


def parse_string(raw: bytes, at: int) -> tuple[str, int]:
    """Return the string at byte `at` and the byte behind it; InputError when it does not fit."""
    if at + 4 > len(raw):
        raise InputError(f"string at byte {at} of a feature section of {len(raw)} bytes: no room for its length")
    length = struct.unpack_from("<I", raw, at)[0]
    if at + 4 + length > len(raw):
        raise InputError(f"string at byte {at} of a feature section of {len(raw)} bytes: {length} bytes do not fit")
    return os.fsdecode(raw[at + 4 : at + 4 + length].split(b"\0", 1)[0]), at + 4 + length


def strings(texts: Iterable[str]) -> bytes:
    """Return a counted list of strings."""
    packed = [string(text) for text in texts]
    return struct.pack("<I", len(packed)) + b"".join(packed)


def parse_strings(raw: bytes) -> tuple[str, ...]:
    """Return a counted list of strings; InputError when it does not fit."""
    if len(raw) < 4:
        raise InputError(f"string list of {len(raw)} bytes: no room for its count")
    count, at, out = struct.unpack_from("<I", raw)[0], 4, []
    if count > len(raw) // 4:
        raise InputError(f"string list of {len(raw)} bytes: {count} strings do not fit")
    for _ in range(count):
        text, at = parse_string(raw, at)
        out.append(text)
    return tuple(out)


def event_desc(attr: Attr, ids: tuple[int, ...]) -> bytes:
    """Return the EVENT_DESC section of a file with one event; it gives the event its name."""
    packed = attr.pack()
    return (
        struct.pack("<II", 1, len(packed))
        + packed
        + struct.pack("<I", len(ids))
        + string(attr.name)
        + struct.pack(f"<{len(ids)}Q", *ids)
    )


def parse_event_desc(raw: bytes) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return (name, ids) of each event; InputError when they do not fit."""
    if len(raw) < 8:
        raise InputError(f"EVENT_DESC of {len(raw)} bytes: no room for its counts")
    count, attr_size = struct.unpack_from("<II", raw)
    at = 8
    out: list[tuple[str, tuple[int, ...]]] = []
    for _ in range(count):
        at += attr_size
        if at + 4 > len(raw):
            raise InputError(f"EVENT_DESC of {len(raw)} bytes: event {len(out)} of {count} does not fit")
        ids = struct.unpack_from("<I", raw, at)[0]
        name, at = parse_string(raw, at + 4)
        if at + 8 * ids > len(raw):
            raise InputError(f"EVENT_DESC of {len(raw)} bytes: {ids} ids of event {name!r} do not fit")
        out.append((name, struct.unpack_from(f"<{ids}Q", raw, at)))
        at += 8 * ids
    return tuple(out)


def parse_build_ids(raw: bytes) -> dict[str, bytes]:
    """Return path to build-id; InputError when a record does not fit. Records here need not be multiples of 8."""
    at, out = 0, {}
    while at + HEADER_SIZE <= len(raw):
        _, misc, size = struct.unpack_from("<IHH", raw, at)
        if size < HEADER_SIZE or at + size > len(raw):
            raise InputError(f"build-id record at byte {at} of {len(raw)}: size {size} does not fit")
        row = BuildId.parse(misc, raw[at + HEADER_SIZE : at + size])
        out[row.path] = row.build_id
        at += size
    return out


def sections(
    attr: Attr, ids: tuple[int, ...], about: About, build_ids: Iterable[BuildId], times: tuple[int, int]
) -> dict[int, bytes]:
    """Return every feature section by its number, ascending, as the file has them; BUILD_ID only when there are any.

    `times` is the first and last sample's.
    """
    caps = {"branches": str(about.depth), "max_precise": "0", "pmu_name": "archlbr"}
    noted = b"".join(row.pack() for row in build_ids)
    return ({BUILD_ID: noted} if noted else {}) | {
        HOSTNAME: string(about.hostname),
        OSRELEASE: string(about.osrelease),
        VERSION: string(about.version),
        ARCH: string(about.arch),
        NRCPUS: struct.pack("<II", about.cpus_configured, about.cpus_online),
        CPUDESC: string(about.cpudesc),
        CPUID: string(about.cpuid),
        CMDLINE: strings(about.command_line),
        EVENT_DESC: event_desc(attr, ids),
        BRANCH_STACK: b"",
        SAMPLE_TIME: struct.pack("<QQ", *times),
        CPU_PMU_CAPS: struct.pack("<I", len(caps))
        + b"".join(string(name) + string(text) for name, text in caps.items()),
    }
