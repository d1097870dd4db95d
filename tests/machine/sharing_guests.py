"""Bare-metal guests that share a processor: each has code addresses of its own and keeps what it reads of its LBRs.

Assembled here by hand. A guest leaves every FROM that it reads in its memory, at READ; what stands there is looked at
by address, so that no code of ours says whose a record is.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from unicorn import x86_const as x86

from archlbr.machine.board import Board
from archlbr.machine.hostcode import HOST, HostCode
from archlbr.machine.models import SAPPHIRE_RAPIDS
from archlbr.machine.pcpu import Pcpu, Timing
from archlbr.machine.shared_vcpu import SharedVcpu

if TYPE_CHECKING:
    import random

    from archlbr.machine.models import Model
    from archlbr.perf.events import Opened
    from archlbr.vpmu.designs.hypervisors import Hypervisor

DEPTH = 32
_OSXSAVE = 1 << 18
READ = 0x1000000
MEMORY = 64 << 20
_IDT, _HANDLER = 0x180000, 0xFF000
# call leaf; dec esi; jnz back to the call; jmp over leaf; leaf: ret
_LOOP = bytes.fromhex("e806000000 ffce 75f7 eb01 c3")
_END = bytes.fromhex("b000 e6f4 ebfe")  # mov al, 0; out 0f4h, al
_KEEP = bytes.fromhex("0f32 48c1e220 4809d0 488907 4883c708")  # rdmsr; join EDX and EAX; mov [rdi], rax; add rdi, 8


def base(number: int) -> int:
    """Return where a guest's code lies."""
    return 0x200000 + 0x100000 * number


def wrmsr(msr: int, value: int) -> bytes:
    """Return WRMSR of a value."""
    low, high = struct.pack("<I", value & 0xFFFFFFFF), struct.pack("<I", value >> 32)
    return b"\xb9" + struct.pack("<I", msr) + b"\xb8" + low + b"\xba" + high + b"\x0f\x30"


def _on(model: Model) -> bytes:
    return wrmsr(0x14CE, 0x7F0007) if model.lbr.depths else wrmsr(0x1C8, 0) + wrmsr(0x1D9, 1)


def _off(model: Model) -> bytes:
    return wrmsr(0x14CE, 0x7F0006) if model.lbr.depths else wrmsr(0x1D9, 0)


def _branches(count: int) -> bytes:
    return b"\xbe" + struct.pack("<I", count) + _LOOP


def _read(model: Model, depth: int = DEPTH) -> bytes:
    first = 0x1500 if model.lbr.depths else 0x680
    return b"".join(b"\xb9" + struct.pack("<I", first + x) + _KEEP for x in range(depth))


def _times(count: int, body: bytes) -> bytes:
    back = b"\x49\xff\xc8\x0f\x85" + struct.pack("<i", -(len(body) + 9))  # dec r8; jnz
    return b"\x49\xc7\xc0" + struct.pack("<I", count) + body + back


def _program(body: bytes) -> bytes:
    return b"\xbf" + struct.pack("<I", READ) + body + _END  # mov edi, READ


def toggling(model: Model, times: int = 20, branches: int = 300, pause: int = 0) -> bytes:
    """Return a guest that turns its LBRs on, branches, turns them off and, after a pause, reads them; again and again.

    A pause is that many NOPs: time without a branch.
    """
    return _program(_times(times, _on(model) + _branches(branches) + _off(model) + b"\x90" * pause + _read(model)))


def steady(model: Model, times: int = 12, branches: int = 40, pause: int = 3000, depth: int = DEPTH) -> bytes:
    """Return a guest that keeps its LBRs on: it branches, does nothing for long without a branch, and reads."""
    chosen = wrmsr(0x14CF, depth) if depth != DEPTH else b""
    body = _branches(branches) + b"\x90" * pause + _read(model, depth)
    return _program(chosen + _on(model) + _times(times, body))


