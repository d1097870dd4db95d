"""Names for places in ELF files: file offset to symbol and distance, from .symtab, or .dynsym where it was stripped.

Fed by the paths of a profile's mappings; `summary` asks for the hottest places only. Authority: System V ABI, chapter 4
(symbol table, program header).
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from archlbr.errors import InputError
from archlbr.profile.images import segments

# Elf64_Sym: st_name, st_info, st_other, st_shndx, st_value, st_size.
SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
FUNCTION_TYPES = (2, 10)  # STT_FUNC, STT_GNU_IFUNC
UNDEFINED = 0  # SHN_UNDEF


class Place(NamedTuple):
    """A place in a file. symbol: its function, empty when unknown. offset: bytes into it, or the file's address."""

    file: str
    symbol: str
    offset: int

    def __str__(self) -> str:
        return f"{self.symbol}+{self.offset:#x}" if self.symbol else f"{self.offset:#x}"


class _Function(NamedTuple):
    start: int
    end: int
    name: str


class SymbolFile:
    """The functions of one file, sorted by address; none when it is not there or no ELF file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._segments: tuple[tuple[int, int, int], ...] = ()
        self._functions: list[_Function] = []
        if Path(path).is_file():
            with suppress(InputError, OSError, ELFError):
                self._segments = segments(path)
                with open(path, "rb") as stream:
                    self._functions = _read(ELFFile(stream))
        self._starts = [function.start for function in self._functions]

    def place(self, offset: int) -> Place:
        """Return the place at a file offset."""
        address = self._address(offset)
        if self._functions:
            at = bisect_right(self._starts, address) - 1
            if at >= 0 and address < self._functions[at].end:
                return Place(self.path, self._functions[at].name, address - self._functions[at].start)
        return Place(self.path, "", address)

    def _address(self, offset: int) -> int:
        for start, size, address in self._segments:
            if start <= offset < start + size:
                return offset - start + address
        return offset


def _read(elf: ELFFile) -> list[_Function]:
    for name in (".symtab", ".dynsym"):
        table = elf.get_section_by_name(name)
        if table is not None and (found := _functions(table.data(), elf.get_section(table["sh_link"]).data())):
            return found
    return []


def _functions(table: bytes, names: bytes) -> list[_Function]:
    rows = np.frombuffer(table[: len(table) // SYMBOL.itemsize * SYMBOL.itemsize], dtype=SYMBOL)
    wanted = np.isin(rows["info"] & 15, FUNCTION_TYPES) & (rows["section"] != UNDEFINED)
    # Of aliases the last sorted stays: global before weak before local, so that the usual name wins.
    rows = rows[wanted]
    rank = np.array([0, 2, 1], dtype=np.int64)[np.minimum(rows["info"] >> 4, 2)]
    rows = rows[np.lexsort((rank, rows["value"]))]
    starts = rows["value"].tolist()
    found: dict[int, _Function] = {}
    for start, size, name in zip(starts, rows["size"].tolist(), rows["name"].tolist(), strict=True):
        found[start] = _Function(
            start, start + max(size, 1), names[name : names.index(b"\0", name)].decode("utf-8", "replace")
        )
    return list(found.values())
