"""The side-band records: what happened to tasks and mappings, one small type a record.

`stream` writes them, `reader` and `spool` take them apart. Layouts: `struct perf_event_header` and the record comments
of include/uapi/linux/perf_event.h; user records (type >= 64): tools/lib/perf/include/perf/event.h.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from archlbr.errors import InputError
from archlbr.profile.stack import Comm, Exit, Fork, Mapping, Mmap

MMAP_TYPE = 1
COMM_TYPE = 3
EXIT_TYPE = 4
FORK_TYPE = 7
SAMPLE_TYPE = 9
MMAP2_TYPE = 10
BUILD_ID_TYPE = 67
FINISHED_ROUND_TYPE = 68
AUXTRACE_TYPE = 71
COMPRESSED_TYPES = (81, 83)

HEADER_SIZE = 8
# Record sizes are a u16 and a multiple of 8.
MAX_SIZE = 0xFFF8

CPUMODE_MASK = 7
CPUMODE_KERNEL = 1
CPUMODE_USER = 2
MISC_COMM_EXEC = 1 << 13
MISC_MMAP_BUILD_ID = 1 << 14
MISC_BUILD_ID_SIZE = 1 << 15

# The longest task name the kernel keeps (TASK_COMM_LEN less the NUL), and the longest build-id perf keeps.
COMM_LENGTH = 15
BUILD_ID_LENGTH = 20

_HEADER = struct.Struct("<IHH")
_TASK = struct.Struct("<IIIIQ")
_COMM = struct.Struct("<ii")
_MMAP = struct.Struct("<iiQQQ")
_MMAP2 = struct.Struct("<iiQQQIIQQII")
# pid, tid, time: what sample_id_all appends for sample_type 0x907.
TRAILER = struct.Struct("<iiQ")
_BUILD_ID = struct.Struct("<i20sB3x")


def record(kind: int, misc: int, body: bytes) -> bytes:
    """Return a whole record: header and body; InputError when it is longer than a record can be."""
    size = HEADER_SIZE + len(body)
    if size > MAX_SIZE:
        raise InputError(f"record of type {kind}: {size} bytes, but at most {MAX_SIZE} fit; shorten the file's path")
    return _HEADER.pack(kind, misc, size) + body


def padded(text: str, limit: int | None = None) -> bytes:
    """Return a NUL-terminated string padded to a multiple of 8."""
    raw = os.fsencode(text)[:limit] + b"\0"
    return raw.ljust(-(-len(raw) // 8) * 8, b"\0")


def pack_comm(row: Comm) -> bytes:
    """Return a PERF_RECORD_COMM with its trailer."""
    body = _COMM.pack(row.pid, row.tid) + padded(row.name, COMM_LENGTH) + TRAILER.pack(row.pid, row.tid, row.time)
    return record(COMM_TYPE, MISC_COMM_EXEC if row.exec else 0, body)


def parse_comm(misc: int, body: bytes, time: int) -> Comm:
    """Return the COMM in a record's body without trailer."""
    pid, tid = _COMM.unpack_from(body)
    return Comm(pid, tid, time, text(body[_COMM.size :]), bool(misc & MISC_COMM_EXEC))


def pack_mmap2(row: Mmap) -> bytes:
    """Return a PERF_RECORD_MMAP2 with its trailer."""
    where = row.mapping
    body = _MMAP2.pack(
        row.pid,
        row.tid,
        where.start,
        where.length,
        where.pgoff,
        where.major,
        where.minor,
        where.inode,
        where.generation,
        where.prot,
        where.flags,
    )
    misc = CPUMODE_KERNEL if row.pid == -1 else CPUMODE_USER
    return record(MMAP2_TYPE, misc, body + padded(where.path or "//anon") + TRAILER.pack(row.pid, row.tid, row.time))


def parse_mmap2(misc: int, body: bytes, time: int) -> Mmap:
    """Return the MMAP2 in a record's body without trailer; misc says whether a build-id stands for the inode."""
    pid, tid, start, length, pgoff, major, minor, inode, generation, prot, flags = _MMAP2.unpack_from(body)
    build_id = b""
    if misc & MISC_MMAP_BUILD_ID:
        size = min(body[32], BUILD_ID_LENGTH)
        build_id = body[36 : 36 + size]
        major = minor = inode = generation = 0
    path = text(body[_MMAP2.size :])
    where = Mapping(start, length, pgoff, path, build_id, major, minor, inode, generation, prot, flags)
    return Mmap(pid, tid, time, where)


def parse_mmap(misc: int, body: bytes, time: int) -> Mmap:
    """Return the MMAP (the older form, without device and inode) in a record's body."""
    pid, tid, start, length, pgoff = _MMAP.unpack_from(body)
    return Mmap(pid, tid, time, Mapping(start, length, pgoff, text(body[_MMAP.size :])))


def pack_task(kind: int, row: Fork | Exit) -> bytes:
    """Return a PERF_RECORD_FORK or EXIT; its trailer names the task that acted: the parent forks, the task exits."""
    acting = (row.ppid, row.ptid) if kind == FORK_TYPE else (row.pid, row.tid)
    body = struct.pack("<iiiiQ", row.pid, row.ppid, row.tid, row.ptid, row.time)
    return record(kind, 0, body + TRAILER.pack(*acting, row.time))


def parse_task(kind: int, body: bytes) -> Fork | Exit:
    """Return the FORK or EXIT in a record's body."""
    pid, ppid, tid, ptid, time = struct.unpack_from("<iiiiQ", body)
    return Fork(pid, ppid, tid, ptid, time) if kind == FORK_TYPE else Exit(pid, ppid, tid, ptid, time)


# The smallest body of each record that is taken apart, without trailer.
BODY_SIZE: dict[int, int] = {
    MMAP_TYPE: _MMAP.size,
    MMAP2_TYPE: _MMAP2.size,
    COMM_TYPE: _COMM.size,
    FORK_TYPE: _TASK.size,
    EXIT_TYPE: _TASK.size,
}


class BuildId(NamedTuple):
    """A file's build-id, as the BUILD_ID feature and the HEADER_BUILD_ID record have it."""

    path: str
    build_id: bytes
    pid: int = -1

    def pack(self) -> bytes:
        """Return the record's bytes."""
        note = self.build_id[:BUILD_ID_LENGTH]
        body = _BUILD_ID.pack(self.pid, note, len(note))
        # perf pads the name to 64 bytes, which leaves the record 4 bytes off; here it is a multiple of 8, as any other.
        name = os.fsencode(self.path) + b"\0"
        name = name.ljust(-(-(len(name) + _BUILD_ID.size) // 64) * 64 - _BUILD_ID.size, b"\0")
        return record(BUILD_ID_TYPE, CPUMODE_USER | MISC_BUILD_ID_SIZE, body + name)

    @classmethod
    def parse(cls, misc: int, body: bytes) -> BuildId:
        """Return the build-id in a record's body; InputError when it is too short."""
        if len(body) < _BUILD_ID.size:
            raise InputError(f"build-id record of {len(body)} bytes: at least {_BUILD_ID.size} needed")
        pid, note, size = _BUILD_ID.unpack_from(body)
        if not misc & MISC_BUILD_ID_SIZE:
            size = BUILD_ID_LENGTH
        return cls(text(body[_BUILD_ID.size :]), note[:size], pid)


FINISHED_ROUND = record(FINISHED_ROUND_TYPE, 0, b"")


def text(raw: bytes) -> str:
    """Return a NUL-terminated string."""
    return os.fsdecode(raw.split(b"\0", 1)[0])
