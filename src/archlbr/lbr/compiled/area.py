"""XSAVES and XRSTORS of component 15 natively: the twin of `lbr.xsaves`.

`machine` calls them on guest memory. CPL is 0. The authorities stand in `lbr.xsaves`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from archlbr.arch import xsave
from archlbr.lbr.compiled import words as w
from archlbr.lbr.compiled.access import sign_extended
from archlbr.lbr.compiled.recorder import refresh, wipe
from archlbr.native import native

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archlbr.lbr.compiled.words import Words

_U = np.uint64
U0, U3, U64 = _U(0), _U(3), _U(64)
_RING, _STRIDE = _U(w.RING), _U(w.STRIDE)
_COMPACTED, _COMPONENT = _U(xsave.COMPACTED), _U(xsave.COMPONENT_BIT)
# The area as 64-bit words.
_LENGTH = xsave.AREA_SIZE
_XSTATE_BV, _XCOMP_BV = xsave.XSTATE_BV // 8, xsave.XCOMP_BV // 8
_RESERVED_FIRST, _RESERVED_END = xsave.HEADER_RESERVED.start // 8, xsave.HEADER_RESERVED.stop // 8
_CTL = (xsave.COMPONENT_OFFSET + xsave.CTL) // 8
_DEPTH = (xsave.COMPONENT_OFFSET + xsave.DEPTH) // 8
_LER = (xsave.COMPONENT_OFFSET + xsave.LER_FROM) // 8
_ENTRY_0 = (xsave.COMPONENT_OFFSET + xsave.ENTRY_0) // 8

# What the instructions come to: done, or the vector of the fault.
DONE, UNDEFINED_OPCODE, GENERAL_PROTECTION = 0, 6, 13


@native
def in_use(words: Words) -> bool:
    """Say whether XINUSE[15] is 1."""
    used = words[w.CTL] | words[w.LER_FROM] | words[w.LER_TO] | words[w.LER_INFO]
    for at in range(w.RING, w.COUNT):
        used |= words[at]
    return bool(used != U0)


@native
def xsaves(words: Words, area: NDArray[np.uint8], rfbm: _U) -> int:
    """Write the area (uint8[1384] or more, contiguous); return 0, or 6 for #UD."""
    if not words[w.XSAVES]:
        return UNDEFINED_OPCODE
    image = area[:_LENGTH].view(np.uint64)
    asked = rfbm & words[w.XSS]
    image[_XCOMP_BV] = _COMPACTED | asked
    if not asked or not in_use(words):
        image[_XSTATE_BV] = U0
        return DONE
    image[_XSTATE_BV] = asked
    image[_CTL] = words[w.CTL]
    image[_DEPTH] = words[w.DEPTH]
    for part in range(3):
        image[_LER + part] = words[w.LER_FROM + part]
    at = words[w.HEAD]
    for x in range(words[w.DEPTH]):
        for part in range(3):
            image[_ENTRY_0 + 3 * x + part] = words[at + _U(part)]
        if at == _RING:
            at = words[w.RING_END]
        at -= _STRIDE
    return DONE


@native
def xrstors(words: Words, area: NDArray[np.uint8], rfbm: _U) -> int:
    """Read the area (uint8[1384] or more, contiguous); return 0, 6 for #UD or 13 for #GP(0)."""
    if not words[w.XSAVES]:
        return UNDEFINED_OPCODE
    image = area[:_LENGTH].view(np.uint64)
    saved, compacted = image[_XSTATE_BV], image[_XCOMP_BV]
    if not compacted & _COMPACTED or compacted & ~(_COMPACTED | words[w.XSS] | U3) or saved & ~compacted:
        return GENERAL_PROTECTION
    reserved = saved & _COMPACTED
    for at in range(_RESERVED_FIRST, _RESERVED_END):
        reserved |= image[at]
    if reserved:
        return GENERAL_PROTECTION
    if not rfbm & words[w.XSS]:
        return DONE
    if not saved & _COMPONENT:
        _initialise(words)
        return DONE
    if image[_CTL] & ~words[w.CTL_LEGAL]:
        return GENERAL_PROTECTION
    depth = words[w.DEPTH]
    if image[_DEPTH] != depth:
        _initialise(words)
        return DONE
    width = words[w.LINEAR_WIDTH]
    if not sign_extended(image[_LER], width, U64) or not sign_extended(image[_LER + 1], width, U64):
        return GENERAL_PROTECTION
    for x in range(depth):
        for part in range(2):
            if not sign_extended(image[_ENTRY_0 + 3 * x + part], width, U64):
                return GENERAL_PROTECTION
    wipe(words)
    words[w.CTL] = image[_CTL]
    for part in range(3):
        words[w.LER_FROM + part] = image[_LER + part]
    words[w.HEAD] = words[w.RING_END] - _STRIDE
    for x in range(depth):
        for part in range(3):
            words[w.RING + 3 * (depth - _U(1) - x) + _U(part)] = image[_ENTRY_0 + 3 * x + part]
    refresh(words)
    return DONE


@native
def _initialise(words: Words) -> None:
    """Put the component in its initial configuration: all 0 but DEPTH."""
    words[w.CTL] = words[w.LER_FROM] = words[w.LER_TO] = words[w.LER_INFO] = U0
    wipe(words)
    refresh(words)
