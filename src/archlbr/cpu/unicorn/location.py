"""Where an engine keeps its processor: the addresses of its CPUState and CPUX86State.

`supervisor` asks once an engine, before anything runs. Source: reference engine.md 3; the distance between the two
holds for the one pinned wheel and is checked each time.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any, Final

from unicorn import x86_const as x86

from archlbr.errors import InternalError

_HANDLE_BYTES: Final = 0x400
STATE_BYTES: Final = 0x10000
_STATE_AT: Final = 0x8A50  # from the CPUState to the CPUX86State, in the pinned wheel


# The engine's CPUX86State begins with the general registers: write values that occur nowhere else, and look for them
# behind what the engine's handle points at (reference engine.md 3).
def locate(engine: Any) -> tuple[int, int]:
    """Return where an engine's CPUState and CPUX86State lie; InternalError when they are not found."""
    sentinels = [0x51AB_7E00_0000_0001 + 0x0101_0101_0101 * index for index in range(8)]
    order = ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI")
    identities = [getattr(x86, f"UC_X86_REG_{name}") for name in order]

    def fill(values: list[int]) -> None:
        for identity, value in zip(identities, values, strict=True):
            engine.reg_write(identity, value)

    fill([0] * 8)  # the engine comes to life with the first access
    pattern = struct.pack("<8Q", *sentinels)
    writable = _writable_ranges()
    handle = ctypes.string_at(engine._uch.value, _HANDLE_BYTES)
    for (pointer,) in struct.iter_unpack("<Q", handle):
        room = next((end - pointer for start, end in writable if start <= pointer < end), 0)
        if not room:
            continue
        fill(sentinels)
        # Other structures that the handle points to may lie before the CPUState in the same window: the place decides.
        found = room >= _STATE_AT + len(pattern) and ctypes.string_at(pointer + _STATE_AT, len(pattern)) == pattern
        fill([0] * 8)
        # Memory that was given back may hold the same values; only the state itself follows the registers.
        if found and not any(ctypes.string_at(pointer + _STATE_AT, len(pattern))):
            return pointer, pointer + _STATE_AT
    raise InternalError("the engine's registers were not found in its memory; install the pinned Unicorn")


def _writable_ranges() -> list[tuple[int, int]]:
    # Neighbours are one range: what was allocated in one piece may lie in mappings that the kernel lists apart.
    ranges: list[tuple[int, int]] = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(word, 16) for word in span.split("-"))
                if ranges and ranges[-1][1] == start:
                    start = ranges.pop()[0]
                ranges.append((start, end))
    return ranges
