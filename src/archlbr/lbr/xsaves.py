"""XSAVES and XRSTORS of component 15, byte by byte, and the LBR group of a PEBS record.

`step` dispatches here; `machine` uses the component functions for areas that hold more than the LBRs. Authority:
reference architecture.md 3.8 and 4; SDM vol. 1, 13.8 to 13.12 for the header.
"""

from __future__ import annotations

import struct

from archlbr.arch import xsave
from archlbr.errors import InternalError
from archlbr.lbr.freeze import wiped
from archlbr.lbr.legacy import sign_extended
from archlbr.lbr.state import EMPTY, Entry, Facility, State, newest_first, settled

_HEAD = struct.Struct("<QQQQQ")
_ENTRY = struct.Struct("<QQQ")
_HEADER = struct.Struct("<QQ")
# x87 and SSE state lies in the legacy region and moves no component; XCR0 always offers it.
_LEGACY_COMPONENTS = 0b11


def in_use(state: State) -> bool:
    """Say whether XINUSE[15] is 1: something other than DEPTH differs from 0 (UNCONFIRMED, mem; 4.2)."""
    return bool(state.ctl) or state.ler != EMPTY or any(entry != EMPTY for entry in state.stack)


def save_component(state: State, component: bytes) -> bytes:
    """Return the 808 bytes after XSAVES wrote them; entries at DEPTH and above keep what was there (UNCONFIRMED)."""
    written = bytearray(component)
    _HEAD.pack_into(written, 0, state.ctl, state.depth, *state.ler)
    for x, entry in enumerate(state.stack):
        _ENTRY.pack_into(written, xsave.entry(x), *entry)
    return bytes(written)


def load_component(facility: Facility, state: State, component: bytes) -> State | None:
    """Return the state after XRSTORS read the 808 bytes, or None for #GP (4.2).

    Reserved CTL bits fault whatever the DEPTH; addresses that are not canonical fault (UNCONFIRMED, mem). A DEPTH
    other than the current one, legal or not, clears entries, LER and CTL (entries and LER: TDX; CTL and an illegal
    DEPTH: UNCONFIRMED). DEPTH itself is never written.
    """
    ctl, depth, *ler = _HEAD.unpack_from(component, 0)
    if ctl & ~facility.ctl_legal:
        return None
    if depth != state.depth:
        return init_component(facility, state)
    used = component[xsave.ENTRY_0 : xsave.ENTRY_0 + depth * xsave.ENTRY_SIZE]
    stack = tuple(map(Entry._make, _ENTRY.iter_unpack(used)))
    addresses = {address for source, target, _ in (ler, *stack) for address in (source, target)}
    if not all(sign_extended(address, facility.linear_width, 64) for address in addresses):
        return None
    return state._replace(ctl=ctl, ler=Entry(*ler), stack=stack, since=0, timed=0, pending=0)


def init_component(facility: Facility, state: State) -> State:
    """Return the state with component 15 in its initial configuration: all 0 but DEPTH (4.2)."""
    return settled(facility, wiped(state)._replace(ctl=0, ler=EMPTY))


def xsaves(state: State, area: bytes, rfbm: int) -> bytes:
    """Return the area after XSAVES with the requested features `rfbm & IA32_XSS`.

    XSTATE_BV and XCOMP_BV are written whole; the component only when in use. LBREn stays as it is (4.2).
    """
    _check(area, rfbm)
    asked = rfbm & state.xss
    saved = asked if in_use(state) else 0
    written = bytearray(area)
    _HEADER.pack_into(written, xsave.XSTATE_BV, saved, xsave.COMPACTED | asked)
    if saved:
        here = slice(xsave.COMPONENT_OFFSET, xsave.AREA_SIZE)
        written[here] = save_component(state, bytes(written[here]))
    return bytes(written)


def in_image(area: bytes) -> bytes:
    """Return what of the component XSAVES has written into an area: none of it, or all up to the last entry's end."""
    (saved,) = struct.unpack_from("<Q", area, xsave.XSTATE_BV)
    if not saved & xsave.COMPONENT_BIT:
        return b""
    (depth,) = struct.unpack_from("<Q", area, xsave.COMPONENT_OFFSET + xsave.DEPTH)
    return area[xsave.COMPONENT_OFFSET : xsave.COMPONENT_OFFSET + xsave.ENTRY_0 + depth * xsave.ENTRY_SIZE]


def xrstors(facility: Facility, state: State, area: bytes, rfbm: int) -> State | None:
    """Return the state after XRSTORS with the requested features `rfbm & IA32_XSS`, or None for #GP.

    A fault leaves the state as it was, one of the three things the manual allows (SDM vol. 1, 13.12).
    """
    _check(area, rfbm)
    saved, compacted = _HEADER.unpack_from(area, xsave.XSTATE_BV)
    enabled = state.xss | _LEGACY_COMPONENTS
    if not compacted & xsave.COMPACTED or compacted & ~(xsave.COMPACTED | enabled) or saved & ~compacted:
        return None
    # XSTATE_BV[63] is no component, and bits 63:32 of it are never enabled.
    if saved & xsave.COMPACTED or any(area[at] for at in xsave.HEADER_RESERVED):
        return None
    if not rfbm & state.xss:
        return state
    if not saved & xsave.COMPONENT_BIT:
        return init_component(facility, state)
    return load_component(facility, state, area[xsave.COMPONENT_OFFSET : xsave.AREA_SIZE])


def _check(area: bytes, rfbm: int) -> None:
    if rfbm & ~xsave.COMPONENT_BIT:
        raise InternalError(f"XSAVES of components {rfbm:#x}: the facility holds component 15 alone")
    if len(area) < xsave.AREA_SIZE:
        raise InternalError(f"an area of {len(area)} bytes cannot hold component 15, which ends at {xsave.AREA_SIZE}")


def pebs_group(facility: Facility, state: State, data_cfg: int) -> bytes:
    """Return the LBR group of a PEBS record: n x (FROM, TO, INFO), entry 0 first; nothing without DATA_CFG[3].

    n is DATA_CFG[31:24] + 1; entries at DEPTH and above read 0 (UNCONFIRMED; 3.8).
    """
    if not data_cfg >> 3 & 1:
        return b""
    count = (data_cfg >> 24 & 0xFF) + 1
    entries = newest_first(facility, state)[:count]
    group = b"".join(_ENTRY.pack(*entry) for entry in entries)
    return group.ljust(count * _ENTRY.size, b"\0")
