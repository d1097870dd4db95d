"""A component-15 image in words: the 808 bytes alone, or found in a whole compacted XSAVE area.

Fed by a file's bytes, shown by `cli/decode.py`. Authority: reference architecture.md 4.1; SDM vol. 1, 13.4.2, 13.4.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from archlbr.arch import msrs, xsave
from archlbr.decode.register import Register, branch_type, describe
from archlbr.errors import InputError

if TYPE_CHECKING:
    from archlbr.decode.dump import Leaves

# Component -> (bytes, aligned to 64): arch/x86/include/asm/fpu/types.h; PT, HDC and UINTR: SDM vol. 1, 13.5. Leaf 0DH,
# where it is given, overrides them.
USUAL_SIZES: dict[int, tuple[int, bool]] = {
    2: (256, False),
    3: (64, False),
    4: (64, False),
    5: (64, False),
    6: (512, False),
    7: (1024, False),
    8: (128, False),
    9: (8, False),
    10: (8, False),
    11: (16, False),
    12: (24, False),
    13: (8, False),
    14: (48, False),
}


class Entry(NamedTuple):
    """Record x of the image; cycles is None when the count is not valid."""

    x: int
    from_ip: int
    to_ip: int
    info: int
    kind: str
    cycles: int | None
    flags: tuple[str, ...]


class Image(NamedTuple):
    """A component-15 image. offset: where it lies in the file. xstate_bv, xcomp_bv: the header's, None without one.

    entries: records 0 to depth - 1, up to the first whose FROM is 0. notes: sentences about the whole image.
    """

    offset: int
    xstate_bv: int | None
    xcomp_bv: int | None
    ctl: Register
    depth: int
    ler: Entry
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]


def read_image(content: bytes, source: str, leaves: Leaves | None = None) -> Image:
    """Return the image in a file's bytes; InputError when there is none.

    leaves: where leaf 0DH says how large the components in front of it are; without them the usual sizes hold.
    """
    if len(content) == xsave.SIZE:
        return _image(content, 0, None, None)
    if len(content) < xsave.COMPONENT_OFFSET:
        raise InputError(
            f"{source}: {len(content)} bytes, too short: give the {xsave.SIZE} bytes of component 15, "
            f"or a whole compacted XSAVE area of at least {xsave.AREA_SIZE}"
        )
    xstate_bv, xcomp_bv = _word(content, xsave.XSTATE_BV), _word(content, xsave.XCOMP_BV)
    if not xcomp_bv & xsave.COMPACTED:
        raise InputError(
            f"{source}: XCOMP_BV[63] is 0, so this is the standard format, which never holds component 15; "
            "give an area that XSAVES wrote"
        )
    if not xcomp_bv & xsave.COMPONENT_BIT:
        raise InputError(
            f"{source}: XCOMP_BV = {xcomp_bv:#x} has no component 15; set IA32_XSS[15] and save with RFBM[15]"
        )
    offset = xsave.compacted_offset(xcomp_bv, _sizes(leaves))
    if len(content) < offset + xsave.SIZE:
        raise InputError(
            f"{source}: {len(content)} bytes, but component 15 ends at {offset + xsave.SIZE}; give the whole area"
        )
    return _image(content, offset, xstate_bv, xcomp_bv)


def _sizes(leaves: Leaves | None) -> dict[int, tuple[int, bool]]:
    told = {}
    for component in USUAL_SIZES:
        leaf = (leaves or {}).get((0xD, component))
        if leaf is not None and leaf.eax:
            told[component] = (leaf.eax, bool(leaf.ecx >> 1 & 1))
    return USUAL_SIZES | told


def _image(content: bytes, offset: int, xstate_bv: int | None, xcomp_bv: int | None) -> Image:
    ctl = describe(msrs.IA32_LBR_CTL.index, _word(content, offset + xsave.CTL))
    depth = _word(content, offset + xsave.DEPTH)
    ler = _entry(0, *(_word(content, offset + at) for at in (xsave.LER_FROM, xsave.LER_TO, xsave.LER_INFO)))
    records = [_record(content, offset, x) for x in range(xsave.MOST_ENTRIES)]
    used = records[: min(depth, xsave.MOST_ENTRIES)]
    empty = next((entry.x for entry in used if entry.from_ip == 0), len(used))
    notes = _header_notes(content, xstate_bv, xcomp_bv) + _depth_notes(depth)
    if ctl.reserved:
        notes += (f"XRSTORS faults: reserved bits of IA32_LBR_CTL are set: {ctl.reserved:#x} (architecture.md 4.2)",)
    if any(entry.from_ip for entry in used[empty:]):
        notes += (f"entry {empty} has FROM = 0, yet later ones are not empty: readers stop at {empty}",)
    if any(entry.from_ip or entry.to_ip or entry.info for entry in records[len(used) :]):
        notes += (f"the bytes of entries {len(used)} to {xsave.MOST_ENTRIES - 1} are not zero: they are no records",)
    return Image(offset, xstate_bv, xcomp_bv, ctl, depth, ler, tuple(used[:empty]), notes)


def _header_notes(content: bytes, xstate_bv: int | None, xcomp_bv: int | None) -> tuple[str, ...]:
    if xstate_bv is None or xcomp_bv is None:
        return ()
    notes: tuple[str, ...] = ()
    if not xstate_bv & xsave.COMPONENT_BIT:
        notes += ("XSTATE_BV[15] is 0: XRSTORS ignores these bytes and clears all but DEPTH (architecture.md 4.2)",)
    if xstate_bv & ~xcomp_bv:
        notes += (f"XRSTORS faults: XSTATE_BV has bits that XCOMP_BV lacks: {xstate_bv & ~xcomp_bv:#x}",)
    if any(content[at] for at in xsave.HEADER_RESERVED):
        notes += ("XRSTORS faults: bytes 16 to 63 of the XSAVE header are not zero",)
    return notes


def _depth_notes(depth: int) -> tuple[str, ...]:
    if depth % 8 or not 8 <= depth <= xsave.MOST_ENTRIES:
        return (f"DEPTH = {depth} is no depth this image can hold: XRSTORS clears the entries or faults (UNCONFIRMED)",)
    return ()


def _record(content: bytes, offset: int, x: int) -> Entry:
    at = offset + xsave.entry(x)
    words = (_word(content, at + part) for part in (xsave.ENTRY_FROM, xsave.ENTRY_TO, xsave.ENTRY_INFO))
    return _entry(x, *words)


def _entry(x: int, from_ip: int, to_ip: int, info: int) -> Entry:
    cycles = info & msrs.CYC_CNT_MAX if info & msrs.INFO_CYC_VALID else None
    flags = {"mispredicted": msrs.INFO_MISPRED, "in transaction": msrs.INFO_IN_TX, "abort": msrs.INFO_ABORT}
    kind = branch_type(msrs.IA32_LBR_INFO.named("BR_TYPE").of(info))
    return Entry(x, from_ip, to_ip, info, kind, cycles, tuple(word for word, bit in flags.items() if info & bit))


def _word(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 8], "little")
