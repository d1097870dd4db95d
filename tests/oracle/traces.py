"""Branch traces as values: read, brought to comparable addresses, cut to what two runs share, compared one by one.

Both the oracle and `archlbr trace` write `TID 0xFROM 0xTO KIND` lines and comments `# mmap PID 0xSTART 0xEND 0xPGOFF
PATH`. They place programs and libraries differently, so an address inside a mapped file is turned into (file, offset).
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Record(NamedTuple):
    """One taken branch: addresses as the program saw them."""

    source: int
    target: int
    kind: str


class Mapping(NamedTuple):
    """One executable mapping: addresses start to end show path from offset on."""

    start: int
    end: int
    offset: int
    path: str


class Place(NamedTuple):
    """An address that two runs can share: an offset in a file, or the address itself where file is empty."""

    file: str
    offset: int

    def __str__(self) -> str:
        return f"{Path(self.file).name}+{self.offset:#x}" if self.file else f"{self.offset:#x}"


OUTSIDE = Place("outside", 0)


class Edge(NamedTuple):
    """One taken branch between places."""

    source: Place
    target: Place
    kind: str

    def __str__(self) -> str:
        return f"{self.source!s:>28} -> {self.target!s:<28} {self.kind}"


class Trace(NamedTuple):
    """A whole run: mappings in order of appearance, records by thread, threads in order of creation."""

    mappings: tuple[Mapping, ...]
    threads: tuple[tuple[Record, ...], ...]

    def place(self, address: int) -> Place:
        """Return where an address lies; a later mapping hides an earlier one."""
        for mapping in reversed(self.mappings):
            if mapping.start <= address < mapping.end:
                if not mapping.path.startswith("/") or mapping.path.startswith("//"):
                    break
                return Place(mapping.path, address - mapping.start + mapping.offset)
        return Place("", address)

    def edges(self) -> list[list[Edge]]:
        """Return the records with comparable addresses, one list a thread."""
        known: dict[int, Place] = {}

        def place(address: int) -> Place:
            if address not in known:
                known[address] = self.place(address)
            return known[address]

        return [[Edge(place(r.source), place(r.target), r.kind) for r in thread] for thread in self.threads]


def read_trace(path: Path) -> Trace:
    """Return the trace a file holds; refuse a line that is neither a record nor a comment."""
    mappings = []
    threads: dict[int, list[Record]] = {}
    for line in path.read_text().splitlines():
        words = line.split(None, 6)
        if line.startswith("# mmap "):
            mappings.append(Mapping(int(words[3], 16), int(words[4], 16), int(words[5], 16), words[6]))
        elif not line.startswith("#"):
            tid, source, target, kind = words
            assert source.startswith("0x"), line
            assert target.startswith("0x"), line
            threads.setdefault(int(tid), []).append(Record(int(source, 16), int(target, 16), kind))
    return Trace(tuple(mappings), tuple(tuple(threads[tid]) for tid in sorted(threads)))


def symbols(program: Path) -> dict[str, int]:
    """Return the link-time address of every symbol of a program, by binutils' nm."""
    listing = subprocess.run(["nm", "--defined-only", program], capture_output=True, text=True, check=True).stdout
    return {name: int(value, 16) for value, _, name in (line.split() for line in listing.splitlines())}


def entry_point(program: Path) -> int:
    """Return the link-time address a program starts at, by binutils' readelf."""
    listing = subprocess.run(["readelf", "-hW", program], capture_output=True, text=True, check=True).stdout
    return next(int(line.split()[-1], 16) for line in listing.splitlines() if "Entry point" in line)


class Section(NamedTuple):
    """A section of an ELF file: its link-time address, its offset in the file, its size."""

    address: int
    offset: int
    size: int


def section(program: Path, name: str) -> Section:
    """Return where a section of a program lies, by binutils' readelf."""
    listing = subprocess.run(["readelf", "-SW", program], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        words = line.replace("[ ", "[").split()
        if len(words) > 5 and words[1] == name:
            return Section(int(words[3], 16), int(words[4], 16), int(words[5], 16))
    raise LookupError(f"{program}: no section {name}")


def within(edges: list[Edge], inside: Callable[[Place], bool]) -> list[Edge]:
    """Keep the branches that touch the code inside; what lies outside it is one place, for two runs differ there."""
    kept = []
    for edge in edges:
        source, target = inside(edge.source), inside(edge.target)
        if source or target:
            kept.append(Edge(edge.source if source else OUTSIDE, edge.target if target else OUTSIDE, edge.kind))
    return kept


def own_code(program: Path, generated: range = range(0)) -> Callable[[Place], bool]:
    """Return the test whether a place lies in the text of the program, or in the addresses it generates code at."""
    where = section(program, ".text")
    path = str(program)

    def inside(place: Place) -> bool:
        if not place.file:
            return place.offset in generated
        return place.file == path and where.offset <= place.offset < where.offset + where.size

    return inside


def from_function(edges: list[Edge], program: Path, name: str) -> list[Edge]:
    """Drop what comes before the first instruction of a function of the program, its own entry included."""
    where = section(program, ".text")
    entry = Place(str(program), symbols(program)[name] - where.address + where.offset)
    at = next((index for index, edge in enumerate(edges) if edge.target == entry), None)
    assert at is not None, f"{name} of {program} was never entered"
    return edges[at + 1 :]


def assert_equal(ours: list[Edge], theirs: list[Edge], what: str) -> None:
    """Compare two lists of branches; show the first difference with what stands around it."""
    assert theirs, f"{what}: the oracle saw no branch at all"
    if ours == theirs:
        return
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    shown = [f"{what}: record {at} differs ({len(ours)} records, the oracle has {len(theirs)})"]
    shown += [f"  both   {edge}" for edge in theirs[max(0, at - 3) : at]]
    shown += [f"  oracle {edge}" for edge in theirs[at : at + 3]] or ["  oracle ended"]
    shown += [f"  ours   {edge}" for edge in ours[at : at + 3]] or ["  ours ended"]
    raise AssertionError("\n".join(shown))
