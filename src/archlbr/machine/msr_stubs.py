"""A guest's first 64 KiB in which one privileged instruction at a time is executed and its result or fault reported.

Machine code written as bytes, with its assembly beside it, in ring 0 and long mode. `msr_guest` runs it on the engine,
`conformance.targets` on a real KVM. Parameters and results stand in a mailbox; each exception goes through the IDT to a
handler that stores its vector there. Encodings: SDM vol. 2; gates and descriptors: SDM vol. 3A, 3.4.5 and 6.14.1.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from archlbr.arch.outcomes import GP, UD, GeneralProtection, UndefinedOpcode
from archlbr.errors import InternalError

SIZE: Final = 0x10000
GDT: Final = 0x1000
IDT: Final = 0x2000
TABLES: Final = 0x3000  # PML4, PDPT, PD: the lowest GiB mapped to itself, for processors with paging
CODE: Final = 0x6000
HANDLERS: Final = 0x7000
MAILBOX: Final = 0x8000
AREA: Final = 0x9000  # the XSAVE area, 64-byte aligned
AREA_SIZE: Final = 0x1000
STACK: Final = 0xF000

CODE_SELECTOR: Final = 0x10
DATA_SELECTOR: Final = 0x18
USER_CODE_SELECTOR: Final = 0x33
USER_DATA_SELECTOR: Final = 0x2B
DESCRIPTORS: Final = struct.pack(
    "<8Q", 0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF, 0
)
VECTORS: Final = 32

# Inside the mailbox.
INDEX, SUBINDEX, EAX, EBX, ECX, EDX, VECTOR = range(0, 28, 4)
NO_FAULT: Final = 0xFFFFFFFF

_LOAD: Final = {"eax": b"\x8b\x04\x25", "ecx": b"\x8b\x0c\x25", "edx": b"\x8b\x14\x25", "edi": b"\x8b\x3c\x25"}
_STORE: Final = {"eax": b"\x89\x04\x25", "ebx": b"\x89\x1c\x25", "ecx": b"\x89\x0c\x25", "edx": b"\x89\x14\x25"}
_HLT: Final = b"\xf4"


def _load(register: str, place: int) -> bytes:  # mov register, [MAILBOX + place]
    return _LOAD[register] + struct.pack("<I", MAILBOX + place)


def _store(register: str, place: int) -> bytes:  # mov [MAILBOX + place], register
    return _STORE[register] + struct.pack("<I", MAILBOX + place)


def _component_15() -> bytes:  # mov edi, AREA; mov eax, 8000h; xor edx, edx
    return b"\xbf" + struct.pack("<I", AREA) + b"\xb8\x00\x80\x00\x00\x31\xd2"


class Stub(NamedTuple):
    """Where a stub begins, and where the instruction in question stands in it."""

    start: int
    site: int


_XSAVES: Final = b"\x48\x0f\xc7\x2f"  # xsaves64 [rdi]
_XRSTORS: Final = b"\x48\x0f\xc7\x1f"  # xrstors64 [rdi]
# (before the instruction, the instruction, after it)
_CODE: Final = {
    "rdmsr": (_load("ecx", INDEX), b"\x0f\x32", _store("eax", EAX) + _store("edx", EDX)),
    "wrmsr": (_load("ecx", INDEX) + _load("eax", EAX) + _load("edx", EDX), b"\x0f\x30", b""),
    "cpuid": (
        _load("eax", INDEX) + _load("ecx", SUBINDEX),
        b"\x0f\xa2",
        _store("eax", EAX) + _store("ebx", EBX) + _store("ecx", ECX) + _store("edx", EDX),
    ),
    "xsaves": (_component_15(), _XSAVES, b""),
    "xrstors": (_component_15(), _XRSTORS, b""),
    # once more, as often as SUBINDEX says: rdmsr; dec edi; jnz the rdmsr
    "rdmsrs": (_load("ecx", INDEX) + _load("edi", SUBINDEX), b"\x0f\x32", b"\xff\xcf\x75\xfa"),
}
STUB_SIZE: Final = 0x80
STUBS: Final = {
    name: Stub(CODE + STUB_SIZE * place, CODE + STUB_SIZE * place + len(before))
    for place, (name, (before, _, _)) in enumerate(_CODE.items())
}


def image() -> bytes:
    """Return the 64 KiB: descriptors, gates, page tables, stubs, handlers; mailbox and area are 0."""
    content = bytearray(SIZE)
    content[GDT : GDT + len(DESCRIPTORS)] = DESCRIPTORS
    for vector in range(VECTORS):
        handler = HANDLERS + 16 * vector
        # An interrupt gate, present, ring 0.
        gate = struct.pack("<HHBBHII", handler & 0xFFFF, CODE_SELECTOR, 0, 0x8E, handler >> 16, 0, 0)
        content[IDT + 16 * vector : IDT + 16 * vector + 16] = gate
        # mov dword [MAILBOX + VECTOR], vector; hlt
        code = b"\xc7\x04\x25" + struct.pack("<II", MAILBOX + VECTOR, vector) + _HLT
        content[handler : handler + len(code)] = code
    for name, parts in _CODE.items():
        code = b"".join(parts) + _HLT
        start = STUBS[name].start
        content[start : start + len(code)] = code
    present_writable = 3
    struct.pack_into("<Q", content, TABLES, TABLES + 0x1000 | present_writable)
    struct.pack_into("<Q", content, TABLES + 0x1000, TABLES + 0x2000 | present_writable)
    # 512 pages of 2 MiB would go past the mailbox's page table: the first is enough for 64 KiB.
    struct.pack_into("<Q", content, TABLES + 0x2000, 0x80 | present_writable)
    return bytes(content)


def question(index: int = 0, subindex: int = 0, value: int = 0) -> bytes:
    """Return a mailbox with parameters: an MSR and the value to write, or a leaf and its sub-leaf."""
    return struct.pack("<7I", index, subindex, value & 0xFFFFFFFF, 0, 0, value >> 32, NO_FAULT)


class Report(NamedTuple):
    """What the stub left in the mailbox; vector is NO_FAULT when the instruction completed."""

    eax: int
    ebx: int
    ecx: int
    edx: int
    vector: int

    @property
    def value(self) -> int:
        """Return EDX:EAX."""
        return self.edx << 32 | self.eax

    @property
    def fault(self) -> GeneralProtection | UndefinedOpcode | None:
        """Return the fault that the instruction met; InternalError for any other exception."""
        met = next((fault for fault in (GP, UD) if fault.vector == self.vector), None)
        if met is None and self.vector != NO_FAULT:
            raise InternalError(f"the guest's stub met exception {self.vector}")
        return met


def report(mailbox: bytes) -> Report:
    """Return what the mailbox holds after a run."""
    return Report(*struct.unpack_from("<5I", mailbox, EAX))
