"""The I/O ports: which device answers which.

`machine.board` routes IN and OUT here. A port nobody claims reads as all ones and takes what is written, as an empty
bus does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Read = Callable[[int], int]
    Write = Callable[[int, int], None]


class Ports:
    """Ports by number, each with a reader and a writer of one byte."""

    def __init__(self) -> None:
        self._readers: dict[int, Read] = {}
        self._writers: dict[int, Write] = {}

    def claim(self, ports: Iterable[int], read: Read, write: Write) -> None:
        """Let a device answer some ports."""
        for port in ports:
            self._readers[port] = read
            self._writers[port] = write

    def read(self, port: int, size: int) -> int:
        """Return what IN reads: `size` bytes from neighbouring ports, low byte first."""
        value = 0
        for index in range(size):
            reader = self._readers.get(port + index)
            value |= (reader(port + index) & 0xFF if reader else 0xFF) << 8 * index
        return value

    def write(self, port: int, size: int, value: int) -> None:
        """Do what OUT does."""
        for index in range(size):
            writer = self._writers.get(port + index)
            if writer:
                writer(port + index, value >> 8 * index & 0xFF)
