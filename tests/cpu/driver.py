"""Compiled code on bytes of our own: memory that holds guest code, and the words the hooks share."""

from __future__ import annotations

import numpy as np
from numba import njit

from archlbr.cpu import words as at
from archlbr.cpu.decode import Decoder
from archlbr.cpu.predictor import predict_direction, predict_target, spread
from archlbr.cpu.unicorn.blocks import advance

U = np.uint64
COND = 1


class Code:
    """Guest code at an address of this process, and words with a decoder installed. The memory ends in 16 NOPs."""

    def __init__(self, code: bytes) -> None:
        self._bytes = np.frombuffer(bytearray(code + b"\x90" * 16), np.uint8)
        self.address = int(self._bytes.ctypes.data)
        self.words = np.zeros(at.WORDS, U)
        self._decoder = Decoder()
        self._decoder.install(self.words)

    def decode_as(self, size: int) -> None:
        """Take the code for 64-, 32- or 16-bit code from now on."""
        self.words[at.DISASM_HANDLE] = self._decoder.handles[(64, 32, 16).index(size)]

    def poke(self, offset: int, code: bytes) -> None:
        self._bytes[offset : offset + len(code)] = np.frombuffer(code, np.uint8)

    def __getitem__(self, name: int) -> int:
        return int(self.words[name])

    def entry(self, slot: int) -> tuple[int, int, int, int]:
        """Return key, end and last as offsets into the code, and the meta word."""
        key, end, last, meta = (int(word) for word in self.words[slot : slot + at.ENTRY])
        return key - self.address, end - self.address, last - self.address, meta

    def advance(self, offset: int, size: int) -> int:
        return int(enter(self.words, U(self.address + offset), U(size)))


@njit(error_model="numpy")
def enter(words, address, size):
    return advance(words, address, size)


@njit(error_model="numpy")
def resolve(words, kinds, sources, targets, successors, taken, verdicts):
    """Feed the compiled predictor a stream of branches; the verdicts come out."""
    for index in range(len(kinds)):
        place = spread(sources[index])
        if kinds[index] == COND:
            verdicts[index] = predict_direction(words, place, taken[index])
        else:
            verdicts[index] = predict_target(words, kinds[index], place, targets[index], successors[index])
