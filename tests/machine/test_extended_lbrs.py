"""XSAVES and XRSTORS of component 15 on the board, what branches and counters make of them, and snapshots meanwhile.

The expected bytes are packed by hand from what was written into the registers (reference architecture.md 4.1).
"""

from __future__ import annotations

import ctypes
import struct

import pytest

from archlbr.cpu.unicorn import longmode
from archlbr.errors import InputError
from archlbr.machine import snapshot
from archlbr.machine.models import SAPPHIRE_RAPIDS, SKYLAKE_SERVER, without
from tests.machine.areas import (
    ALL,
    AREA,
    BEFORE,
    CODE,
    COMPACTED,
    CTL,
    DEPTH,
    FULL,
    GP,
    HEADER,
    LBR,
    LER_FROM,
    LER_INFO,
    LER_TO,
    STATES,
    XSS,
    Fault,
    Guest,
    header,
    registers,
    saving,
    wide,
    written,
    wrmsr,
    xsetbv,
)
from tests.machine.mover import restored

FROM, TO, INFO = 0x1500, 0x1600, 0x1200


def records(count: int) -> list[tuple[int, int, int]]:
    return [(0x1000 + x, 0x2000 + x, 0x8000_0000_0000_0000 + x) for x in range(count)]


def filling(count: int) -> bytes:
    """Return code that writes records."""
    out = b""
    for x, record in enumerate(records(count)):
        for base, value in zip((FROM, TO, INFO), record, strict=True):
            out += wrmsr(base + x, value)
    return out


def component(ctl: int, depth: int, ler: tuple[int, int, int], entries: list[tuple[int, int, int]]) -> bytes:
    return struct.pack("<5Q", ctl, depth, *ler) + b"".join(struct.pack("<3Q", *entry) for entry in entries)


@pytest.mark.parametrize("enabled", [0, 1])
@pytest.mark.parametrize("depth", [8, 32])
def test_xsaves_writes_the_lbrs_and_leaves_what_lies_above_depth(guest: Guest, depth: int, enabled: int) -> None:
    # Enabled, the guest has the LBRs and the processor writes them; before, KVM does. A filter admits nothing: 0 kinds.
    owned = wrmsr(CTL, 1 | 6) if enabled else b""
    ler = wrmsr(LER_FROM, 0x10) + wrmsr(LER_TO, 0x20) + wrmsr(LER_INFO, 0x30)
    assert guest.run(owned + wrmsr(DEPTH, depth) + ler + filling(depth) + wrmsr(CTL, 6)) is None
    assert guest.board.vcpu.state.owned >= enabled
    assert saving(guest, "xsaves", LBR) is None
    lbrs = component(6, depth, (0x10, 0x20, 0x30), records(depth))
    expected = BEFORE[:512] + header(LBR, COMPACTED | LBR) + lbrs + BEFORE[576 + len(lbrs) :]
    assert guest.get(AREA, len(BEFORE)) == expected


def test_xsaves_of_both_writes_both_and_nothing_of_lbrs_that_are_not_in_use(guest: Guest) -> None:
    guest.set_state(STATES["used"])
    assert saving(guest, "xsaves", LBR | 3) is None
    expected = written(STATES["used"], BEFORE, FULL, 3, COMPACTED | LBR | 3)
    assert guest.get(AREA, len(BEFORE)) == expected
    assert guest.run(wrmsr(CTL, 2)) is None
    assert saving(guest, "xsaves", LBR | 3) is None
    lbrs = component(2, 32, (0, 0, 0), [(0, 0, 0)] * 32)
    assert guest.get(AREA, len(BEFORE)) == expected[:512] + header(LBR | 3, COMPACTED | LBR | 3) + lbrs + BEFORE[1384:]
    assert guest.run(wrmsr(XSS, 0)) is None
    guest.put(AREA, BEFORE)
    assert saving(guest, "xsaves", LBR | 3) is None
    assert guest.get(AREA, len(BEFORE)) == written(STATES["used"], BEFORE, FULL, 3, COMPACTED | 3)


def lbrs_of(guest: Guest, count: int) -> tuple[int, tuple[int, ...], list[tuple[int, ...]]]:
    read = guest.board.vcpu.rdmsr
    ler = tuple(read(msr) or 0 for msr in (LER_FROM, LER_TO, LER_INFO))
    return read(CTL) or 0, ler, [tuple(read(base + x) or 0 for base in (FROM, TO, INFO)) for x in range(count)]


