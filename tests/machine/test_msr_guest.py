"""The stubs byte by byte against a disassembler, and the guest that runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import capstone
import pytest

from archlbr.arch.branches import BranchKind
from archlbr.errors import InternalError
from archlbr.machine import msr_stubs as stubs
from archlbr.machine.msr_guest import MsrGuest, Taken

if TYPE_CHECKING:
    from collections.abc import Iterator

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


class Answers:
    """A hypervisor that knows one register and one leaf."""

    def __init__(self) -> None:
        self.reads = 0

    def rdmsr(self, msr: int) -> int | None:
        self.reads += 1
        return 0x12345678_9ABCDEF0 if msr == 0x14CE else None

    def wrmsr(self, msr: int, value: int) -> bool:
        self.written = (msr, value)
        return msr == 0x14CE

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        return leaf, subleaf, 3, 4

    def xsaves(self, area: bytes) -> bytes | int:
        return bytes([area[0] + 1]) + area[1:] if area[0] < 2 else 6

    def xrstors(self, area: bytes) -> int:
        return 0 if area[0] == 1 else 13


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def guest(answers: Answers) -> Iterator[MsrGuest]:
    one = MsrGuest(answers)
    yield one
    one.close()


def test_rdmsr_reports_edx_and_eax(guest: MsrGuest) -> None:
    assert (guest.run("rdmsr", 0x14CE).value, guest.run("rdmsr", 0x14CE).vector) == (0x12345678_9ABCDEF0, 0xFFFFFFFF)


def test_a_loop_reads_as_often_as_it_is_told(guest: MsrGuest, answers: Answers) -> None:
    assert guest.run("rdmsrs", 0x14CE, 1000).vector == 0xFFFFFFFF
    assert answers.reads == 1000


def test_a_refused_access_is_a_general_protection_fault(guest: MsrGuest) -> None:
    assert guest.run("rdmsr", 0x14CF).vector == 13
    assert guest.run("wrmsr", 0x14CF, value=1).vector == 13


def test_wrmsr_writes_64_bits(guest: MsrGuest, answers: Answers) -> None:
    assert guest.run("wrmsr", 0x14CE, value=1 << 63 | 5).vector == 0xFFFFFFFF
    assert answers.written == (0x14CE, 1 << 63 | 5)


def test_cpuid_reports_four_registers(guest: MsrGuest) -> None:
    report = guest.run("cpuid", 0x1C, 2)
    assert report == (0x1C, 2, 3, 4, 0xFFFFFFFF)


def test_xsaves_writes_guest_memory_and_faults_by_its_vector(guest: MsrGuest) -> None:
    assert guest.run("xsaves").vector == 0xFFFFFFFF
    assert guest.area[0] == 1
    assert guest.run("xrstors").vector == 0xFFFFFFFF
    assert guest.run("xsaves").vector == 0xFFFFFFFF
    assert guest.run("xrstors").vector == 13
    assert guest.run("xsaves").vector == 6


@pytest.mark.parametrize("cpl", [0, 3])
@pytest.mark.parametrize(
    "kind", [kind for kind in BranchKind if kind is not BranchKind.NONE], ids=lambda kind: kind.name
)
def test_a_branch_of_each_kind_is_really_taken(guest: MsrGuest, kind: BranchKind, cpl: int) -> None:
    assert guest.branch(0x401000, 0x402040, kind, cpl) == Taken(0x401000, 0x402040, kind, cpl)
    # Another instruction at the same address: the engine must not run what was there before.
    assert guest.branch(0x401000, 0x400800, BranchKind.REL_JMP, cpl) == Taken(0x401000, 0x400800, 2, cpl)


def test_a_branch_out_of_the_guest_is_our_mistake(guest: MsrGuest) -> None:
    with pytest.raises(InternalError, match="does not lie in"):
        guest.branch(0x401000, 0x800000, BranchKind.REL_JMP, 0)
