"""What BOLT, llvm-profgen, AutoFDO and perf would have against a profile, found before they are asked.

Fed by `perfdata.reader` and the ELF files that the profile names; `archlbr validate` prints it. Most of these tools
pass over such faults without a word, with an empty or wrong result and exit status 0. Authority: each rule was measured
with the tools themselves (reference profile-tools.md 2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from elftools.elf.elffile import ELFFile

from archlbr.profile.build_id import build_id
from archlbr.profile.images import DAMAGED
from archlbr.profile.maps import AddressSpaces
from archlbr.profile.perfdata import attr as a
from archlbr.profile.stack import MISPRED, PREDICTED, Comm, Fork, Mmap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archlbr.profile.perfdata.reader import Reader
    from archlbr.profile.stack import Event, Samples

BOLT, PROFGEN, AUTOFDO, PERF = "BOLT", "llvm-profgen", "AutoFDO", "perf"
# The largest attributes perf 6.1 knows (VER7).
_KNOWN_ATTR = 128
# A file with less than this share of the branches is not what anybody optimises.
_OPTIMISED = 0.1
_GUEST_MODES = (4, 5)
_DWARF_5 = 5
# BOLT reads times in microseconds.
_RESOLUTION = 1000


class Complaint(NamedTuple):
    """One complaint. name: for programs; tools: who has it; what: the fact; advice: what to do about it."""

    name: str
    tools: tuple[str, ...]
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{', '.join(self.tools)}: {self.what}; {self.advice}"


@dataclass(slots=True)
class _Seen:
    """What the samples show, added up."""

    entries: int = 0
    flagged: int = 0
    zeros: int = 0
    samples: int = 0
    guests: int = 0
    homeless: int = 0
    early: int = 0
    files: dict[str, int] = field(default_factory=dict)


def complaints(reader: Reader) -> list[Complaint]:
    """Return every complaint about a profile and the files it names, the gravest first."""
    sideband = reader.sideband()
    spaces = AddressSpaces(sideband)
    found = list(_of_the_event(reader))
    if not any(row.sample_type & a.BRANCH_STACK for row in reader.attrs):
        return found
    mapped: dict[int, int] = {}
    for event in sideband:
        if isinstance(event, Mmap) or (isinstance(event, Fork) and event.ppid in mapped):
            mapped.setdefault(event.pid, event.time)
    seen = _Seen()
    for batch in reader.samples():
        _look(seen, batch, spaces, mapped)
    found += _of_the_samples(seen, bool(mapped))
    found += _of_the_sideband(sideband)
    identities = {**reader.build_ids, **{row.path: row.build_id for row in spaces.mappings if row.build_id}}
    total = max(sum(seen.files.values()), 1)
    for path in sorted(seen.files, key=lambda path: (-seen.files[path], path)):
        if seen.files[path] >= _OPTIMISED * total and not path.startswith(("[", "//")):
            found += _of_the_file(path, identities.get(path, b""))
    return found


def _of_the_event(reader: Reader) -> Iterator[Complaint]:
    kinds = [row.sample_type for row in reader.attrs]
    branches = reader.attr.branch_sample_type
    if not any(kind & a.BRANCH_STACK for kind in kinds):
        yield Complaint(
            "no-branch-stacks",
            (BOLT, PROFGEN, AUTOFDO),
            "the profile has no branch stacks",
            "record with perf record -b or archlbr record",
        )
        return
    if any(kind & a.CALLCHAIN for kind in kinds):
        yield Complaint(
            "callchains",
            (BOLT, PROFGEN),
            "callchains are mixed in: BOLT reads no branch, llvm-profgen takes it for a context-sensitive profile",
            "record without -g",
        )
    if reader.header.attr_size - 16 > _KNOWN_ATTR:
        yield Complaint(
            "new-attributes",
            (PERF, BOLT, PROFGEN),
            f"event attributes of {reader.header.attr_size - 16} bytes: perf 6.1 and older refuse the file",
            "use the perf that wrote it, or one as new",
        )
    if not branches & a.BRANCH_ANY or branches & a.BRANCH_CALL_STACK:
        yield Complaint(
            "filtered",
            (BOLT, PROFGEN, AUTOFDO),
            "the filter leaves branches out: what lies between two entries is no straight line",
            "record with -j any,u",
        )
    if branches & a.BRANCH_KERNEL or not branches & (a.BRANCH_USER | a.BRANCH_KERNEL | a.BRANCH_HV):
        yield Complaint(
            "kernel",
            (PROFGEN,),
            "kernel branches are mixed in: the ranges beside them are lost",
            "record with -j any,u",
        )


def _look(seen: _Seen, batch: Samples, spaces: AddressSpaces, mapped: dict[int, int]) -> None:
    entries = batch.entries
    flags = np.uint64(MISPRED | PREDICTED)
    seen.samples += len(batch)
    seen.entries += len(entries)
    seen.flagged += int(np.count_nonzero(entries["flags"] & flags))
    seen.zeros += int(np.count_nonzero(entries["from"] == 0))
    seen.guests += int(np.count_nonzero(np.isin(batch.cpumode, _GUEST_MODES)))
    for pid in np.unique(batch.pid).tolist():
        mine = batch.pid == pid
        if pid not in mapped:
            seen.homeless += int(np.count_nonzero(mine))
        else:
            seen.early += int(np.count_nonzero(batch.time[mine] < np.uint64(mapped[pid])))
    owner, time = np.repeat(batch.pid, batch.counts), np.repeat(batch.time, batch.counts)
    numbers, many = np.unique(spaces.lookup(owner, time, entries["from"]), return_counts=True)
    for number, count in zip(numbers.tolist(), many.tolist(), strict=True):
        if number >= 0:
            path = spaces.mappings[number].path
            seen.files[path] = seen.files.get(path, 0) + count


def _of_the_samples(seen: _Seen, mapped: bool) -> Iterator[Complaint]:
    everybody = (BOLT, PROFGEN, AUTOFDO)
    if not seen.entries:
        yield Complaint("empty", everybody, "no branch was sampled", "record longer, or with a smaller -c PERIOD")
        return
    if not mapped:
        yield Complaint(
            "no-mappings",
            everybody,
            "no mapping was recorded: no address has a file",
            "record the program from its start",
        )
    elif seen.homeless:
        yield Complaint(
            "unknown-process",
            (PERF, BOLT),
            f"{seen.homeless} of {seen.samples} samples are of a process without mappings and are dropped",
            "record the program from its start, forks included",
        )
    if seen.early:
        yield Complaint(
            "late-mappings",
            (PERF,),
            f"{seen.early} of {seen.samples} samples come before their process's first mapping and stay [unknown]",
            "record the program from its start",
        )
    if seen.guests:
        yield Complaint(
            "guest-mode",
            (PERF, BOLT, PROFGEN),
            f"{seen.guests} of {seen.samples} samples are marked as a guest's and are dropped",
            "record inside the guest",
        )
    if seen.zeros:
        yield Complaint(
            "padding",
            (BOLT,),
            f"{seen.zeros} entries are 0: BOLT counts them as out of range",
            "write only the valid entries of each stack",
        )
    if not seen.flagged:
        yield Complaint(
            "no-flags",
            (BOLT,),
            "no entry says predicted or mispredicted: BOLT warns that the misprediction bit is missing",
            "record without no_flags; layouts by frequency alone are not hurt",
        )


def _of_the_sideband(sideband: list[Event]) -> Iterator[Complaint]:
    # perf2bolt links a forked child by times in microseconds: FORK must be earlier than what the child does next.
    forks = {event.pid: event.time for event in sideband if isinstance(event, Fork) and event.pid != event.ppid}
    near = {
        event.pid
        for event in sideband
        if isinstance(event, Mmap | Comm) and event.pid in forks and 0 <= event.time - forks[event.pid] < _RESOLUTION
    }
    if near:
        yield Complaint(
            "fork-too-near",
            (BOLT,),
            f"{len(near)} forked processes have a mapping within the microsecond of their fork, and BOLT loses them",
            "record with perf on a slower clock, or with archlbr record",
        )


def _of_the_file(path: str, recorded: bytes) -> Iterator[Complaint]:
    name = Path(path).name
    facts = _read(path)
    if facts is None:
        yield Complaint(
            "no-file",
            (BOLT, PROFGEN, AUTOFDO),
            f"{path} is not here",
            f"give the tools a copy that is named {name}: llvm-profgen finds it by that name alone",
        )
        return
    mine = build_id(path)
    if recorded and mine and recorded[: len(mine)] != mine:
        yield Complaint(
            "other-build",
            (BOLT,),
            f"{name} was rebuilt since: build-id {mine.hex()[:12]}, recorded {recorded.hex()[:12]}",
            "record again; perf2bolt --ignore-build-id would take wrong addresses",
        )
    elif not mine:
        yield Complaint(
            "no-build-id",
            (BOLT,),
            f"{name} has no build-id: that it is the program that ran is not checked",
            "link with -Wl,--build-id",
        )
    elif not recorded:
        yield Complaint(
            "build-id-not-recorded",
            (BOLT,),
            f"the profile has no build-id of {name}: that it is the program that ran is not checked",
            "run perf inject -b, or record with archlbr record",
        )
    if facts.shared_page:
        yield Complaint(
            "shared-page",
            (BOLT,),
            f"{name} is position-independent and its code shares a page of the file with what is before it, "
            "as lld lays it out: BOLT takes the wrong base and finds no address",
            "link with -Wl,-z,separate-code",
        )
    if not facts.symbols:
        yield Complaint(
            "stripped",
            (BOLT,),
            f"{name} is stripped: BOLT finds no functions",
            "take the unstripped file of the same build",
        )
    if not facts.relocations:
        yield Complaint(
            "no-relocations",
            (BOLT,),
            f"{name} has no relocations: BOLT reorders blocks but moves no functions",
            "link with -Wl,--emit-relocs",
        )
    if not facts.dwarf:
        yield Complaint(
            "no-lines",
            (PROFGEN, AUTOFDO),
            f"{name} has no line information: nothing ties addresses to source",
            "compile with -g or -gline-tables-only",
        )
    elif facts.dwarf >= _DWARF_5:
        yield Complaint(
            "dwarf-5",
            (AUTOFDO,),
            f"{name} has DWARF {facts.dwarf}: AutoFDO 0.19 and older write an empty profile without a word",
            "compile with -gdwarf-4 for them; llvm-profgen reads both",
        )


class _Facts(NamedTuple):
    symbols: bool
    relocations: bool
    dwarf: int
    shared_page: bool


def _shares_a_page(elf: ELFFile) -> bool:
    # BOLT 16 and 19 take the first segment whose page of the file is the mapping's (getBaseAddressForMapping in
    # bolt/lib/Core/BinaryContext.cpp), whatever it holds.
    pages: set[int] = set()
    for part in elf.iter_segments("PT_LOAD"):
        page = part["p_offset"] - part["p_offset"] % max(part["p_align"], 1)
        if part["p_flags"] & 1 and page in pages:
            return True
        pages.add(page)
    return False


def _read(path: str) -> _Facts | None:
    if not Path(path).is_file():
        return None
    try:
        with open(path, "rb") as stream:
            elf = ELFFile(stream)
            version = 0
            if elf.get_section_by_name(".debug_info") is not None:
                # Of several compilers' units the newest counts: it is the one that is lost.
                dwarf = elf.get_dwarf_info(relocate_dwarf_sections=False)
                version = max((unit["version"] for unit in dwarf.iter_CUs()), default=0)
            return _Facts(
                elf.get_section_by_name(".symtab") is not None,
                elf.get_section_by_name(".rela.text") is not None,
                version,
                elf["e_type"] == "ET_DYN" and _shares_a_page(elf),
            )
    except (OSError, *DAMAGED):
        return None
