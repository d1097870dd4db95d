"""Reserved bits of control registers and IA32_EFER, and what does not go together: #GP(0), and nothing has changed.

The table is SDM vol. 2B, MOV to control registers, and vol. 3A, 2.2.1 and 2.5, for the models' features.
"""

from __future__ import annotations

import struct

import pytest

from archlbr.machine import boot
from tests.machine.areas import GP, IDT, SCRATCH, Fault, Guest, registers, wrmsr

EFER = 0xC0000080
OPCODES = {"CR0": b"\x0f\x22\xc0", "CR2": b"\x0f\x22\xd0", "CR3": b"\x0f\x22\xd8", "CR4": b"\x0f\x22\xe0"}
PE, ET, NW, CD, PG = 1, 1 << 4, 1 << 29, 1 << 30, 1 << 31
PAE, OSXSAVE = 1 << 5, 1 << 18
CR8 = b"\x44\x0f\x22\xc0"


def moving(name: str, value: int) -> bytes:
    """Return code of 13 bytes: mov rax, value; mov name, rax. 14 bytes for CR8."""
    return b"\x48\xb8" + struct.pack("<Q", value) + (CR8 if name == "CR8" else OPCODES[name])


@pytest.fixture(scope="module")
def guest() -> Guest:
    return Guest()


@pytest.mark.parametrize(
    ("name", "value", "faults"),
    [
        ("CR4", PAE | OSXSAVE | 0x7FF, 0),
        *(("CR4", PAE | 1 << bit, 1) for bit in (*range(11, 18), *range(19, 64))),
        ("CR4", OSXSAVE, 1),  # PAE stays in long mode
        ("CR0", PG | PE | ET | CD, 0),
        ("CR0", PG | PE | ET | CD | NW, 0),
        ("CR0", PG | PE | ET | NW, 1),
        ("CR0", PG | ET, 1),
        ("CR0", PE | ET, 1),  # paging stays in 64-bit code
        ("CR0", 1 << 32 | PG | PE | ET, 1),
        ("CR0", 1 << 63 | PG | PE | ET, 1),
        ("CR0", PG | PE | ET, 0),
        ("CR3", 1 << 39, 1),
        ("CR3", 1 << 63, 1),
        ("CR2", 1 << 63 | 5, 0),
        ("CR8", 15, 0),
        ("CR8", 16, 1),
        ("CR8", 1 << 63, 1),
    ],
)
def test_moves_to_control_registers(guest: Guest, name: str, value: int, faults: int) -> None:
    before = {register: guest.register(register) for register in ("CR0", "CR3", "CR4")}
    met = guest.run(moving(name, value))
    assert met == (Fault(GP, 0, 10) if faults else None)
    if faults:
        assert {register: guest.register(register) for register in before} == before
    elif name != "CR8":
        assert guest.register(name) == value
    for register, held in before.items():
        assert guest.run(moving(register, held)) is None


def test_without_xsave_osxsave_is_reserved() -> None:
    guest = Guest(hidden=("xsave",), osxsave=0)
    assert guest.run(moving("CR4", PAE | OSXSAVE)) == Fault(GP, 0, 10)
    assert guest.run(moving("CR4", PAE | 0x7FF)) is None
    assert guest.register("CR4") == PAE | 0x7FF


@pytest.mark.parametrize(
    ("value", "faults"),
    [
        (0xD01, 0), (0x500, 0), (0x100, 0), *((0x500 | 1 << bit, 1) for bit in (*range(1, 8), 9, *range(12, 64))),
        (0x400, 1), (0, 1),
    ],
)  # fmt: skip
def test_efer(guest: Guest, value: int, faults: int) -> None:
    assert guest.run(wrmsr(EFER, value)) == (Fault(GP, 0, 15) if faults else None)
    assert guest.uc.msr_read(EFER) == (0x500 if faults else value | 0x400)  # LMA is not written
    assert guest.run(wrmsr(EFER, 0x500)) is None


@pytest.mark.parametrize("pae", [0, 1])
def test_paging_wants_pae_where_long_mode_is_enabled(pae: int) -> None:
    guest = Guest()
    guest.start(32)
    # A 32-bit gate for #GP, whose handler says so: mov esi, 77; hlt
    guest.put(IDT + 8 * GP, struct.pack("<HHBBH", SCRATCH & 0xFFFF, 0x10, 0, 0x8E, SCRATCH >> 16))
    guest.put(SCRATCH, b"\xbe\x4d\0\0\0\xf4")
    tables = b"\xb8" + struct.pack("<I", boot.PAGE_TABLES) + OPCODES["CR3"]
    paging = b"\xb8" + struct.pack("<I", PG | PE | ET) + OPCODES["CR0"]
    choice = b"\xb8" + struct.pack("<I", PAE if pae else 0) + OPCODES["CR4"]
    assert guest.run(registers(esi=1) + wrmsr(EFER, 0x100) + tables + choice + paging) is None
    assert guest.register("RSI") == (1 if pae else 77)
    assert guest.register("CR0") & PG == PG * pae
