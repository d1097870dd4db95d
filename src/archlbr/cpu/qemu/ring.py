"""A process's ring as its reader sees it: the blocks that are described, and each thread's circle of words.

`cpu.qemu.stream` says what the words mean; the plugin's C files, and what Stalker is told to add, write them.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

import numpy as np
import numpy.typing as npt

from archlbr.cpu.qemu.stream import (
    BEGUN_BYTES,
    BLOCK_BYTES,
    BLOCKS,
    CHUNK,
    FIRST_CHUNKS,
    RING_BYTES,
    STREAM_BYTES,
    STREAMS_AT,
    WORDS,
)

# Where counting.c keeps what in a stream's first page, in words of 32 bits.
_SUM_AT: Final = 16
_SKIPPED_AT: Final = 26
_COUNTS_AT: Final = 27
_LEFT_AT: Final = 32
_LOWER: Final = 48  # of `sum`: instructions


class Ring:
    """A process's ring, mapped here too; the file is removed at once, unless somebody else is still to open it.

    longer: the first thread has the circle of FIRST_CHUNKS that it has under QEMU.
    """

    def __init__(self, folder: str, pid: int, generation: int, keep: bool = False, longer: bool = False) -> None:
        path = os.path.join(folder, f"ring.{pid}.{generation}")
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(fd, RING_BYTES + longer * (4096 + 4 * FIRST_CHUNKS * CHUNK))
        finally:
            os.close(fd)
        if not keep:
            os.unlink(path)
        self._longer = longer
        self._header = np.frombuffer(self._map, np.uint32, 1024)
        self.blocks = np.frombuffer(self._map, np.uint8, BLOCK_BYTES * BLOCKS, 4096)

    def word(self, index: int) -> int:
        """Return a word of the first page."""
        return int(self._header[index])

    def address(self, index: int) -> int:
        """Return where a word of the first page lies here."""
        return int(self._header.ctypes.data) + 4 * index

    def control(self, processor: int, index: int) -> int:
        """Return a word of the first page of a thread's stream."""
        return int(self._control(processor)[index])

    def known(self) -> int:
        """Return the number of the last block described."""
        return int(self._header[0])

    def words(self, processor: int) -> npt.NDArray[np.uint32]:
        """Return the circle of words of a thread."""
        return np.frombuffer(self._map, np.uint32, self.circle(processor), self._place(processor) + 4096)

    def circle(self, processor: int) -> int:
        """Return how many words a thread's circle has."""
        return FIRST_CHUNKS * CHUNK if self._longer and processor == 0 else WORDS

    def written(self, processor: int) -> int:
        """Return how many words a thread has written, as far as can be seen now."""
        control = self._control(processor)
        laps = before = -1
        next_ = 0
        while laps != before or laps < 0:
            before, next_, laps = int(control[1]), int(control[0]), int(control[1])
        return laps * self.circle(processor) + next_

    def consume(self, processor: int, chunks: int) -> int:
        """Let the writer use the chunks before this one again; return the address that it may wait at."""
        control = self._control(processor)
        control[2] = np.uint32(chunks & 0xFFFFFFFF)
        return int(control.ctypes.data) + 8

    def answer(self, processor: int, number: int, left: int) -> None:
        """Answer a thread's question: how many taken branches there were to the next sample, as of where it asked."""
        control = self._control(processor)
        control[_LEFT_AT : _LEFT_AT + 2].view(np.int64)[0] = left
        control[_LEFT_AT + 2] = number

    def counted(self, processor: int) -> tuple[int, int]:
        """Return the taken branches and the instructions that a thread has counted and not written, when it ended."""
        control = self._control(processor)
        if not control[_COUNTS_AT]:
            return 0, 0
        total, running = (int(word) for word in control[_SUM_AT : _SUM_AT + 4].view(np.uint64))
        begun = int(self._header[2:4].view(np.uint64)[0])
        block = self.blocks[(running - begun) // BEGUN_BYTES * BLOCK_BYTES :]
        taken = (total >> _LOWER) - ((1 << 64 - _LOWER) - int(control[_SKIPPED_AT]))
        return taken, (total & ((1 << _LOWER) - 1)) - int(block[24:28].view(np.uint32)[0])

    def _place(self, processor: int) -> int:
        if self._longer and processor == 0:
            return RING_BYTES  # behind all others
        return STREAMS_AT + processor * STREAM_BYTES

    def _control(self, processor: int) -> npt.NDArray[np.uint32]:
        return np.frombuffer(self._map, np.uint32, 1024, self._place(processor))