_AREA = 0x1800000
_XSS = "b9a00d0000 b800800000 31d2 0f30"  # mov ecx, 0da0h; mov eax, 8000h; xor edx, edx; wrmsr
# mov ebx, AREA; mov eax, 8000h; xor edx, edx; xsaves64 [rbx], or xrstors64 [rbx]
_SAVES, _LOADS = ("bb00008001 b800800000 31d2" + code for code in ("480fc72b", "480fc71b"))
# mov ebx, AREA + 616; mov ecx, 32; lodsq-like: mov rax, [rbx]; mov [rdi], rax; add rdi, 8; add rbx, 24; dec ecx; jnz
_KEEP_ALL = "bb68028001 b920000000 488b03 488907 4883c708 4883c318 ffc9 75ee"


def saving(times: int = 12, branches: int = 300, pause: int = 0) -> bytes:
    """Return a guest that reads its LBRs by XSAVES, turns them off and on by WRMSR, and loads them by XRSTORS."""
    model = SAPPHIRE_RAPIDS
    save, load, keep = (bytes.fromhex(code) for code in (_SAVES, _LOADS, _KEEP_ALL))
    again = _on(model) + _branches(branches) + _off(model) + b"\x90" * pause + save + keep
    return _program(bytes.fromhex(_XSS) + _times(times, again + b"\x90" * pause + load + b"\x90" * pause + save + keep))


def peeking(times: int = 6, pause: int = 2000) -> bytes:
    """Return a guest that never turns its LBRs on, and reads them by XSAVES."""
    look = b"\x90" * pause + bytes.fromhex(_SAVES) + bytes.fromhex(_KEEP_ALL)
    return _program(bytes.fromhex(_XSS) + _times(times, look))


def reading(model: Model, times: int = 4, pause: int = 3000) -> bytes:
    """Return a guest that reads its LBRs and never turns them on."""
    return _program(_times(times, b"\x90" * pause + _read(model)))


def quiet(model: Model, rest: int = 20_000) -> bytes:
    """Return a guest that fills its LBRs, turns them off, and goes on for long without looking at them."""
    return _program(_on(model) + _branches(100) + _off(model) + _times(rest, b"\x90" * 4))


def unread(rest: int = 20_000) -> bytes:
    """Return a guest that sets DEBUGCTL.LBR and branches on, without an access to any LBR register."""
    return _program(wrmsr(0x1D9, 1) + _branches(100) + _times(rest, b"\x90" * 4))


def plain(rest: int = 20_000) -> bytes:
    """Return a guest that knows of no LBRs."""
    return _program(_times(rest, b"\x90" * 4))


# What is worth writing to a register of LBRs or counters, and what is not.
_VALUES: dict[int, tuple[int, ...]] = {
    0x1D9: (0, 1, 1 << 11, 1 | 1 << 11), 0x1C8: (0, 1, 0x1FF, 0x3C4), 0x1C9: (0, 3, 31), 0x14CF: (8, 16, 32),
    0x14CE: (0x7F0007, 0x7F0006, 0, 1, 7, 0x40007, 0xF), 0x38F: (1, 3, 0xFF, 1 << 32 | 1), 0x390: (1, 1 << 58 | 1),
    0x391: (1 << 58,), 0x186: (0x5300C4, 0x5100C0, 0x5320C4), 0xC1: (0xFFFFFFFB, 0xFFFFFFCE),
    0x4C1: ((1 << 48) - 7, (1 << 48) - 60), 0x38D: (0xB, 3, 0), 0x1DD: (0, 5), 0x1DE: (0, 5), 0x309: (0, 5),
}  # fmt: skip


def anything(model: Model, draw: random.Random, accesses: int = 60) -> bytes:
    """Return a guest that accesses registers of LBRs and counters as drawn, and branches in between."""
    others = set(range(0x1500, 0x1520)) | {0x1607, 0x1203} if model.lbr.depths else set(range(0x680, 0x6A0)) | {0x6C3}
    foreign = {0x1C8, 0x1C9} if model.lbr.depths else {0x14CE, 0x14CF}
    registers = sorted((set(_VALUES) - foreign) | others)
    body = b""
    for _ in range(accesses):
        msr = draw.choice(registers)
        if draw.random() < 0.35:
            body += b"\xb9" + struct.pack("<I", msr) + b"\x0f\x32"
        else:
            body += wrmsr(msr, draw.choice(_VALUES.get(msr, (base(0) + 0x10, 0, 5))))
        if draw.random() < 0.3:
            body += _branches(draw.randrange(1, 40))
        if draw.random() < 0.1:
            body += b"\x90" * draw.randrange(1000)
        if draw.random() < 0.05:
            body += bytes.fromhex("9c 810c2400010000 9d 90")  # pushfq; or dword [rsp], 100h; popfq; nop: a #DB
    return _program(_times(3, body))


