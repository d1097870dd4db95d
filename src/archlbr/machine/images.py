"""Putting a kernel of any kind into memory, and saying in which state the processor enters it.

`machine.board` gives the memory. A Linux bzImage is `boot`'s; an ELF file with a multiboot header starts in 32-bit
protected mode, as kvm-unit-tests builds its images; any other x86-64 ELF file starts in long mode. Sources: Multiboot
Specification 0.6.96, 3.1 to 3.3; System V ABI, "Program Loading"; what QEMU's loader hands over, hw/i386/multiboot.c.
"""

from __future__ import annotations

import io
import struct
from typing import Any, Final, NamedTuple

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from archlbr.errors import InputError
from archlbr.machine import boot

PAGE: Final = 4096
HEADER_MAGIC: Final = 0x1BADB002
LOADER_MAGIC: Final = 0x2BADB002
SEARCHED: Final = 8192  # the header lies in the first 8 KiB
_PAGE_ALIGN, _NEEDS_MEMORY, _ADDRESSES = 1, 2, 1 << 16
_UNDERSTOOD: Final = _PAGE_ALIGN | _NEEDS_MEMORY
_ELF: Final = b"\x7fELF"
# What pyelftools raises of a damaged file: it trusts the sizes it reads, and checks with assert.
_DAMAGED: Final = (
    ELFError, ConstructError, ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, TypeError,
    ValueError, struct.error,
)  # fmt: skip
_MACHINES: Final = {
    "EM_ARM": "32-bit Arm", "EM_AARCH64": "AArch64", "EM_RISCV": "RISC-V", "EM_PPC64": "PowerPC64", "EM_S390": "s390",
}  # fmt: skip
# Below 1 MiB, out of the way of what images put into page 0: the information structure and its strings, the memory map.
INFORMATION: Final = 0x9500
_MEMORY_MAP: Final = 0x9600
_MODULE: Final = 0x9700
_LOADER_NAME: Final = 0x9780
_STRINGS: Final = 0x9800
_STRINGS_END: Final = 0x10000
_LOW_TOP: Final = 0x9FC00
_MIB: Final = 1 << 20


class Start(NamedTuple):
    """The processor as it enters an image: 64-bit with the first 4 GiB mapped, or 32-bit without paging."""

    rip: int
    bits: int = 64
    rax: int = 0
    rbx: int = 0
    rsi: int = 0


def load(memory: memoryview, image: bytes, name: str, initrd: bytes, append: str) -> Start:
    """Lay out an image, its initrd (a module, under multiboot) and its command line; InputError when it cannot be.

    name: what the image is called, the first word of a multiboot command line.
    """
    if image[:4] != _ELF:
        if is_linux(image):
            entry = boot.load_linux(memory, image, initrd, append)
            return Start(entry.rip, rsi=entry.rsi)
        raise InputError(
            f"{name} is no kernel: neither a Linux bzImage (HdrS at 202H) nor an ELF file; "
            "give a vmlinuz, a multiboot image or an x86-64 ELF file"
        )
    entry_point, end = _load_elf(memory, image, name)
    flags = header_flags(image, name)
    if flags is None:
        if initrd or append:
            raise InputError(
                f"{name} has no multiboot header, so it takes no initrd and no command line: leave them out"
            )
        return Start(entry_point)
    _put_information(memory, end, initrd, f"{name} {append}".rstrip().encode())
    return Start(entry_point, bits=32, rax=LOADER_MAGIC, rbx=INFORMATION)


def is_linux(image: bytes) -> bool:
    """Say whether an image is a Linux bzImage."""
    return image[0x202:0x206] == boot.MAGIC


def header_flags(image: bytes, name: str) -> int | None:
    """Return the multiboot header's flags, None without one; InputError for one that asks for what is not here."""
    searched = image[:SEARCHED]
    for at in range(0, len(searched) - 11, 4):
        magic, flags, check = struct.unpack_from("<III", searched, at)
        if magic == HEADER_MAGIC and (magic + flags + check) & 0xFFFFFFFF == 0:
            if flags & 0xFFFF & ~_UNDERSTOOD or flags & _ADDRESSES:
                raise InputError(
                    f"{name} asks for multiboot flags {flags:#x}, of which {_UNDERSTOOD:#x} are offered; "
                    "link it as an ELF file that needs no video mode"
                )
            return int(flags)
    return None


