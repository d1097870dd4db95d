"""Profiles as text, for tools that read it and need no perf: perf-script lines and BOLT's pre-aggregated form.

Both are made from a perf.data file through `reader`. llvm-profgen reads the first with `--perfscript`, perf2bolt the
second with `-pa`. The layouts are those of `perf script -F [pid,]ip,brstack --show-mmap-events`
(tools/perf/builtin-script.c) and of `DataAggregator::parseAggregatedLBREntry` (bolt/lib/Profile/DataAggregator.cpp);
reference profile-tools.md 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from archlbr.errors import InputError
from archlbr.profile import stack
from archlbr.profile.edges import EdgeCounter, EdgeTable, count_edges, pairs
from archlbr.profile.images import link_addresses, same_function
from archlbr.profile.maps import AddressSpaces
from archlbr.profile.stack import Entries, Mmap, Samples, Words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from archlbr.profile.perfdata.reader import Reader

# PERF_BR_* as perf prints them (`branch_type_name` in tools/perf/util/branch.c); an unknown type is left empty.
TYPE_NAMES = (
    "", "COND", "UNCOND", "IND", "CALL", "IND_CALL", "RET", "SYSCALL", "SYSRET", "COND_CALL", "COND_RET", "ERET", "IRQ",
    "SERROR", "NO_TX", "",
)  # fmt: skip


def script(reader: Reader, pid: bool = False) -> Iterator[str]:
    """Yield the profile as perf-script text, whole lines in file order: one a mapping, one a sample.

    llvm-profgen takes the form without the sample's pid for branch stacks, and no other.
    """
    for event in reader.events():
        if isinstance(event, Mmap):
            yield mmap_line(event, pid)
        elif isinstance(event, Samples):
            yield from sample_lines(event, pid)


def mmap_line(event: Mmap, pid: bool = False) -> str:
    """Return a mapping's line, after its process where `pid` is."""
    where = event.mapping
    prot = "".join(letter if where.prot >> bit & 1 else "-" for bit, letter in enumerate("rwx"))
    # %#x prints 0 without its prefix.
    pgoff = f"{where.pgoff:#x}" if where.pgoff else "0"
    process = f"{event.pid:5d} " if pid else ""
    return (
        f"{process}PERF_RECORD_MMAP2 {event.pid}/{event.tid}: [{where.start:#x}({where.length:#x}) @ {pgoff} "
        f"{where.major:02x}:{where.minor:02x} {where.inode} {where.generation}]: "
        f"{prot}{'s' if where.flags & 1 else 'p'} {where.path}\n"
    )


def sample_lines(samples: Samples, pid: bool = False) -> Iterator[str]:
    """Yield a batch's lines, each after its process where `pid` is."""
    words, place = _entry_words(samples.entries)
    listed = [words[index] for index in place.tolist()]
    bounds = samples.offsets.tolist()
    for index, (process, ip) in enumerate(zip(samples.pid.tolist(), samples.ip.tolist(), strict=True)):
        yield f"{f'{process:5d} ' if pid else ''} {ip:16x}{''.join(listed[bounds[index] : bounds[index + 1]])}\n"


def _entry_words(entries: Entries) -> tuple[list[str], NDArray[np.int64]]:
    # The distinct entries as text, and which one each entry is: a stack's entries come again and again.
    order = np.lexsort((entries["flags"], entries["to"], entries["from"]))
    ranked = entries[order]
    fresh = np.ones(len(ranked), dtype=np.bool_)
    fresh[1:] = ranked[1:] != ranked[:-1]
    place = np.empty(len(ranked), dtype=np.int64)
    place[order] = np.cumsum(fresh) - 1
    return [_entry_word(*row) for row in ranked[fresh].tolist()], place


def _entry_word(source: int, target: int, flags: int) -> str:
    guess = "M" if flags & stack.MISPRED else "P" if flags & stack.PREDICTED else "-"
    in_tx = "X" if flags & stack.IN_TX else "-"
    abort = "A" if flags & stack.ABORT else "-"
    cycles = flags >> stack.CYCLES_SHIFT & stack.CYCLES_MASK
    name = TYPE_NAMES[flags >> stack.TYPE_SHIFT & stack.TYPE_MASK]
    return f" {source:#x}/{target:#x}/{guess}/{in_tx}/{abort}/{cycles}/{name} "


def preaggregated(reader: Reader, path: str) -> Iterator[str]:
    """Yield the profile of one file as BOLT's pre-aggregated text: `B from to count mispreds` and `F start end count`.

    `path` names an ELF file as the profile's mappings do. Addresses are the file's own (link-time), whatever it was
    loaded at; the far side of a branch out of or into the file is 0; `f` is a range entered from another file.
    InputError when no sample touches the file.
    """
    spaces = AddressSpaces(reader.sideband())
    counters = {"B": EdgeCounter(), "F": EdgeCounter(), "f": EdgeCounter()}
    mine = np.array([row.path == path for row in spaces.mappings], dtype=np.bool_)
    if not mine.any():
        known = sorted({row.path for row in spaces.mappings})
        raise InputError(f"{path} is not mapped in {reader.name}: choose one of {', '.join(known) or 'none'}")
    for samples in reader.samples():
        source = _own(spaces, mine, samples, samples.entries["from"])
        target = _own(spaces, mine, samples, samples.entries["to"])
        touched = (source != 0) | (target != 0)
        mispreds = (samples.entries["flags"] & np.uint64(stack.MISPRED))[touched]
        counters["B"].add(count_edges(source[touched], target[touched], mispreds=mispreds))
        newer = pairs(samples)
        older = newer + 1
        inside = (target[older] != 0) & (source[newer] != 0)
        newer, older = newer[inside], older[inside]
        within = same_function(path, target[older], source[older])
        for kind, entered in (("F", within), ("f", ~within)):
            counters[kind].add(count_edges(target[older][entered], source[newer][entered]))
    if not len(counters["B"].table()):
        raise InputError(f"no sample of {reader.name} touches {path}: record it with a smaller period")
    for kind, counter in counters.items():
        yield from _aggregated_lines(kind, counter.table())


def _own(spaces: AddressSpaces, mine: NDArray[np.bool_], samples: Samples, addresses: Words) -> Words:
    """Return the link-time address of each entry's address, 0 where it lies in another file."""
    owner = spaces.lookup(np.repeat(samples.pid, samples.counts), np.repeat(samples.time, samples.counts), addresses)
    out = np.zeros(len(addresses), dtype=np.uint64)
    for number in np.unique(owner[owner >= 0]).tolist():
        if mine[number]:
            here = owner == number
            out[here] = link_addresses(spaces.mappings[number], addresses[here])
    return out


def _aggregated_lines(kind: str, table: EdgeTable) -> Iterator[str]:
    for source, target, count, mispreds in table.tolist():
        tail = f" {mispreds}" if kind == "B" else ""
        yield f"{kind} {source:x} {target:x} {count}{tail}\n"