@pytest.mark.parametrize("enabled", [0, 1])
def test_xrstors_loads_the_lbrs(guest: Guest, enabled: int) -> None:
    if enabled:
        assert guest.run(wrmsr(CTL, 7) + wrmsr(CTL, 0)) is None
    wanted = component(6, 32, (1, 2, 3), records(32))
    guest.put(AREA + HEADER, header(LBR, COMPACTED | LBR) + wanted)
    assert saving(guest, "xrstors", LBR) is None
    assert lbrs_of(guest, 32) == (6, (1, 2, 3), records(32))
    guest.put(AREA + HEADER, header(0, COMPACTED | LBR))  # initialised
    assert saving(guest, "xrstors", LBR) is None
    assert lbrs_of(guest, 32) == (0, (0, 0, 0), [(0, 0, 0)] * 32)


def test_xrstors_of_another_depth_clears_and_keeps_depth(guest: Guest) -> None:
    assert guest.run(filling(32) + wrmsr(CTL, 6)) is None
    guest.put(AREA + HEADER, header(LBR, COMPACTED | LBR) + component(6, 16, (1, 2, 3), records(32)))
    assert saving(guest, "xrstors", LBR) is None
    assert lbrs_of(guest, 32) == (0, (0, 0, 0), [(0, 0, 0)] * 32)
    assert guest.board.vcpu.rdmsr(DEPTH) == 32


@pytest.mark.parametrize("enabled", [0, 1])
def test_an_image_of_lbrs_that_faults_changes_neither_them_nor_the_rest(guest: Guest, enabled: int) -> None:
    if enabled:
        assert guest.run(wrmsr(CTL, 7)) is None
    assert guest.run(filling(32) + wrmsr(CTL, 6)) is None
    guest.set_state(STATES["used"])
    wrong = component(1 << 4, 32, (1, 2, 3), records(32)), component(6, 32, (1, 1 << 62, 3), records(32))
    for content in wrong:
        guest.put(AREA, STATES["one vector"] + header(LBR | 3, COMPACTED | LBR | 3) + content)
        assert saving(guest, "xrstors", LBR | 3) == Fault(GP, 0, 15)
        assert lbrs_of(guest, 32)[::2] == (6, records(32))
        assert guest.state == STATES["used"]


def test_xrstors_that_enables_asks_for_the_lbrs() -> None:
    guest = Guest()
    assert guest.run(wrmsr(XSS, LBR)) is None
    assert guest.board.vcpu.state.owned == 0
    guest.put(
        AREA + HEADER, header(LBR, COMPACTED | LBR) + component(1 | 6 | 0x7F0000, 32, (0, 0, 0), [(0, 0, 0)] * 32)
    )
    # xrstors; jmp $+2; jmp $+2; mov ecx, CTL..: wrmsr
    code = registers(edi=AREA, eax=LBR, edx=0) + wide(ALL["xrstors"])
    assert guest.run(code + b"\xeb\x00\xeb\x00" + wrmsr(CTL, 0)) is None
    assert guest.board.vcpu.state.owned == 1
    _, _, entries = lbrs_of(guest, 3)
    after = CODE + len(code)
    assert [entry[:2] for entry in entries] == [(after + 2, after + 4), (after, after + 2), (0, 0)]


# Branches, counts and steps around an instruction that the engine gives up its block for -----------------------------


