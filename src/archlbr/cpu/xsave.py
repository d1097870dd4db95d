"""What XSAVE and its kin write and load, without the LBRs: the header, and the legacy region of x87 and SSE state.

`machine.extended` gathers the operands, asks here what becomes of them, and puts component 15 beside it (`lbr.xsaves`).
Bytes come in, bytes go out; a fault is None. Which state is in its initial configuration is told exactly, and the
modified optimisation, which a processor may leave out, is left out. Authority: SDM vol. 1, 13.4 to 13.12, and the
operations of vol. 2, XSAVE, XSAVEC, XSAVEOPT, XSAVES, XRSTOR, XRSTORS.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from archlbr.arch.xsave import COMPACTED

X87: Final = 1
SSE: Final = 2
HEADER_SIZE: Final = 64
INITIAL_MXCSR: Final = 0x1F80
MXCSR_MASK: Final = 0xFFFF

# The legacy region (SDM vol. 1, 10.5.1): control words, then MXCSR and its mask, ST0 to ST7, XMM0 to XMM15.
_CONTROL: Final = slice(0, 24)
_MXCSR: Final = slice(24, 32)
_STACK: Final = slice(32, 160)
_XMM_AT: Final = 160
_INITIAL_CONTROL: Final = struct.pack("<H22x", 0x037F)  # FNINIT: all masked, nothing on the stack
_BITMAPS: Final = struct.Struct("<QQ")


class Form(NamedTuple):
    """A kind of XSAVE or XRSTOR.

    compacted: writes the compacted format, or reads no other. sparing: what is in its initial configuration is not
    written. supervisor: in ring 0 only, and IA32_XSS counts.
    """

    saves: int
    compacted: int
    sparing: int
    supervisor: int


FORMS: Final = {
    "xsave": Form(1, 0, 0, 0),
    "xsaveopt": Form(1, 0, 1, 0),
    "xsavec": Form(1, 1, 1, 0),
    "xsaves": Form(1, 1, 1, 1),
    "xrstor": Form(0, 0, 0, 0),
    "xrstors": Form(0, 1, 0, 1),
}


def _vectors(wide: int) -> slice:
    # Outside of 64-bit code there are XMM0 to XMM7 only.
    return slice(_XMM_AT, _XMM_AT + 16 * (16 if wide else 8))


def _mxcsr(legacy: bytes) -> int:
    return int.from_bytes(legacy[24:28], "little")


def in_use(image: bytes, wide: int) -> int:
    """Return XINUSE[1:0] of a processor whose x87 and SSE state is an image of 512 bytes (13.6)."""
    x87 = image[_CONTROL] != _INITIAL_CONTROL or any(image[_STACK])
    return X87 * x87 | SSE * any(image[_vectors(wide)])


def saved(
    form: Form, rfbm: int, used: int, image: bytes, old: int, wide: int
) -> tuple[tuple[tuple[int, bytes], ...], bytes]:
    """Return what an instruction writes: pieces of the legacy region, (offset, bytes), and what the header begins with.

    rfbm: the requested components. used: XINUSE, with the bits of components above 1 as the caller has written them.
    image: x87 and SSE state. old: XSTATE_BV as it was. The last piece of the standard format is 8 bytes: XSTATE_BV.
    """
    kept = rfbm & used if form.sparing else rfbm
    if form.compacted and rfbm & SSE and _mxcsr(image) != INITIAL_MXCSR:
        kept |= SSE
    pieces: list[tuple[int, bytes]] = []
    if kept & X87:
        pieces += [(_CONTROL.start, image[_CONTROL]), (_STACK.start, image[_STACK])]
    if (kept if form.compacted else rfbm) & SSE:
        pieces.append((_MXCSR.start, image[_MXCSR]))
    if kept & SSE:
        pieces.append((_XMM_AT, image[_vectors(wide)]))
    if form.compacted:
        return tuple(pieces), _BITMAPS.pack(kept, COMPACTED | rfbm)
    return tuple(pieces), (old & ~rfbm | used & rfbm).to_bytes(8, "little")


# Where MXCSR comes from.
KEPT, FROM_MEMORY, INITIAL = range(3)


class Loading(NamedTuple):
    """What an XRSTOR does: the components it loads, those it initialises, and where MXCSR comes from."""

    loads: int
    initialises: int
    mxcsr: int

    @property
    def reads_legacy(self) -> int:
        """Return 1 when the legacy region is read."""
        return int(bool(self.loads & (X87 | SSE)) or self.mxcsr == FROM_MEMORY)


def loading(form: Form, rfbm: int, enabled: int, header: bytes) -> Loading | None:
    """Return what an instruction loads by a header of 64 bytes, or None for #GP (13.8, 13.12).

    enabled: XCR0, with IA32_XSS for the supervisor's form.
    """
    there, compacted = _BITMAPS.unpack_from(header)
    if not compacted & COMPACTED:
        # The standard format: XCOMP_BV and the eight bytes behind it must be 0, what follows is not looked at.
        if form.compacted or there & ~enabled or any(header[8:24]):
            return None
        return Loading(rfbm & there, rfbm & ~there, FROM_MEMORY if rfbm & SSE else KEPT)
    components = compacted & ~COMPACTED
    if components & ~enabled or there & ~components or any(header[16:]):
        return None
    loads = rfbm & there
    initialises = rfbm & ~loads
    return Loading(loads, initialises, FROM_MEMORY if loads & SSE else INITIAL if initialises & SSE else KEPT)


def loaded(plan: Loading, image: bytes, legacy: bytes, wide: int) -> bytes | None:
    """Return x87 and SSE state after the instruction, from the state before and the legacy region; None for #GP."""
    after = bytearray(image)
    if plan.loads & X87:
        after[_CONTROL], after[_STACK] = legacy[_CONTROL], legacy[_STACK]
    elif plan.initialises & X87:
        after[_CONTROL], after[_STACK] = _INITIAL_CONTROL, bytes(_STACK.stop - _STACK.start)
    vectors = _vectors(wide)
    if plan.loads & SSE:
        after[vectors] = legacy[vectors]
    elif plan.initialises & SSE:
        after[vectors] = bytes(vectors.stop - vectors.start)
    if plan.mxcsr == FROM_MEMORY:
        if _mxcsr(legacy) & ~MXCSR_MASK:
            return None
        after[24:28] = legacy[24:28]
    elif plan.mxcsr == INITIAL:
        after[24:28] = INITIAL_MXCSR.to_bytes(4, "little")
    return bytes(after)
