"""Bit fields of architectural registers, as immutable values.

Every stage names registers through these; nothing feeds them. The layouts they carry come from the Intel SDM, as
gathered in the register tables of `msrs`, `cpuid` and `xsave`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from archlbr.errors import LayoutError


@dataclass(frozen=True, slots=True)
class Field:
    """A contiguous run of bits in a register: `bits` 63..0 inclusive, with the authority that says so."""

    name: str
    low: int
    width: int
    meaning: str = ""
    cite: str = ""
    mask: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.low < 0 or self.width < 1 or self.low + self.width > 64:
            raise LayoutError(f"field {self.name}: bits {self.low + self.width - 1}:{self.low} do not fit in 63:0")
        object.__setattr__(self, "mask", ((1 << self.width) - 1) << self.low)

    def of(self, value: int) -> int:
        """Return this field's value in a register value, shifted to bit 0."""
        return (value & self.mask) >> self.low

    def put(self, value: int, content: int) -> int:
        """Return a register value with this field replaced; LayoutError when the content does not fit."""
        if content < 0 or content >> self.width:
            raise LayoutError(f"field {self.name}: {content:#x} does not fit in {self.width} bits")
        return (value & ~self.mask) | content << self.low


def fields(*members: Field) -> tuple[Field, ...]:
    """Return the fields of one register, lowest first; LayoutError when two share a bit or a name."""
    seen = 0
    names: set[str] = set()
    for member in members:
        if seen & member.mask:
            raise LayoutError(f"field {member.name}: bits {member.mask:#x} overlap {seen & member.mask:#x}")
        if member.name in names:
            raise LayoutError(f"field {member.name}: named twice in one register")
        seen |= member.mask
        names.add(member.name)
    return tuple(sorted(members, key=lambda member: member.low))


def union(members: tuple[Field, ...]) -> int:
    """Return the mask of every bit that some field claims."""
    mask = 0
    for member in members:
        mask |= member.mask
    return mask