def saying(text: bytes) -> bytes:
    """Return a guest that sends a text to its console and ends."""
    sent = b"".join(b"\xb0" + bytes([byte]) + b"\xee" for byte in text)  # mov al, byte; out dx, al
    return _program(b"\x66\xba\xf8\x03" + sent)  # mov dx, 3f8h


def echoing() -> bytes:
    """Return a guest that sends back what it receives, up to a full stop."""
    # mov dx, 3f9h; mov al, 1; out dx, al: wants input. wait: mov dx, 3fdh; in al, dx; test al, 1; jz wait
    wait = "66baf903 b001 ee 66bafd03 ec a801 74f7"
    # mov dx, 3f8h; in al, dx; out dx, al; cmp al, '.'; jne wait
    echo = "66baf803 ec ee 3c2e 75ed"
    return _program(bytes.fromhex(wait + echo))


def bzimage(code: bytes, number: int) -> bytes:
    """Return a file that the 64-bit boot protocol takes for a kernel: `code` at a guest's own addresses."""
    image = bytearray(1024 + 0x200)
    image[0x1F1] = 1  # one setup sector beside the first
    image[0x201] = 0x66
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x20F)
    struct.pack_into("<H", image, 0x236, 1)
    struct.pack_into("<QI", image, 0x258, base(number), 0x200000)
    return bytes(image) + code


def shared(
    hypervisor: Hypervisor, model: Model, programs: list[bytes], event: Opened | None = None, **timing: int
) -> Pcpu:
    """Return a processor that runs these guests, started."""
    guests = []
    for number, code in enumerate(programs):
        board = Board(model, MEMORY, lambda _byte: None, hypervisor=hypervisor, vcpu=SharedVcpu)
        board.memory[base(number) : base(number) + len(code)] = code
        board.start(base(number))
        _skip_faults(board, base(number) + _HANDLER)
        board.uc.reg_write(x86.UC_X86_REG_CR4, board.uc.reg_read(x86.UC_X86_REG_CR4) | _OSXSAVE)
        guests.append(board)
    return Pcpu(hypervisor.sharing, guests, HostCode(model), event, Timing(**timing))


def finish(pcpu: Pcpu, turns: int = 5000) -> Pcpu:
    """Run until every guest has ended."""
    while not pcpu.done:
        pcpu.turn()
        turns -= 1
        assert turns, "the guests do not end"
    return pcpu


# #GP: go on behind the RDMSR or WRMSR that faulted. #DB: go on without the trap flag.
def _skip_faults(board: Board, handler: int) -> None:
    faulted = bytes.fromhex("4883442408 02 4883c408 48cf")  # add qword [rsp+8], 2; add rsp, 8; iretq
    trapped = bytes.fromhex("81642410fffeffff 48cf")  # and dword [rsp+10h], fffffeffh; iretq
    for vector, at, code in ((13, handler, faulted), (1, handler + 0x100, trapped)):
        board.memory[at : at + len(code)] = code
        gate = struct.pack("<HHBBHII", at & 0xFFFF, 0x10, 0, 0x8E, at >> 16 & 0xFFFF, 0, 0)
        board.memory[_IDT + 16 * vector : _IDT + 16 * vector + 16] = gate
    board.uc.reg_write(x86.UC_X86_REG_IDTR, (0, _IDT, 16 * 14 - 1, 0))


def kept(pcpu: Pcpu, number: int) -> dict[str, int]:
    """Return how many addresses a guest read, by whose code lies there: `own`, `host`, `other`, and `zero`."""
    memory = pcpu.guests[number].memory
    found = {"own": 0, "host": 0, "other": 0, "zero": 0}
    count = (int(pcpu.guests[number].uc.reg_read(x86.UC_X86_REG_RDI)) - READ) // 8
    for address in struct.unpack_from(f"<{count}Q", memory, READ):
        if address in range(base(number), base(number) + 0x100000):
            found["own"] += 1
        elif address in HOST:
            found["host"] += 1
        elif address:
            found["other"] += 1
        else:
            found["zero"] += 1
    return found