@pytest.mark.parametrize(
    "operand",
    [
        b"\x0f\xc7\x2f",  # [rdi]
        b"\x0f\xc7\x6f\x00",  # [rdi + 0]: the engine has not read the displacement when it gives up
        b"\x0f\xc7\xaf" + bytes(4),
        b"\x48\x0f\xc7\x2c\x27",  # [rdi + 0 * 1]
        b"\x67\x48\x0f\xc7\x2c\x25" + struct.pack("<I", AREA),
        b"\x64\x48\x0f\xc7\x2c\x25" + struct.pack("<I", AREA),  # fs:, whose base is 0
    ],
)
def test_branches_and_counts_are_exact_around_it(guest: Guest, operand: bytes) -> None:
    start = (
        wrmsr(0x186, 0xC0 | 1 << 17 | 1 << 22)  # IA32_PERFEVTSEL0: instructions, OS, EN
        + registers(edi=AREA)
        + wrmsr(CTL, 1 | 6 | 0x7F0000)
        + wrmsr(0x38F, 1)
        + b"\xeb\x00"
    )
    body = b"\x90\x31\xc0\x90" + operand + b"\x90\x90\xeb\x00"  # nop; xor eax, eax; nop; xsaves; nop; nop; jmp
    code = start + body + wrmsr(0x38F, 0) + wrmsr(CTL, 0)
    assert guest.run(wrmsr(0xC1, 0) + code) is None
    begin = CODE + len(wrmsr(0xC1, 0)) + len(start)
    end = begin + len(body)
    _, _, entries = lbrs_of(guest, 3)
    assert [entry[:2] for entry in entries] == [(end - 2, end), (begin - 2, begin), (0, 0)]
    # The block in which the counter was enabled counts whole: WRMSRs of four instructions, a MOV, the jump.
    first = 4 * 4 + 1 + 1
    assert guest.board.vcpu.rdmsr(0xC1) == first + 7
    # And the clock counts it as one: as a NOP in its place.
    clocks = []
    for instruction in (b"\x90", operand, b"\x90"):  # a run begins with what the one before it has left uncounted
        before = guest.board.now()
        assert guest.run(registers(edi=AREA) + b"\x90" + instruction + b"\x90\xeb\x00") is None
        clocks.append(guest.board.now() - before)
    assert clocks[1:] == [6, 6]


def test_a_step_over_it_is_trapped_behind_it(guest: Guest) -> None:
    # pushfq; or dword [rsp], 100h; popfq; nop; xsaves [rdi]; nop
    code = registers(edi=AREA, eax=0, edx=0) + b"\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d" + wide(ALL["xsaves"])
    assert guest.run(code + b"\x90") == Fault(1, 0, len(code))
    assert guest.register("DR6") & 1 << 14


def test_the_shadow_of_sti_ends_with_it(guest: Guest) -> None:
    guest.begin(registers(edi=AREA, eax=0, edx=0) + b"\xfb" + wide(ALL["xsaves"]) + b"\xfa")
    shadows = []
    for _ in range(3):  # to the first block, to the one after STI, and to the one after XSAVES
        guest.board.run(guest.board.now() + 1)
        flags = ctypes.c_uint32.from_address(guest.board.engine.env + longmode.HFLAGS).value
        shadows.append((guest.register("RIP") - CODE, flags >> 3 & 1))
    assert shadows == [(0, 0), (16, 1), (20, 0)]
    assert guest.board.run(guest.board.now() + 1000) == 0


# A snapshot ---------------------------------------------------------------------------------------------------------


def saved_machine(guest: Guest) -> bytes:
    return b"".join(snapshot.save(guest.board))


@pytest.mark.parametrize("enabled", [0, 1])
def test_a_snapshot_carries_xcr0_xss_and_the_state_that_they_cover(guest: Guest, enabled: int) -> None:
    if enabled:
        assert guest.run(wrmsr(CTL, 7)) is None
    assert guest.run(filling(32) + wrmsr(CTL, 6)) is None
    guest.set_state(STATES["used"])
    assert saving(guest, "xsaves", LBR | 3) is None
    area = guest.get(AREA, len(BEFORE))
    assert area[HEADER : HEADER + 8] == struct.pack("<Q", LBR | 3)
    other = Guest.of(restored(saved_machine(guest)).board)
    assert (other.board.vcpu.state.xcr0, other.board.vcpu.state.guest.xss) == (3, LBR)
    other.put(AREA, BEFORE)
    assert saving(other, "xsaves", LBR | 3) is None
    assert other.get(AREA, len(BEFORE)) == area


def test_a_machine_with_xsave_goes_to_no_target_without(guest: Guest) -> None:
    old = Guest("skylake-server")
    with pytest.raises(InputError, match="cannot have the machine: it has no XSAVE"):
        restored(saved_machine(old), offered=without(SKYLAKE_SERVER, "xsave"))
    assert old.run(xsetbv(3)) is None
    with pytest.raises(InputError, match="the target's XCR0 lacks components 0x2"):
        restored(saved_machine(old), offered=without(SKYLAKE_SERVER, "xsave"))
    with pytest.raises(InputError, match="the target's IA32_XSS lacks components 0x8000"):
        restored(saved_machine(guest), offered=without(SAPPHIRE_RAPIDS, "xsave"))
    hidden = Guest(hidden=("xsave",))
    assert restored(saved_machine(hidden), offered=SAPPHIRE_RAPIDS).board.vcpu.state.xcr0 == 1
