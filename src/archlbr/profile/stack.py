"""The profile's vocabulary: branch stacks, and the mappings and tasks they belong to.

`recording` feeds it raw LBR registers (FROM, TO, INFO); every format of this room writes these values, and the readers
give them back. The entry is Linux's `struct perf_branch_entry` (include/uapi/linux/perf_event.h); the conversion from
IA32_LBR_x_INFO is that of `intel_pmu_store_lbr` (arch/x86/events/intel/lbr.c), as reference architecture.md 6.3 states
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archlbr.arch.branches import KINDS, PerfBranch

Words: TypeAlias = NDArray[np.uint64]
Entries: TypeAlias = NDArray[np.void]

# struct perf_branch_entry: 24 bytes, little endian.
ENTRY = np.dtype([("from", "<u8"), ("to", "<u8"), ("flags", "<u8")])

# The bit fields of perf_branch_entry, lowest first: mispred:1 predicted:1 in_tx:1 abort:1 cycles:16 type:4 spec:2
# new_type:4 priv:3.
MISPRED = 1 << 0
PREDICTED = 1 << 1
IN_TX = 1 << 2
ABORT = 1 << 3
CYCLES_SHIFT, CYCLES_MASK = 4, 0xFFFF
TYPE_SHIFT, TYPE_MASK = 20, 0xF

# Addresses with bit 63 set are the kernel's half (`kernel_ip` in arch/x86/events/perf_event.h).
KERNEL_BIT = 63

# IA32_LBR_x_INFO[59:56] to perf type; codes 6..15 are decoded in software by Linux, so UNKNOWN unless the caller knows.
_TYPE_OF = np.full(16, int(PerfBranch.UNKNOWN), dtype=np.uint64)
for _row in KINDS:
    _TYPE_OF[_row.br_type] = int(_row.perf)


class Mapping(NamedTuple):
    """An executable mapping: where a file's bytes stand in a process.

    start, length, pgoff in bytes; path as the client of the profile will know the file; build_id is the ELF note's
    bytes, empty when the file has none.
    """

    start: int
    length: int
    pgoff: int
    path: str
    build_id: bytes = b""
    major: int = 0
    minor: int = 0
    inode: int = 0
    generation: int = 0
    prot: int = 5
    flags: int = 2


class Comm(NamedTuple):
    """A task's name, at its start or (exec) when it became another program."""

    pid: int
    tid: int
    time: int
    name: str
    exec: bool = False


class Mmap(NamedTuple):
    """A mapping that appeared in a process (pid -1: the kernel's)."""

    pid: int
    tid: int
    time: int
    mapping: Mapping


class Fork(NamedTuple):
    """A task that another task created; a thread when both pids are the same."""

    pid: int
    ppid: int
    tid: int
    ptid: int
    time: int


class Exit(NamedTuple):
    """A task that ended."""

    pid: int
    ppid: int
    tid: int
    ptid: int
    time: int


@dataclass(frozen=True, slots=True)
class Samples:
    """A batch of n samples whose stacks lie end to end.

    pid, tid: int32[n]; time (ns), ip, period: uint64[n]; cpumode: uint8[n] (1 kernel, 2 user); entries: ENTRY[m],
    newest first within a sample; sample i owns entries[offsets[i]:offsets[i+1]], offsets int64[n+1].
    """

    pid: NDArray[np.int32]
    tid: NDArray[np.int32]
    time: Words
    ip: Words
    period: Words
    cpumode: NDArray[np.uint8]
    entries: Entries
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pid)

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of entries in each sample, int64[n]."""
        return np.diff(self.offsets)

    def stack(self, index: int) -> Entries:
        """Return one sample's entries, newest first."""
        return self.entries[self.offsets[index] : self.offsets[index + 1]]


Event: TypeAlias = Comm | Mmap | Fork | Exit | Samples


def entry_flags(info: Words, types: NDArray[np.integer] | None = None) -> Words:
    """Return the flags words of perf_branch_entry for IA32_LBR_x_INFO values of any shape.

    `types`, same shape, gives the PERF_BR_* type of entries whose BR_TYPE is above 5 (far transfers), which Linux
    finds by decoding the bytes at FROM. Cycles count only where CYC_CNT_VALID (bit 60) is set. Source:
    intel_pmu_store_lbr, get_lbr_* in arch/x86/events/intel/lbr.c; reference architecture.md 6.3.
    """
    one = np.uint64(1)
    mispred = info >> np.uint64(63)
    cycles = (info & np.uint64(0xFFFF)) * ((info >> np.uint64(60)) & one)
    code = (info >> np.uint64(56)) & np.uint64(15)
    kind = _TYPE_OF[code.astype(np.intp)]
    if types is not None:
        kind = np.where(code > np.uint64(5), types.astype(np.uint64) & np.uint64(TYPE_MASK), kind)
    flags = mispred | ((mispred ^ one) << one)
    flags |= ((info >> np.uint64(62)) & one) << np.uint64(2)
    flags |= ((info >> np.uint64(61)) & one) << np.uint64(3)
    flags |= cycles << np.uint64(CYCLES_SHIFT)
    flags |= kind << np.uint64(TYPE_SHIFT)
    return flags


def entry_types(entries: Entries) -> NDArray[np.uint8]:
    """Return the PERF_BR_* type of each entry."""
    return ((entries["flags"] >> np.uint64(TYPE_SHIFT)) & np.uint64(TYPE_MASK)).astype(np.uint8)


def entry_cycles(entries: Entries) -> NDArray[np.uint16]:
    """Return the elapsed cycles of each entry, 0 where none were counted."""
    return ((entries["flags"] >> np.uint64(CYCLES_SHIFT)) & np.uint64(CYCLES_MASK)).astype(np.uint16)
