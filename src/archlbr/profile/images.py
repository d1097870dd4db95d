"""The files behind mappings: their bytes, and their link-time addresses.

`text` asks for addresses as the ELF file itself counts them, `validate` for the instructions of a range. ELF: System V
gABI, "Program Header".
"""

from __future__ import annotations

import contextlib
import os
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from elftools.common.exceptions import DWARFError, ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from archlbr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from archlbr.profile.stack import Mapping, Words


# What pyelftools raises of a damaged file: it trusts the sizes it reads, and checks with assert.
DAMAGED = (
    ELFError,
    DWARFError,
    ConstructError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


def link_addresses(mapping: Mapping, addresses: Words) -> Words:
    """Return the link-time addresses (uint64[n]) of addresses inside a mapping of an ELF file.

    An address that no loadable segment covers gives 0. InputError when the file cannot be read.
    """
    offsets = addresses - np.uint64(mapping.start) + np.uint64(mapping.pgoff)
    out = np.zeros(len(addresses), dtype=np.uint64)
    for offset, size, address in segments(mapping.path):
        inside = (offsets >= np.uint64(offset)) & (offsets < np.uint64(offset + size))
        out[inside] = offsets[inside] - np.uint64(offset) + np.uint64(address)
    return out


@lru_cache(maxsize=256)
def segments(path: str) -> tuple[tuple[int, int, int], ...]:
    """Return (file offset, size, link-time address) of each executable segment; InputError when there is none."""
    with _elf(path) as image:
        rows = [
            (part["p_offset"], part["p_filesz"], part["p_vaddr"])
            for part in image.iter_segments("PT_LOAD")
            if part["p_flags"] & 1
        ]
    if not rows:
        raise InputError(f"{path} has no executable segment")
    return tuple(rows)


@lru_cache(maxsize=256)
def functions(path: str) -> tuple[Words, Words]:
    """Return the first and last+1 link-time addresses of an ELF file's function symbols, sorted, uint64[n] each.

    Empty when the file is stripped. InputError when it cannot be read.
    """
    with _elf(path) as image:
        found = {
            (row["st_value"], row["st_value"] + row["st_size"])
            for name in (".symtab", ".dynsym")
            if (table := image.get_section_by_name(name)) is not None
            for row in table.iter_symbols()
            if row["st_info"]["type"] == "STT_FUNC" and row["st_size"] and row["st_shndx"] != "SHN_UNDEF"
        }
    rows = np.array(sorted(found), dtype=np.uint64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def same_function(path: str, one: Words, other: Words) -> NDArray[np.bool_]:
    """Return whether both link-time addresses lie in the same function of an ELF file, bool[n]."""
    starts, ends = functions(path)
    if not len(starts):
        return np.zeros(len(one), dtype=np.bool_)
    place = np.maximum(np.searchsorted(starts, one, side="right") - 1, 0)
    low, high = starts[place], ends[place]
    return (low <= one) & (one < high) & (low <= other) & (other < high)


@contextlib.contextmanager
def _elf(path: str) -> Iterator[ELFFile]:
    try:
        with open(path, "rb") as file:
            yield ELFFile(file)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; its link-time addresses are needed") from error
    except DAMAGED as error:
        raise InputError(f"{path} is not an ELF file, or a damaged one: {error}") from error


class Images:
    """The bytes of mapped files, read where they are readable."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}

    def read(self, mapping: Mapping, address: int, size: int) -> bytes:
        """Return up to `size` bytes at an address of a mapping; nothing when the file cannot be read."""
        number = self._descriptors.get(mapping.path)
        if number is None:
            number = -1
            # Only what is certainly a file: a mapping's name may be a device's.
            if os.path.isfile(mapping.path):
                try:
                    number = os.open(mapping.path, os.O_RDONLY | os.O_CLOEXEC)
                except OSError:
                    number = -1
            self._descriptors[mapping.path] = number
        if number < 0:
            return b""
        room = min(size, mapping.start + mapping.length - address)
        return os.pread(number, room, address - mapping.start + mapping.pgoff)

    def close(self) -> None:
        """Close the files."""
        for number in self._descriptors.values():
            if number >= 0:
                os.close(number)
        self._descriptors.clear()
