"""A guest that executes one XSAVE instruction on the board, and a real processor that executes the same one.

The guest is a few bytes of 64-bit or 32-bit code at CODE; a fault ends in a handler that keeps vector, error code and
RIP. The real processor is this one: a few bytes of code called in this process, where it has the instructions.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from pathlib import Path
from typing import Any, Final, NamedTuple

from unicorn import x86_const as x86

from archlbr.cpu.unicorn import fpu
from archlbr.machine import entry
from archlbr.machine.board import Board
from archlbr.machine.images import Start
from archlbr.machine.models import MODELS, without

CODE, IDT, HANDLERS, AREA, TABLES, SCRATCH = 0x200000, 0x210000, 0x211000, 0x220000, 0x230000, 0x240000
PAGED = 0x400000  # 512 pages of 4 KiB, whose table is at TABLES + 0x3000
ERROR_CODES = frozenset((8, 10, 11, 12, 13, 14, 17))
HLT = b"\xf4"
OSXSAVE = 1 << 18

XSS, CTL, DEPTH, LER_FROM, LER_TO, LER_INFO = 0xDA0, 0x14CE, 0x14CF, 0x1DD, 0x1DE, 0x1E0
LBR: Final = 0x8000
UD, NM, SS, GP, PF = 6, 7, 12, 13, 14
COMPACTED = 1 << 63
HEADER = 512

# The instructions on [rdi], without REX.W and with it.
SAVES: Final = {
    "xsave": b"\x0f\xae\x27",
    "xsaveopt": b"\x0f\xae\x37",
    "xsavec": b"\x0f\xc7\x27",
    "xsaves": b"\x0f\xc7\x2f",
}
RESTORES: Final = {"xrstor": b"\x0f\xae\x2f", "xrstors": b"\x0f\xc7\x1f"}
ALL: Final = {**SAVES, **RESTORES}


class Fault(NamedTuple):
    """An exception: its vector, the error code (0 where there is none), and how far into the code RIP was."""

    vector: int
    error: int
    at: int


def wide(code: bytes) -> bytes:
    """Return an instruction with REX.W."""
    return b"\x48" + code


def registers(**values: int) -> bytes:
    """Return MOVs of 32-bit values: eax, ecx, edx, edi, esi."""
    opcodes = {"eax": 0xB8, "ecx": 0xB9, "edx": 0xBA, "esi": 0xBE, "edi": 0xBF}
    return b"".join(bytes((opcodes[name],)) + struct.pack("<I", value) for name, value in values.items())


def xsetbv(value: int) -> bytes:
    """Return code that writes XCR0."""
    return registers(ecx=0, eax=value & 0xFFFFFFFF, edx=value >> 32) + b"\x0f\x01\xd1"


def wrmsr(msr: int, value: int) -> bytes:
    """Return code that writes a register."""
    return registers(ecx=msr, eax=value & 0xFFFFFFFF, edx=value >> 32) + b"\x0f\x30"


class Guest:
    """A board in ring 0 with handlers for all vectors; CR4.OSXSAVE is set unless osxsave=0."""

    def __init__(self, model: str = "sapphire-rapids", hidden: tuple[str, ...] = (), osxsave: int = 1) -> None:
        processor = MODELS[model]
        for feature in hidden:
            processor = without(processor, feature)
        self.board = Board(processor, 8 << 20, bytearray().append)
        self.uc: Any = self.board.uc
        for vector in range(32):
            at = HANDLERS + 32 * vector
            gate = struct.pack("<HHBBHII", at & 0xFFFF, 0x10, 0, 0x8E, at >> 16, 0, 0)
            self.put(IDT + 16 * vector, gate)
            # mov r15d, vector + 1; (pop r14;) pop r13; hlt
            pops = (b"\x41\x5e" if vector in ERROR_CODES else b"") + b"\x41\x5d"
            self.put(at, b"\x41\xbf" + struct.pack("<I", vector + 1) + pops + HLT)
        self.start()
        self.control("CR4", OSXSAVE * osxsave)

    @classmethod
    def of(cls, board: Board) -> Guest:
        """Return the guest on a board that such a guest has left."""
        guest = cls.__new__(cls)
        guest.board, guest.uc = board, board.uc
        return guest

    def start(self, bits: int = 64) -> None:
        """Enter the code: 64-bit, or 32-bit without paging."""
        entry.enter(self.uc, self.board.engine.env, self.board.memory, Start(CODE, bits=bits))
        self.uc.reg_write(x86.UC_X86_REG_IDTR, (0, IDT, 16 * 32 - 1, 0))

    def control(self, name: str, bits: int) -> None:
        """Set bits of a control register."""
        number = getattr(x86, f"UC_X86_REG_{name}")
        self.uc.reg_write(number, self.uc.reg_read(number) | bits)

    def put(self, at: int, content: bytes) -> None:
        """Write memory."""
        self.board.memory[at : at + len(content)] = content

    def get(self, at: int, size: int) -> bytes:
        """Read memory."""
        return bytes(self.board.memory[at : at + size])

    def set_state(self, image: bytes) -> None:
        """Load x87 and SSE state, 512 bytes, through the engine's doors."""
        fpu.write(self.uc, image)

    @property
    def state(self) -> bytes:
        """x87 and SSE state, by the engine's doors."""
        return fpu.read(self.uc)

    def run(self, code: bytes) -> Fault | None:
        """Execute code from CODE to a HLT; return the fault that it met."""
        self.begin(code)
        if self.board.run(self.board.now() + 1_000_000) != 0:
            raise AssertionError(f"the guest did not halt: {self.board.cause}")
        vector = self.register("R15")
        return Fault(vector - 1, self.register("R14"), self.register("R13") - CODE) if vector else None

    def begin(self, code: bytes) -> None:
        """Point the processor at code, with a HLT behind it."""
        self.put(CODE, code + HLT)
        self.uc.ctl_remove_cache(CODE, CODE + 4096)
        self.uc.reg_write(x86.UC_X86_REG_RIP, CODE)
        self.uc.reg_write(x86.UC_X86_REG_RSP, 0x1FF000)
        for name in ("R13", "R14", "R15"):
            self.uc.reg_write(getattr(x86, f"UC_X86_REG_{name}"), 0)
        self.board.status, self.board.halted = None, 0

    def run_in_ring_3(self, code: bytes) -> Fault | None:
        """Execute code in ring 3, as far into it as it comes: its last instruction is a HLT, which faults there.

        `page` has been called; the fault's place counts from the code's start.
        """
        user, tss, frame = CODE + 0x800, SCRATCH + 0x100, SCRATCH + 0x800
        flat = (0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF)
        task = 0x0000890000000067 | (tss & 0xFFFFFF) << 16
        self.put(SCRATCH, struct.pack("<8Q", *flat, task, 0))
        self.put(tss, struct.pack("<IQ", 0, 0x1FE000).ljust(104, b"\0"))
        self.put(frame, struct.pack("<5Q", user, 0x2B, 2, 0x1FD000, 0x23))
        self.put(user, code + HLT)
        self.uc.reg_write(x86.UC_X86_REG_GDTR, (0, SCRATCH, 63, 0))
        # ltr ax; mov rsp, frame; iretq
        met = self.run(registers(eax=0x30) + b"\x0f\x00\xd8\x48\xc7\xc4" + struct.pack("<I", frame) + b"\x48\xcf")
        return None if met is None else met._replace(at=met.at + CODE - user)

    def register(self, name: str) -> int:
        """Return a general or control register."""
        return int(self.uc.reg_read(getattr(x86, f"UC_X86_REG_{name}")))

    def page(self, pages: dict[int, int]) -> None:
        """Turn PAGED's 2 MiB into pages of 4 KiB, open to all but for those given: their low bits."""
        level2 = TABLES + 0x2000
        self.put(TABLES, struct.pack("<Q", TABLES + 0x1007))
        self.put(TABLES + 0x1000, struct.pack("<Q", level2 + 7))
        self.put(level2, struct.pack("<3Q", 0x87, 0x200087, TABLES + 0x3007))
        for number in range(512):
            self.put(TABLES + 0x3000 + 8 * number, struct.pack("<Q", PAGED + 4096 * number | pages.get(number, 7)))
        self.uc.reg_write(x86.UC_X86_REG_CR3, TABLES)
        self.control("CR0", 1 << 16)  # WP


