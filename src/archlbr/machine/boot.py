"""Putting a kernel into memory: a Linux bzImage by the 64-bit boot protocol.

`machine.board` gives the memory and starts at the entry. Source: Documentation/arch/x86/boot.rst of the kernel, "64-bit
boot protocol".
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from archlbr.errors import InputError

GDT: Final = 0x6000
PAGE_TABLES: Final = 0x70000
BOOT_PARAMS: Final = 0x10000
COMMAND_LINE: Final = 0x20000
COMMAND_LINE_LIMIT: Final = 2047
STACK: Final = 0x8F000

CODE_SELECTOR: Final = 0x10
DATA_SELECTOR: Final = 0x18
_DESCRIPTORS: Final = struct.pack("<4Q", 0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF)
GDT_LIMIT: Final = len(_DESCRIPTORS) - 1
MAGIC: Final = b"HdrS"
# The setup header of protocol 2.12 ends with handover_offset.
_HEADER_END: Final = 0x268


class Entry(NamedTuple):
    """Where the kernel starts and what RSI holds."""

    rip: int
    rsi: int


def load_linux(memory: memoryview, image: bytes, initrd: bytes, append: str) -> Entry:
    """Lay out a bzImage, its initrd and command line in guest memory; InputError when they do not fit."""
    if len(image) < _HEADER_END or image[0x202:0x206] != MAGIC:
        raise InputError("this is no Linux bzImage (no HdrS at 202H); give a vmlinuz")
    version, flags = struct.unpack_from("<H", image, 0x206)[0], struct.unpack_from("<H", image, 0x236)[0]
    if version < 0x20C or not flags & 1:
        raise InputError(f"boot protocol {version:#x} has no 64-bit entry; give a 64-bit kernel of 3.8 or newer")
    setup = (image[0x1F1] or 4) + 1
    kernel = image[setup * 512 :]
    preferred, needed = struct.unpack_from("<QI", image, 0x258)
    size = struct.unpack_from("<I", image, 0x1F4)[0] * 16
    if len(kernel) < size:
        raise InputError(f"the kernel is cut off: {len(kernel)} of {size} bytes; fetch it again")
    top = len(memory)
    start_of_initrd = (top - len(initrd)) & -4096
    if preferred + max(needed, len(kernel)) > start_of_initrd - 4096:
        raise InputError(f"{top >> 20} MiB is too little for this kernel and initrd; give more with --memory")
    command_line = append.encode()
    if len(command_line) > COMMAND_LINE_LIMIT:
        raise InputError(f"the command line has {len(command_line)} bytes; {COMMAND_LINE_LIMIT} fit")
    memory[preferred : preferred + len(kernel)] = kernel
    memory[start_of_initrd : start_of_initrd + len(initrd)] = initrd
    memory[COMMAND_LINE : COMMAND_LINE + len(command_line) + 1] = command_line + b"\0"
    parameters = bytearray(4096)
    header = image[0x1F1 : 0x202 + image[0x201]]
    parameters[0x1F1 : 0x1F1 + len(header)] = header
    parameters[0x210] = 0xFF  # a loader without an assigned number
    parameters[0x211] |= 0x80  # may use the heap
    struct.pack_into("<I", parameters, 0x228, COMMAND_LINE)
    if initrd:
        struct.pack_into("<II", parameters, 0x218, start_of_initrd, len(initrd))
    # e820: memory up to 9FC00H, then from 1 MiB to the top.
    ranges = ((0, 0x9FC00, 1), (0x9FC00, 0x60400, 2), (0x100000, top - 0x100000, 1))
    parameters[0x1E8] = len(ranges)
    for index, (start, length, kind) in enumerate(ranges):
        struct.pack_into("<QQI", parameters, 0x2D0 + 20 * index, start, length, kind)
    memory[BOOT_PARAMS : BOOT_PARAMS + 4096] = bytes(parameters)
    return Entry(preferred + 0x200, BOOT_PARAMS)


def identity_map(memory: memoryview) -> None:
    """Build page tables that map the first 4 GiB to themselves, in pages of 2 MiB, and flat descriptors."""
    tables = bytearray(6 * 4096)
    struct.pack_into("<Q", tables, 0, PAGE_TABLES + 4096 | 3)
    for directory in range(4):
        struct.pack_into("<Q", tables, 4096 + 8 * directory, PAGE_TABLES + 8192 + 4096 * directory | 3)
        for page in range(512):
            address = (directory << 30) + (page << 21)
            struct.pack_into("<Q", tables, 8192 + 4096 * directory + 8 * page, address | 0x83)
    memory[PAGE_TABLES : PAGE_TABLES + len(tables)] = bytes(tables)
    memory[GDT : GDT + len(_DESCRIPTORS)] = _DESCRIPTORS
