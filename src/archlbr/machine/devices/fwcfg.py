"""QEMU's firmware configuration: a selector at port 510H, data byte by byte at 511H.

Bare-metal test images ask it how many processors and how much memory there is. The board claims its ports. Source:
docs/specs/fw_cfg.rst of QEMU; entries that are not here read as zeros.
"""

from __future__ import annotations

import struct
from typing import Final

_SELECTOR, _DATA = 0x510, 0x511
_SIGNATURE, _ID, _RAM_SIZE, _NB_CPUS, _MAX_CPUS = 0, 1, 3, 5, 0xF


class FirmwareConfiguration:
    """The entries of a machine of one processor with `memory` bytes."""

    PORTS: Final = (_SELECTOR, _DATA)
    STATE: Final = ("_selected", "_offset")

    def __init__(self, memory: int) -> None:
        self._entries = {
            _SIGNATURE: b"QEMU",
            _ID: struct.pack("<I", 1),  # the two ports, no DMA
            _RAM_SIZE: struct.pack("<Q", memory),
            _NB_CPUS: struct.pack("<H", 1),
            _MAX_CPUS: struct.pack("<H", 1),
        }
        self._selected = self._offset = 0

    def read(self, port: int) -> int:
        """Answer IN: the selected entry's next byte."""
        if port != _DATA:
            return self._selected & 0xFF
        entry = self._entries.get(self._selected, b"")
        self._offset += 1
        return entry[self._offset - 1] if self._offset <= len(entry) else 0

    def write(self, port: int, value: int) -> None:
        """Answer OUT: a word at the selector arrives as two bytes, the upper one at the data port's number."""
        if port == _SELECTOR:
            self._selected = value
        else:
            self._selected = self._selected & 0xFF | value << 8
        self._offset = 0