def has(*flags: str) -> bool:
    """Say whether this processor has features, by their names in /proc/cpuinfo."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(flags) <= set(line.split())
    return False


class Native:
    """This processor: loads x87 and SSE state, executes one instruction, and has its own state back afterwards."""

    def __init__(self) -> None:
        self._code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._memory = mmap.mmap(-1, 16384)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._entry = ctypes.addressof(ctypes.c_char.from_buffer(self._code))

    def run(self, instruction: bytes, state: bytes, area: bytes, rfbm: int) -> tuple[bytes, bytes]:
        """Return the area after an instruction on [rdi], and x87 and SSE state as FXSAVE64 has it, 512 bytes.

        What of the state is initial is initialised, for a processor tracks how it came to be, not what it is.
        """
        own, given, after, here = 0, 1024, 2048, 4096
        x87 = state[:24] != b"\x7f\x03".ljust(24, b"\0") or any(state[32:160])
        used = x87 | any(state[160:416]) << 1
        self._memory[given : given + 576] = state + struct.pack("<Q56x", used)
        self._memory[here : here + len(area)] = area
        base = self._base
        code = b"".join((
            b"\x48\xbf" + struct.pack("<Q", base + own) + b"\x48\x0f\xae\x07",  # mov rdi, ..; fxsave64 [rdi]
            b"\x48\xbf" + struct.pack("<Q", base + given) + registers(eax=3, edx=0) + wide(RESTORES["xrstor"]),
            b"\x48\xbf" + struct.pack("<Q", base + here) + registers(eax=rfbm, edx=0) + wide(instruction),
            b"\x48\xbf" + struct.pack("<Q", base + after) + b"\x48\x0f\xae\x07",
            b"\x48\xbf" + struct.pack("<Q", base + own) + b"\x48\x0f\xae\x0f\xc3",
        ))  # fmt: skip
        self._code[: len(code)] = code
        ctypes.CFUNCTYPE(None)(self._entry)()
        return bytes(self._memory[here : here + len(area)]), bytes(self._memory[after : after + 512])


# Areas, and the state that goes into them ---------------------------------------------------------------------------

SPANS = {"control": (0, 24), "mxcsr": (24, 32), "stack": (32, 160), "vectors": (160, 416)}
FULL = ("control", "mxcsr", "stack", "vectors")


def state(fcw: int = 0x37F, fsw: int = 0, ftw: int = 0, mxcsr: int = 0x1F80, **values: int) -> bytes:
    """Return x87 and SSE state as FXSAVE64 lays it out: initial, but for what is given; st0 to st7, xmm0 to xmm15."""
    image = bytearray(512)
    struct.pack_into("<HHB", image, 0, fcw, fsw, ftw)
    struct.pack_into("<II", image, 24, mxcsr, 0xFFFF)
    for name, value in values.items():
        number = int(name.lstrip("stxm"))
        at, size = (32 + 16 * number, 10) if name.startswith("st") else (160 + 16 * number, 16)
        image[at : at + size] = value.to_bytes(size, "little")
    return bytes(image)


STATES = {
    "initial": state(),
    "used": state(fcw=0x27F, fsw=0x3000, ftw=0xC0, mxcsr=0x1FA0, st0=0x4000C90FDAA22168C235, xmm0=7, xmm15=1 << 127),
    "one control word": state(fcw=0x27F),
    "one vector": state(xmm9=1),
    "mxcsr": state(mxcsr=0x1F82),
}


def written(image: bytes, before: bytes, spans: tuple[str, ...], bitmap: int, compacted: int) -> bytes:
    area = bytearray(before)
    for start, end in (SPANS[name] for name in spans):
        area[start:end] = image[start:end]
    struct.pack_into("<Q", area, HEADER, bitmap)
    if compacted:
        struct.pack_into("<Q", area, HEADER + 8, compacted)
    return bytes(area)


BEFORE = b"\xaa" * 512 + bytes(64) + b"\xaa" * 824


def header(bitmap: int, compacted: int, **bytes_at: int) -> bytes:
    raw = bytearray(struct.pack("<QQ48x", bitmap, compacted))
    for name, value in bytes_at.items():
        raw[int(name[1:])] = value
    return bytes(raw)


def prepared() -> Guest:
    """Return a guest with XCR0 = 3."""
    guest = Guest()
    assert guest.run(xsetbv(3)) is None
    return guest


def emptied(guest: Guest) -> Guest:
    """Return it with XSS[15] set, initial state, nothing in its LBRs, and an area that nothing was written to."""
    guest.set_state(STATES["initial"])
    assert guest.run(wrmsr(XSS, LBR) + wrmsr(DEPTH, 32) + wrmsr(CTL, 0)) is None
    assert guest.run(wrmsr(LER_FROM, 0) + wrmsr(LER_TO, 0) + wrmsr(LER_INFO, 0)) is None
    guest.put(AREA, BEFORE)
    return guest


def saving(guest: Guest, name: str, rfbm: int, area: int = AREA) -> Fault | None:
    return guest.run(registers(edi=area, eax=rfbm & 0xFFFFFFFF, edx=rfbm >> 32) + wide(ALL[name]))
