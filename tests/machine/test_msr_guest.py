"""The stubs byte by byte against a disassembler, and the guest of the board that runs them."""

from __future__ import annotations

import capstone
import pytest

from archlbr.arch.branches import BranchKind
from archlbr.errors import InternalError
from archlbr.machine import msr_stubs as stubs
from archlbr.machine.board import Board
from archlbr.machine.models import SAPPHIRE_RAPIDS
from archlbr.machine.msr_guest import MEMORY, MsrGuest, put_stubs
from archlbr.machine.vcpu import Vcpu

M = 0x8000
LISTINGS = {
    "rdmsr": [
        f"mov ecx, dword ptr [{M:#x}]",
        "rdmsr ",
        f"mov dword ptr [{M + 8:#x}], eax",
        f"mov dword ptr [{M + 20:#x}], edx",
        "hlt ",
    ],
    "wrmsr": [
        f"mov ecx, dword ptr [{M:#x}]",
        f"mov eax, dword ptr [{M + 8:#x}]",
        f"mov edx, dword ptr [{M + 20:#x}]",
        "wrmsr ",
        "hlt ",
    ],
    "cpuid": [
        f"mov eax, dword ptr [{M:#x}]",
        f"mov ecx, dword ptr [{M + 4:#x}]",
        "cpuid ",
        f"mov dword ptr [{M + 8:#x}], eax",
        f"mov dword ptr [{M + 12:#x}], ebx",
        f"mov dword ptr [{M + 16:#x}], ecx",
        f"mov dword ptr [{M + 20:#x}], edx",
        "hlt ",
    ],
    "xsaves": ["mov edi, 0x9000", "mov eax, 0x8000", "xor edx, edx", "xsaves64 ptr [rdi]", "hlt "],
    "xrstors": ["mov edi, 0x9000", "mov eax, 0x8000", "xor edx, edx", "xrstors64 ptr [rdi]", "hlt "],
    "rdmsrs": [
        f"mov ecx, dword ptr [{M:#x}]",
        f"mov edi, dword ptr [{M + 4:#x}]",
        "rdmsr ",
        "dec edi",
        "jne 0x628e",
        "hlt ",
    ],
}


def disassembled(code: bytes, address: int) -> list[tuple[int, str]]:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    found = []
    for place, _, mnemonic, operands in decoder.disasm_lite(code, address):
        found.append((place, f"{mnemonic} {operands}"))
        if mnemonic == "hlt":
            break
    return found


@pytest.mark.parametrize("name", LISTINGS)
def test_a_stub_is_the_assembly_beside_it(name: str) -> None:
    stub = stubs.STUBS[name]
    found = disassembled(stubs.image()[stub.start : stub.start + stubs.STUB_SIZE], stub.start)
    assert [line for _, line in found] == LISTINGS[name]
    site = next(line for place, line in found if place == stub.site)
    assert site.startswith({"rdmsrs": "rdmsr"}.get(name, name))


def test_the_names_are_those_of_the_listings() -> None:
    assert set(stubs.STUBS) == set(LISTINGS)


@pytest.mark.parametrize(("vector", "stored"), [(0, "0"), (6, "6"), (13, "0xd"), (31, "0x1f")])
def test_a_gate_leads_to_the_handler_that_stores_its_vector(vector: int, stored: str) -> None:
    content = stubs.image()
    gate = content[0x2000 + 16 * vector : 0x2000 + 16 * vector + 16]
    handler = int.from_bytes(gate[0:2], "little") | int.from_bytes(gate[6:12], "little") << 16
    assert gate[2:6] == bytes.fromhex("10 00 00 8e")
    found = disassembled(content[handler : handler + 16], handler)
    assert [line for _, line in found] == [f"mov dword ptr [{M + 24:#x}], {stored}", "hlt "]


def test_the_page_tables_map_the_lowest_pages_to_themselves() -> None:
    content = stubs.image()

    def entry(table: int) -> int:
        return int.from_bytes(content[table : table + 8], "little")

    pointers, directory = entry(0x3000), entry(0x4000)
    assert (pointers & ~0xFFF, directory & ~0xFFF) == (0x4000, 0x5000)
    # Present, writable, a page of 2 MiB at 0.
    assert (pointers & 0xFFF, directory & 0xFFF, entry(0x5000)) == (3, 3, 0x83)


