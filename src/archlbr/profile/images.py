"""The files behind mappings: their bytes, and their link-time addresses.

`text` asks for addresses as the ELF file itself counts them, `validate` for the instructions of a range. ELF: System V
gABI, "Program Header".
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from archlbr.errors import InputError

if TYPE_CHECKING:
    from archlbr.profile.stack import Mapping, Words


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
    try:
        with open(path, "rb") as file:
            rows = [
                (part["p_offset"], part["p_filesz"], part["p_vaddr"])
                for part in ELFFile(file).iter_segments("PT_LOAD")
                if part["p_flags"] & 1
            ]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; its link-time addresses are needed") from error
    except ELFError as error:
        raise InputError(f"{path} is not an ELF file: {error}") from error
    if not rows:
        raise InputError(f"{path} has no executable segment")
    return tuple(rows)


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
