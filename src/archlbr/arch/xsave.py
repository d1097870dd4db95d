"""Supervisor state component 15, the LBRs, byte by byte, and the XSAVE header in front of it.

`lbr.xsaves` reads and writes areas in this layout, `decode --xsave` puts one in words, snapshots carry one. Authority:
reference architecture.md 4.1 (arch/x86/include/asm/fpu/types.h, struct arch_lbr_state) and SDM vol. 1, chapter 13.
"""

from __future__ import annotations

from archlbr.arch.cpuid import LBR_COMPONENT
from archlbr.errors import LayoutError

COMPONENT = 15
COMPONENT_BIT = 1 << COMPONENT
COMPACTED = 1 << 63

# The area: 512 bytes of x87 and SSE state, 64 bytes of header, then the compacted components.
XSTATE_BV = 512
XCOMP_BV = 520
HEADER_RESERVED = range(528, 576)
COMPONENT_OFFSET = 576

# Inside the component.
CTL = 0
DEPTH = 8
LER_FROM = 16
LER_TO = 24
LER_INFO = 32
ENTRY_0 = 40
ENTRY_SIZE = 24
ENTRY_FROM, ENTRY_TO, ENTRY_INFO = 0, 8, 16
MOST_ENTRIES = 32
SIZE = ENTRY_0 + MOST_ENTRIES * ENTRY_SIZE

# An area that holds this component alone, as Linux allocates it.
AREA_SIZE = COMPONENT_OFFSET + SIZE


def entry(x: int) -> int:
    """Return the offset of entry `x` (0 to 31) inside the component; LayoutError past its end."""
    if not 0 <= x < MOST_ENTRIES:
        raise LayoutError(f"component 15 holds entries 0 to 31, not {x}")
    return ENTRY_0 + x * ENTRY_SIZE


def compacted_offset(xcomp_bv: int, sizes: dict[int, tuple[int, bool]]) -> int:
    """Return where component 15 starts in a compacted area.

    xcomp_bv: the header's bitmap. sizes: component -> (bytes, aligned to 64) for each component in 2..14 that it names;
    LayoutError when one is missing. Authority: SDM vol. 1, 13.4.3.
    """
    offset = COMPONENT_OFFSET
    for component in range(2, COMPONENT):
        if xcomp_bv >> component & 1:
            if component not in sizes:
                raise LayoutError(f"XCOMP_BV names component {component}, whose size is not given")
            size, aligned = sizes[component]
            offset = (-(-offset // 64) * 64 if aligned else offset) + size
    return offset


if LBR_COMPONENT.size != SIZE:
    raise LayoutError(f"component 15 ends at byte {SIZE}, but CPUID.0DH.0FH:EAX says {LBR_COMPONENT.size}")
