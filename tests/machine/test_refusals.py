"""What WRMSR refuses with #GP(0): addresses, machine check banks; RF in what a fault pushes; INT1.

The rows are written from the manual (SDM vol. 2B, WRMSR; vol. 3B, 16.3.2, 18.3.1.1 and 18.3.1.6).
"""

from __future__ import annotations

import struct

import pytest
from unicorn import x86_const as x86

from tests.machine.ring0 import LIDT, OUT_F4, gate, machine, wrmsr

GP, UD, PF, DE, BP = 13, 6, 14, 0, 3
TAKEN = 0x55
# In a handler: pop the error code; RF of the RFLAGS behind RIP and CS into bit 0; the vector and it to port F4H.
_WITH_CODE = "58 85c0 7502 eb04 b0ee " + OUT_F4
_TELL = "8b4c2410 c1e910 83e101 b0{vector:02x} d0e0 08c8 " + OUT_F4 + " ebfe"


def outcome(code: str, vector: int = GP) -> int:
    """Run code that ends at port F4H by itself or in one vector's handler; return what was written there."""
    board, _ = machine(LIDT + code + f"b0{TAKEN:02x} {OUT_F4} ebfe")
    gate(board, vector, (_WITH_CODE if vector in (GP, PF) else "") + _TELL.format(vector=vector))
    status = board.run(10**6)
    assert board.cause == ""
    assert status is not None
    return status >> 1


def refused(vector: int = GP, resumed: int = 1) -> int:
    return vector << 1 | resumed


@pytest.mark.parametrize("msr", [0x175, 0x176, 0xC0000082, 0xC0000083, 0xC0000100, 0xC0000101, 0xC0000102])
def test_an_address_register_takes_canonical_addresses_only(msr: int) -> None:
    for value in (0, 0x7FFFFFFFFFFF, 0xFFFF800000000000, (1 << 64) - 1):
        assert outcome(wrmsr(msr, value)) == TAKEN
    for value in (1 << 47, 0xFFFF7FFFFFFFFFFF, 0xAAAAAAAAAAAAAAAA, 1 << 63):
        assert outcome(wrmsr(msr, value)) == refused()


@pytest.mark.parametrize("bank", [0, 9])
def test_machine_check_banks_enable_all_or_nothing_and_are_only_cleared(bank: int) -> None:
    control, status, address, more = (0x400 + 4 * bank + kind for kind in range(4))
    assert {outcome(wrmsr(control, value)) for value in (0, (1 << 64) - 1)} == {TAKEN}
    assert {outcome(wrmsr(control, value)) for value in (2, 0xAAAAAAAAAAAAAAAA, (1 << 63) - 1)} == {refused()}
    assert (outcome(wrmsr(status, 0)), outcome(wrmsr(status, 1))) == (TAKEN, refused())
    assert outcome(wrmsr(address, 0xAAAAAAAAAAAAAAAA)) == outcome(wrmsr(more, 1)) == TAKEN


def test_there_are_as_many_banks_as_mcg_cap_says() -> None:
    # rdmsr 179h; out 0f4h, al
    assert outcome("b979010000 0f32 " + OUT_F4) == 10
    for msr in (0x428, 0x42B, 0x47F):
        assert outcome(wrmsr(msr, 0)) == outcome(f"b9{struct.pack('<I', msr).hex()} 0f32") == refused()


@pytest.mark.parametrize(
    ("code", "vector", "resumed"),
    [
        ("0f0b", UD, 1),  # ud2
        ("31c9 f7f1", DE, 1),  # xor ecx, ecx; div ecx
        ("48a1 0000000080000000", PF, 1),  # mov rax, [8000000000H]: not mapped
        ("cc", BP, 0),  # int3: a trap
        ("cd0d", GP, 0),  # int 13: no fault, and no error code
    ],
    ids=["ud2", "div", "load", "int3", "int"],
)
def test_faults_push_rf_and_traps_do_not(code: str, vector: int, resumed: int) -> None:
    board, _ = machine(LIDT + code + "ebfe")
    gate(board, vector, ("58 " if vector == PF else "") + _TELL.format(vector=vector))
    status = board.run(10**6)
    assert status is not None
    assert status >> 1 == refused(vector, resumed)


def stepped_into(code: str) -> tuple[list[tuple[int, int]], tuple[int | None, ...], int, int]:
    """Run NOP and an instruction that leads to vector 1: branches, counters, the RIP pushed less its own, DR6."""
    on = wrmsr(0x186, 0x4200C4) + wrmsr(0x187, 0x4200C0) + wrmsr(0x38F, 3) + "90"
    board, _ = machine(LIDT + on + f"{code} ebfe")
    # In the handler: stop the counters; mov ebx, [rsp]; mov rsi, dr6; out 0f4h, al
    handler = gate(board, 1, wrmsr(0x38F, 0) + "8b1c24 0f21f6 b007 " + OUT_F4 + " ebfe")
    rows: list[tuple[int, int]] = []
    board.trace(lambda found: rows.extend((int(source), int(target)) for source, target, _ in found))
    assert board.run(10**6) == 15
    place = 0x200000 + len(bytes.fromhex(LIDT + on))
    pushed, dr6 = (board.uc.reg_read(register) for register in (x86.UC_X86_REG_RBX, x86.UC_X86_REG_RSI))
    counted = tuple(board.vcpu.rdmsr(counter) for counter in (0xC1, 0xC2))
    return [(source - place, target - handler) for source, target in rows], counted, pushed - place, dr6


@pytest.mark.parametrize("prefixes", ["", "2e2e", "66f248"])
def test_int1_is_a_trap_to_vector_1_that_leaves_dr6_alone(prefixes: str) -> None:
    length = len(prefixes) // 2 + 1
    branches, counted, pushed, dr6 = stepped_into(prefixes + "f1")
    assert (branches, pushed, dr6) == ([(0, 0)], length, 0xFFFF0FF0)
    assert counted == stepped_into("cd01")[1]  # what INT 1 counts: the branch, and as many instructions
    assert counted[0] == 1
