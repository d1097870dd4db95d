"""The event's attributes: `struct perf_event_attr`, and what it says of every record in the file.

`cli` chooses one; `header` stores it, `records` and `samples` lay out their bytes by it. The layout is that of
include/uapi/linux/perf_event.h, version 5 (112 bytes): a reader refuses a larger one than it knows (reference
profile-tools.md 2), and everything about branch stacks lies in the first 80.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from archlbr.errors import InputError

SIZE_VER0 = 64
SIZE_WRITTEN = 112
# Larger than any version so far (VER8 is 136); beyond it the number is damage, not a newer kernel.
SIZE_LIMIT = 4096

# PERF_SAMPLE_*
IP = 1 << 0
TID = 1 << 1
TIME = 1 << 2
ADDR = 1 << 3
READ = 1 << 4
CALLCHAIN = 1 << 5
ID = 1 << 6
CPU = 1 << 7
PERIOD = 1 << 8
STREAM_ID = 1 << 9
RAW = 1 << 10
BRANCH_STACK = 1 << 11
IDENTIFIER = 1 << 16
SAMPLE_TYPE = IP | TID | TIME | PERIOD | BRANCH_STACK

# PERF_SAMPLE_BRANCH_*
BRANCH_USER = 1 << 0
BRANCH_KERNEL = 1 << 1
BRANCH_HV = 1 << 2
BRANCH_ANY = 1 << 3
BRANCH_CALL_STACK = 1 << 11
BRANCH_TYPE_SAVE = 1 << 16
BRANCH_HW_INDEX = 1 << 17

# Bits of the attr's flags word.
EXCLUDE_USER = 1 << 4
EXCLUDE_KERNEL = 1 << 5
EXCLUDE_HV = 1 << 6
MMAP = 1 << 8
COMM = 1 << 9
TASK = 1 << 13
SAMPLE_ID_ALL = 1 << 18
MMAP2 = 1 << 23
COMM_EXEC = 1 << 24

# type, size, config, sample_period, sample_type, read_format, flags, wakeup_events, bp_type, config1: version 0.
_HEAD = struct.Struct("<IIQQQQQIIQ")
# config2, branch_sample_type: versions 1 and 2.
_BRANCH = struct.Struct("<QQ")

# Names as `perf list` has them: (type, config) of PERF_TYPE_HARDWARE.
HARDWARE_EVENTS: dict[str, tuple[int, int]] = {
    "cycles": (0, 0),
    "instructions": (0, 1),
    "branch-instructions": (0, 4),
    "branches": (0, 4),
    "branch-misses": (0, 5),
}


class Attr(NamedTuple):
    """One event of a perf.data file; `name` lives in the EVENT_DESC feature, not in the struct."""

    name: str
    type: int
    config: int
    period: int
    branch_sample_type: int
    sample_type: int = SAMPLE_TYPE
    flags: int = MMAP | MMAP2 | COMM | COMM_EXEC | TASK | SAMPLE_ID_ALL
    read_format: int = 0

    @property
    def user_only(self) -> bool:
        """Whether only user-mode branches belong in the stacks (`-j any,u`)."""
        return bool(self.branch_sample_type & BRANCH_USER) and not self.branch_sample_type & BRANCH_KERNEL

    @property
    def hw_index(self) -> bool:
        """Whether each stack carries a hardware index before its entries."""
        return bool(self.branch_sample_type & BRANCH_HW_INDEX)

    def pack(self) -> bytes:
        """Return the struct's 112 bytes."""
        head = _HEAD.pack(
            self.type, SIZE_WRITTEN, self.config, self.period, self.sample_type, self.read_format, self.flags, 0, 0, 0
        )
        return (head + _BRANCH.pack(0, self.branch_sample_type)).ljust(SIZE_WRITTEN, b"\0")

    @classmethod
    def parse(cls, raw: bytes, offset: int) -> Attr:
        """Return the attributes in `raw`, which stood at `offset` of the file; InputError when they cannot be."""
        if len(raw) < SIZE_VER0:
            raise InputError(f"event attributes at offset {offset:#x}: {len(raw)} bytes, at least {SIZE_VER0} needed")
        kind, size, config, period, sample_type, read_format, flags, _, _, _ = _HEAD.unpack_from(raw)
        if not SIZE_VER0 <= size <= len(raw):
            raise InputError(f"event attributes at offset {offset:#x}: size {size} is not in {SIZE_VER0}..{len(raw)}")
        branch = _BRANCH.unpack_from(raw, SIZE_VER0)[1] if size >= SIZE_VER0 + _BRANCH.size else 0
        return cls("", kind, config, period, branch, sample_type, flags, read_format)


def branch_attr(event: str, period: int, branch_sample_type: int = BRANCH_USER | BRANCH_ANY) -> Attr:
    """Return the attributes of a branch-stack recording.

    `event` is a hardware event of `perf list` (modifiers after a colon are kept in the name); `period` counts its
    occurrences. TYPE_SAVE is always added. InputError for an unknown event or a period below 1.
    """
    base = event.partition(":")[0]
    if base not in HARDWARE_EVENTS:
        raise InputError(f"unknown event {event!r}: choose one of {', '.join(HARDWARE_EVENTS)}")
    if not 1 <= period < 1 << 63:
        raise InputError(f"period {period} is not in 1..2^63-1: give a positive count of {base}")
    kind, config = HARDWARE_EVENTS[base]
    branch = branch_sample_type | BRANCH_TYPE_SAVE
    flags = Attr._field_defaults["flags"] | EXCLUDE_HV
    if not branch & BRANCH_KERNEL:
        flags |= EXCLUDE_KERNEL
    if not branch & BRANCH_USER:
        flags |= EXCLUDE_USER
    return Attr(event, kind, config, period, branch, flags=flags)
