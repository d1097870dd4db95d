"""Random code and random register traffic for the machine: `python -m tests.machine.fuzz STEPS SEED`.

Each round is a board with random bytes and random privileged instructions; an exception goes on at another place, told
by the model's clock. A round runs in a child process, so that a crash of the engine is found and named by its seed.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import sys
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from unicorn import x86_const as x86

from archlbr.cpu import words as at
from archlbr.machine.board import Board
from archlbr.machine.models import MODELS, without

if TYPE_CHECKING:
    from archlbr.machine.models import Model

CODE, SIZE = 0x200000, 1 << 16
_PAE, _OSXSAVE = 1 << 5, 1 << 18
IDT, STUB, STACK = 0x1000, 0x3000, 0x300000
ROUND = 20_000  # instructions
PATIENCE = 60  # seconds a round may take
MSRS = (
    0x10, 0x1B, 0x3A, 0x40, 0x60, 0x8B, 0x9E, 0xC1, 0xC8, 0x14CE, 0x14CF, 0x1500, 0x151F, 0x1520, 0x1600, 0x161F,
    0x1200, 0x121F,
    0x174, 0x175, 0x176, 0x186, 0x18D, 0x1A0, 0x1C8, 0x1C9, 0x1D9, 0x1DD, 0x1DE, 0x1E0, 0x277, 0x309, 0x30C,
    0x329, 0x345, 0x38D, 0x38E, 0x38F, 0x390, 0x391, 0x3F1, 0x4C1, 0x4C8, 0x600, 0x680, 0x6C0, 0x6E0, 0x802, 0xDA0,
    0xDC0, 0x40000000, 0xC0000080, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102,
    0xC0000103, 0xFFFFFFFF,
)  # fmt: skip
VALUES = (0, 1, 3, 0x7F0007, 0x7F000F, 8, 16, 32, 0x5300C0, 0x5220C4, 1 << 58, (1 << 48) - 5, 1 << 63, (1 << 64) - 1)
# RDPMC, CPUID, RDTSC, SYSCALL, SYSRET, IRETQ, HLT, INT 2, INT 3, INT 8, INT 80H, LIDT, CLI, STI, SWAPGS, WBINVD,
# XSAVES, XRSTORS, XSAVE, XRSTOR, XSAVEC, XSAVEOPT, XSAVES [rdi + 40H], XGETBV, XSETBV, FXSAVE, FXRSTOR, VMCALL,
# XBEGIN +0, RSM, MOV to CR3, CR4 and CR0, MOV from CR8, INVLPG, LTR, far RET, REP MOVSB, IN and OUT.
PRIVILEGED = [
    bytes.fromhex(code)
    for code in (
        "0f33", "0fa2", "0f31", "0f05", "480f07", "48cf", "f4", "cd02", "cc", "cd08", "cd80", "0f0118", "fa", "fb",
        "0f01f8", "0f09", "480fc72f", "480fc71f", "480fae27", "480fae2f", "480fc727",
        "0fae37", "0fc76f40", "0f01d0", "0f01d1", "480fae07", "480fae0f",
        "0f01c1", "c7f800000000", "0faa", "0f22d8", "0f22e0", "0f22c0", "440f20c0", "0f0138", "0f00d8", "cb", "f3a4",
        "ec", "ee",
    )
]  # fmt: skip


class Round(NamedTuple):
    """How a round ended: instructions, register accesses, and in which way."""

    instructions: int
    accesses: int
    end: str


def piece(chance: random.Random) -> bytes:
    """Return a few bytes of code: random ones, or a privileged instruction with registers that mean something."""
    kind = chance.random()
    if kind < 0.5:
        return chance.randbytes(chance.randrange(1, 12))
    if kind < 0.75:
        value = chance.choice(VALUES) if chance.random() < 0.7 else chance.getrandbits(64)
        msr = chance.choice(MSRS) if chance.random() < 0.8 else chance.getrandbits(32)
        load = b"\xb9" + struct.pack("<I", msr) + b"\xb8" + struct.pack("<I", value & 0xFFFFFFFF)
        load += b"\xba" + struct.pack("<I", value >> 32)
        return load + chance.choice((b"\x0f\x30", b"\x0f\x30", b"\x0f\x32"))
    load = b"\xb8" + struct.pack("<I", chance.choice((0, 0x20, 0x70000, 0x80000011, chance.getrandbits(32))))
    return load + b"\xbf" + struct.pack("<I", CODE + 64 * chance.randrange(2048)) + chance.choice(PRIVILEGED)


def code(chance: random.Random) -> bytes:
    """Return SIZE bytes of code."""
    out = bytearray()
    while len(out) < SIZE:
        out += piece(chance)
    return bytes(out[:SIZE])


# Where every exception leads: mov esp, STACK; rdtsc; imul eax, eax, 9E3779B1H; shr eax, 16; add eax, CODE; jmp rax
RESUME = bytes.fromhex("bc00003000 0f31 69c0b179379e c1e810 0500002000 ffe0")


def play(seed: int, model: Model) -> Round:
    """Run one round."""
    chance = random.Random(seed)
    board = Board(model, 64 << 20, lambda _byte: None)
    accesses = Counter[str]()
    for name in ("rdmsr", "wrmsr"):
        asked = getattr(board.vcpu, name)
        setattr(board.vcpu, name, lambda *given, asked=asked, name=name: (accesses.update((name,)), asked(*given))[1])
    board.memory[CODE : CODE + SIZE] = code(chance)
    board.memory[STUB : STUB + len(RESUME)] = RESUME
    for vector in range(256):
        gate = struct.pack("<HHBBHII", STUB & 0xFFFF, 0x10, 0, 0x8E, STUB >> 16, 0, 0)
        board.memory[IDT + 16 * vector : IDT + 16 * vector + 16] = gate
    board.memory[0x500:0x50A] = struct.pack("<HQ", 4095, IDT)
    start = bytes.fromhex("0f011c2500050000") + RESUME  # lidt [500h]
    board.memory[0x4000 : 0x4000 + len(start)] = start
    board.start(0x4000)
    if chance.random() < 0.5:
        board.uc.reg_write(x86.UC_X86_REG_CR4, _PAE | _OSXSAVE)
    status = board.run(ROUND)
    end = "went on" if status is None else board.cause.split(" at ")[0] or "ended"
    return Round(int(board.words[at.RETIRED]), sum(accesses.values()), end)


def models() -> tuple[Model, ...]:
    """Return the processors that take turns."""
    plain = tuple(MODELS.values())
    return (*plain, without(plain[0], "arch-lbr"), without(plain[0], "pmu"))


def apart(seed: int) -> Round | str:
    """Run one round in a child; its result, or what killed it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(PATIENCE)
        ended = play(seed, models()[seed % 4])
        os.write(writer, f"{ended.instructions} {ended.accesses} {ended.end}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read().split(" ", 2)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == -signal.SIGALRM:
        return "never left the engine"
    return Round(int(told[0]), int(told[1]), told[2]) if code == 0 else f"exit {code}"


def main(steps: int, seed: int) -> int:
    """Play rounds until so many instructions have run; 1 when one of them died."""
    done = accesses = 0
    ends, dead = Counter[str](), []
    while done < steps:
        ended = apart(seed)
        if isinstance(ended, str):
            ends[ended] += 1
            dead.append(seed)
        else:
            done, accesses = done + ended.instructions, accesses + ended.accesses
            ends[ended.end] += 1
        seed += 1
    print(f"{done} instructions, {accesses} register accesses, {sum(ends.values())} rounds: {dict(ends)}")
    if dead:
        print(f"seeds that died: {dead}")
    return int(bool(dead))


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]), int(sys.argv[2])))
