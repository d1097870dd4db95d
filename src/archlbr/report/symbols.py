"""Names for places in ELF files: file offset to symbol and distance, from .symtab, or .dynsym where it was stripped.

Fed by the paths of a profile's mappings; `summary` asks for the hottest places only. Authority: System V ABI, chapter 4
(symbol table, program header).
"""

from __future__ import annotations

import os
from bisect import bisect_right
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from elftools.elf.elffile import ELFFile

from archlbr.errors import InputError
from archlbr.profile.build_id import build_id
from archlbr.profile.images import DAMAGED, segments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archlbr.profile.stack import Words

# Elf64_Sym: st_name, st_info, st_other, st_shndx, st_value, st_size.
SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
FUNCTION_TYPES = (2, 10)  # STT_FUNC, STT_GNU_IFUNC
UNDEFINED = 0  # SHN_UNDEF
# Where Debian and Fedora put what was stripped, by build-id.
DEBUG_FILES = "/usr/lib/debug/.build-id"


def debug_file(path: str) -> str:
    """Return the file that holds what was stripped from an ELF file, empty when there is none."""
    identity = build_id(path).hex()
    name = f"{DEBUG_FILES}/{identity[:2]}/{identity[2:]}.debug"
    # What a damaged file calls its build-id may be longer than a path can be.
    return name if identity and os.path.isfile(name) else ""


class Place(NamedTuple):
    """A place in a file. symbol: its function, empty when unknown. offset: bytes into it, or the file's address."""

    file: str
    symbol: str
    offset: int

    def __str__(self) -> str:
        return f"{self.symbol}+{self.offset:#x}" if self.symbol else f"{self.offset:#x}"

    @property
    def short_file(self) -> str:
        """The file as a person calls it: the last part of its path."""
        return os.path.basename(self.file) or self.file

    @property
    def with_file(self) -> str:
        """The place and its file."""
        return f"{self} ({self.short_file})"

    @property
    def frame(self) -> str:
        """The function as a frame of a stack: its name, or its file in brackets where it is not known."""
        return self.symbol or f"[{self.short_file.strip('[]')}]"

    @property
    def function(self) -> str:
        """The function and its file, the file alone where the function is not known."""
        return f"{self.symbol} ({self.short_file})" if self.symbol else self.frame


class Function(NamedTuple):
    """A function of a file: its first and last + 1 link-time address."""

    start: int
    end: int
    name: str


class SymbolFile:
    """The functions of one file, sorted by address; none when it is not there or no ELF file.

    path: as the profile names it; where: the file to read, `path` itself when it is not given.
    """

    def __init__(self, path: str, where: str | None = None) -> None:
        self.path = path
        where = path if where is None else where
        self._segments: tuple[tuple[int, int, int], ...] = ()
        self.functions: list[Function] = []
        if os.path.isfile(where):
            with suppress(InputError):
                self._segments = segments(where)
                self.functions = _best(where)
        self._starts = [function.start for function in self.functions]
        self._ends = np.array([function.end for function in self.functions], dtype=np.uint64)

    def place(self, offset: int) -> Place:
        """Return the place at a file offset."""
        address = self.address(offset)
        if self.functions:
            at = bisect_right(self._starts, address) - 1
            if at >= 0 and address < self.functions[at].end:
                return Place(self.path, self.functions[at].name, address - self.functions[at].start)
        return Place(self.path, "", address)

    def address(self, offset: int) -> int:
        """Return the link-time address of a file offset; the offset itself where no segment holds it."""
        for start, size, address in self._segments:
            if start <= offset < start + size:
                return offset - start + address
        return offset

    def offset(self, address: int) -> int:
        """Return the file offset of a link-time address; the address itself where no segment holds it."""
        for start, size, first in self._segments:
            if first <= address < first + size:
                return address - first + start
        return address

    def function_numbers(self, offsets: Words) -> NDArray[np.int64]:
        """Return the index in `functions` of the one that holds each file offset, int64[n], -1 for none."""
        if not self.functions:
            return np.full(len(offsets), -1, dtype=np.int64)
        addresses = offsets.copy()
        for start, size, first in self._segments:
            inside = (offsets >= np.uint64(start)) & (offsets < np.uint64(start + size))
            addresses[inside] = offsets[inside] - np.uint64(start) + np.uint64(first)
        at = np.searchsorted(np.array(self._starts, dtype=np.uint64), addresses, side="right") - 1
        return np.where((at >= 0) & (addresses < self._ends[at]), at, -1)


def _best(path: str) -> list[Function]:
    # A stripped file keeps only what it exports; its debug file has the rest.
    found: list[Function] = []
    for candidate in (path, debug_file(path)):
        if candidate:
            with suppress(OSError, *DAMAGED), open(candidate, "rb") as stream:
                found = max(_read(ELFFile(stream)), found, key=len)
    return found


def _read(elf: ELFFile) -> list[Function]:
    for name in (".symtab", ".dynsym"):
        table = elf.get_section_by_name(name)
        if table is not None and (found := _functions(table.data(), elf.get_section(table["sh_link"]).data())):
            return found
    return []


def _functions(table: bytes, names: bytes) -> list[Function]:
    rows = np.frombuffer(table[: len(table) // SYMBOL.itemsize * SYMBOL.itemsize], dtype=SYMBOL)
    wanted = np.isin(rows["info"] & 15, FUNCTION_TYPES) & (rows["section"] != UNDEFINED)
    # Of aliases the last sorted stays: global before weak before local, so that the usual name wins.
    rows = rows[wanted]
    rank = np.array([0, 2, 1], dtype=np.int64)[np.minimum(rows["info"] >> 4, 2)]
    rows = rows[np.lexsort((rank, rows["value"]))]
    starts = rows["value"].tolist()
    found: dict[int, Function] = {}
    for start, size, name in zip(starts, rows["size"].tolist(), rows["name"].tolist(), strict=True):
        found[start] = Function(
            start, start + max(size, 1), names[name : names.index(b"\0", name)].decode("utf-8", "replace")
        )
    return list(found.values())
