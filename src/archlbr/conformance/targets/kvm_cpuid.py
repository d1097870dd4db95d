"""The CPUID a VMM gives a vCPU, made of what KVM offers: rows of leaf, sub-leaf, flags and four registers.

`kvm` asks with these. Authority: Documentation/virt/kvm/api.rst 4.47 (struct kvm_cpuid_entry2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from archlbr.arch.cpuid import Leaf0A

if TYPE_CHECKING:
    from archlbr.conformance.questions import Guest

Row = list[int]
SIGNIFICANT_INDEX: Final = 1  # KVM_CPUID_FLAG_SIGNIFCANT_INDEX, as the header spells it
_EAX, _EBX, _ECX, _EDX = 3, 4, 5, 6


def registers(rows: list[Row], leaf: int, subleaf: int) -> Row:
    """Return a leaf's four registers, all 0 where there is no row."""
    return next((row[_EAX:] for row in rows if row[0] == leaf and row[1] == subleaf), [0, 0, 0, 0])


def edited(offered: list[Row], guest: Guest) -> list[Row]:
    """Return the rows KVM offers with the guest's features set or cleared."""
    rows = [list(row) for row in offered if (row[0], row[1]) not in ((0x1C, 0), (0xD, 15))]
    for row in rows:
        match row[0], row[1]:
            case 1, _ if guest.model:
                row[_EAX] = guest.model
            case 7, 0:
                row[_EDX] = _with(row[_EDX], 19, guest.arch_lbr)
            case 0xA, _ if row[_EAX] & 0xFF:
                row[_EAX:] = Leaf0A.of(min(guest.pmu_version, row[_EAX] & 0xFF)) if guest.pmu_version else Leaf0A()
            case 0xD, 1:
                row[_EAX] = row[_EAX] if guest.xsaves else _with(row[_EAX], 3, 0)
                row[_ECX] = _with(row[_ECX], 15, guest.component)
            case 0x80000001, _:
                row[_EDX] = row[_EDX] if guest.long_mode else _with(row[_EDX], 29, 0)
    if guest.leaf is not None:
        rows.append([0x1C, 0, SIGNIFICANT_INDEX, *guest.leaf])
    if guest.component_size:
        rows.append([0xD, 15, SIGNIFICANT_INDEX, guest.component_size, 0, 1, 0])
    return rows


def _with(value: int, bit: int, content: int) -> int:
    return value & ~(1 << bit) | content << bit