# Where the image starts, and the first page after it. Sizes come from the file: nothing is trusted.
def _load_elf(memory: memoryview, image: bytes, name: str) -> tuple[int, int]:
    try:
        file: Any = ELFFile(io.BytesIO(image))  # pyelftools has no types
        machine, kind, entry = file["e_machine"], file["e_type"], int(file["e_entry"])
        segments = [dict(segment.header.items()) for segment in file.iter_segments("PT_LOAD")]
    except _DAMAGED as error:
        raise InputError(f"{name} is a damaged ELF file: {error}; build or fetch it again") from error
    if machine not in ("EM_386", "EM_X86_64"):
        label = _MACHINES.get(machine, f"machine {machine}")
        raise InputError(f"{name} is an image for {label}; give one built for x86")
    if kind != "ET_EXEC":
        raise InputError(f"{name} is an ELF file of type {kind}, not an image with fixed addresses; link it first")
    if machine == "EM_386" and header_flags(image, name) is None:
        raise InputError(f"{name} is a 32-bit ELF file without a multiboot header; give it one, or build it for x86-64")
    end = 0
    start = entry
    for segment in segments:
        offset, size, place, taken = (int(segment[key]) for key in ("p_offset", "p_filesz", "p_paddr", "p_memsz"))
        if offset + size > len(image) or size > taken:
            raise InputError(f"{name} is cut off: {len(image)} of {offset + size} bytes; build or fetch it again")
        if place + taken > len(memory):
            raise InputError(f"{name} needs {place + taken:#x} bytes of memory; give more with --memory")
        memory[place : place + size] = image[offset : offset + size]
        memory[place + size : place + taken] = bytes(taken - size)
        end = max(end, place + taken)
        virtual = int(segment["p_vaddr"])
        if virtual <= entry < virtual + taken:
            start = entry - virtual + place
    if not end:
        raise InputError(f"{name} has nothing to load; build or fetch it again")
    return start, -(-end // PAGE) * PAGE


def _put_information(memory: memoryview, end: int, initrd: bytes, command_line: bytes) -> None:
    if len(command_line) >= _STRINGS_END - _STRINGS:
        raise InputError(f"the command line has {len(command_line)} bytes; {_STRINGS_END - _STRINGS - 1} fit")
    top = len(memory)
    if end + len(initrd) > top:
        raise InputError(f"{top >> 20} MiB is too little for this image and initrd; give more with --memory")
    memory[end : end + len(initrd)] = initrd
    # Memory, boot device, command line, modules, memory map, the loader's name (3.3).
    flags = 1 | 2 | 4 | 8 | 1 << 6 | 1 << 9
    ranges = ((0, _LOW_TOP, 1), (_LOW_TOP, _MIB - _LOW_TOP, 2), (_MIB, top - _MIB, 1))
    table = b"".join(struct.pack("<IQQI", 20, *line) for line in ranges)
    information = bytearray(88)
    struct.pack_into("<IIII", information, 0, flags, 639, (top - _MIB) >> 10, 0x8000FFFF)
    struct.pack_into("<III", information, 16, _STRINGS, int(bool(initrd)), _MODULE)
    struct.pack_into("<II", information, 44, len(table), _MEMORY_MAP)
    struct.pack_into("<I", information, 64, _LOADER_NAME)
    for place, content in (
        (INFORMATION, bytes(information)),
        (_MEMORY_MAP, table),
        (_MODULE, struct.pack("<IIII", end, end + len(initrd), 0, 0)),
        (_LOADER_NAME, b"archlbr\0"),
        (_STRINGS, command_line + b"\0"),
    ):
        memory[place : place + len(content)] = content
