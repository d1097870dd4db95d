"""Small ring-0 programs on the board, written as hexadecimal text: where they lie, WRMSR, interrupt gates."""

from __future__ import annotations

import struct
from typing import Any

from archlbr.machine.board import Board
from archlbr.machine.models import MODELS

CODE, IDT = 0x200000, 0x210000
OUT_F4 = "e6f4"  # out 0f4h, al
LIDT = "0f011c25" + struct.pack("<I", IDT - 16).hex()
LVTPC_NMI = "b84003e0fe c70000040000"  # mov eax, 0fee00340h; mov dword [rax], 400h


def machine(code: str, model: str = "sapphire-rapids", **options: Any) -> tuple[Board, bytearray]:
    """Return a board that starts at some code, and its console."""
    console = bytearray()
    board = Board(MODELS[model], 64 << 20, console.append, **options)
    program = bytes.fromhex(code)
    board.memory[CODE : CODE + len(program)] = program
    board.start(CODE)
    return board, console


def wrmsr(msr: int, value: int) -> str:
    """Return code that writes a register."""
    low, high = struct.pack("<I", value & 0xFFFFFFFF), struct.pack("<I", value >> 32)
    return "b9" + struct.pack("<I", msr).hex() + "b8" + low.hex() + "ba" + high.hex() + "0f30"


def gate(board: Board, vector: int, code: str) -> int:
    """Let a vector's interrupt gate lead to some code; return where it stands."""
    handler = CODE + 0x1000 + 0x100 * vector
    board.memory[IDT - 16 : IDT - 6] = struct.pack("<HQ", 0xFFF, IDT)
    descriptor = struct.pack("<HHBBHII", handler & 0xFFFF, 0x10, 0, 0x8E, handler >> 16, 0, 0)
    board.memory[IDT + 16 * vector : IDT + 16 * (vector + 1)] = descriptor
    program = bytes.fromhex(code)
    board.memory[handler : handler + len(program)] = program
    return handler