class Answers(Vcpu):
    """A vCPU that knows one register and one leaf more."""

    reads = 0
    written = (0, 0)

    def rdmsr(self, msr: int) -> int | None:
        self.reads += 1
        return 0x12345678_9ABCDEF0 if msr == 0x3F1 else super().rdmsr(msr)

    def wrmsr(self, msr: int, value: int) -> bool | int:
        self.written = (msr, value)
        return super().wrmsr(msr, value)

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        return leaf, subleaf, 3, 4


@pytest.fixture(scope="module")
def board() -> Board:
    return Board(SAPPHIRE_RAPIDS, MEMORY, lambda _byte: None, vcpu=Answers)


@pytest.fixture(scope="module")
def guest(board: Board) -> MsrGuest:
    return MsrGuest(board, put_stubs(board))


def vcpu(board: Board) -> Answers:
    assert isinstance(board.vcpu, Answers)
    return board.vcpu


def test_rdmsr_reports_edx_and_eax(guest: MsrGuest) -> None:
    assert (guest.run("rdmsr", 0x3F1).value, guest.run("rdmsr", 0x3F1).vector) == (0x12345678_9ABCDEF0, 0xFFFFFFFF)


def test_a_loop_reads_as_often_as_it_is_told(guest: MsrGuest, board: Board) -> None:
    before = vcpu(board).reads
    assert guest.run("rdmsrs", 0x14CE, 1000).vector == 0xFFFFFFFF
    assert vcpu(board).reads - before == 1000


def test_a_refused_access_is_a_general_protection_fault(guest: MsrGuest) -> None:
    assert guest.run("rdmsr", 0x1C8).vector == 13
    assert guest.run("wrmsr", 0x14CF, value=1).vector == 13


def test_wrmsr_writes_64_bits(guest: MsrGuest, board: Board) -> None:
    assert guest.run("wrmsr", 0x1500, value=1 << 46 | 5).vector == 0xFFFFFFFF
    assert vcpu(board).written == (0x1500, 1 << 46 | 5)
    assert guest.run("rdmsr", 0x1500).value == 1 << 46 | 5


def test_cpuid_reports_four_registers(guest: MsrGuest) -> None:
    assert guest.run("cpuid", 0x1C, 2) == (0x1C, 2, 3, 4, 0xFFFFFFFF)


KINDS = [kind for kind in BranchKind if kind is not BranchKind.NONE]
# BR_TYPE of architecture.md 2.5, by kind.
TYPES = {"COND": 0, "IND_JMP": 1, "REL_JMP": 2, "IND_CALL": 3, "REL_CALL": 4, "RET": 5, "OTHER": 8}


@pytest.mark.parametrize("cpl", [0, 3])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_branch_of_each_kind_is_really_taken_and_recorded_alone(guest: MsrGuest, kind: BranchKind, cpl: int) -> None:
    def newest(entry: int) -> tuple[int, int, int]:
        source, target, info = (guest.run("rdmsr", base + entry).value for base in (0x1500, 0x1600, 0x1200))
        return source, target, info >> 56 & 15

    guest.run("wrmsr", 0x14CF, value=32)
    guest.run("wrmsr", 0x14CE, value=0x7F0001 | 2 << bool(cpl))
    guest.branch(0x401000, 0x402040, kind, cpl)
    # Another instruction at the same address: the engine must not run what was there before.
    guest.branch(0x401000, 0x400800, BranchKind.REL_JMP, cpl)
    guest.run("wrmsr", 0x14CE, value=0)
    assert [newest(entry) for entry in range(3)] == [
        (0x401000, 0x400800, 2), (0x401000, 0x402040, TYPES[kind.name]), (0, 0, 0)
    ]  # fmt: skip


def test_a_branch_out_of_the_guest_is_our_mistake(guest: MsrGuest) -> None:
    with pytest.raises(InternalError, match="does not lie in"):
        guest.branch(0x401000, 0x800000, BranchKind.REL_JMP, 0)


def test_a_kind_that_no_instruction_has_is_our_mistake(guest: MsrGuest) -> None:
    with pytest.raises(InternalError, match="no instruction is of kind"):
        guest.branch(0x401000, 0x402040, BranchKind.NONE, 0)
