"""The smallest ELF images a board can be given, and damaged ones."""

from __future__ import annotations

import struct

MIB = 1 << 20


def elf(machine: int = 62, kind: int = 2, bits: int = 2, place: int = MIB, size: int = 16, taken: int = 16) -> bytes:
    """An ELF file of one segment of INT3."""
    if bits == 2:
        head = struct.pack("<4s5B7xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 0, kind, machine, 1, place, 64, 0, 0, 64, 56,
                           1, 0, 0, 0)  # fmt: skip
        return head + struct.pack("<IIQQQQQQ", 1, 5, 120, place, place, size, taken, 16) + b"\xcc" * 16
    head = struct.pack("<4s5B7xHHIIIIIHHHHHH", b"\x7fELF", 1, 1, 1, 0, 0, kind, machine, 1, place, 52, 0, 0, 52, 32, 1,
                       0, 0, 0)  # fmt: skip
    return head + struct.pack("<8I", 1, 84, place, place, size, taken, 5, 16) + b"\xcc" * 16
