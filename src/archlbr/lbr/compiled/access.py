"""RDMSR and WRMSR natively: the twin of `lbr.registers`.

`machine` calls them from its native hooks, as a PMI handler would. CPL is 0; a register that is not the facility's
answers as one that does not exist. The authorities stand in `lbr.registers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from archlbr.arch import msrs
from archlbr.lbr.compiled import words as w
from archlbr.lbr.compiled.freezing import thaw
from archlbr.lbr.compiled.recorder import refresh, wipe
from archlbr.lbr.state import (
    ARCH,
    FORMAT_32,
    FORMAT_EIP_FLAGS,
    FORMAT_EIP_FLAGS2,
    FORMAT_INFO,
    FORMAT_INFO2,
    FORMAT_TIME,
)
from archlbr.native import native

if TYPE_CHECKING:
    from archlbr.lbr.compiled.words import Words

_U = np.uint64
U0, U1, U2, U3, U4, U7, U8, U32, U61, U63, U64 = (_U(n) for n in (0, 1, 2, 3, 4, 7, 8, 32, 61, 63, 64))
_ALL = _U((1 << 64) - 1)
_ARCH = _U(ARCH)
_FORMAT_32, _FLAGS, _FLAGS2, _INFO, _TIME, _INFO2 = (
    _U(n) for n in (FORMAT_32, FORMAT_EIP_FLAGS, FORMAT_EIP_FLAGS2, FORMAT_INFO, FORMAT_TIME, FORMAT_INFO2)
)
_RING, _STRIDE = _U(w.RING), _U(w.STRIDE)
_LBR_FRZ = _U(msrs.LBR_FRZ)
_LBR = _U(msrs.DEBUGCTL_LBR)
_COMPONENT = _U(1 << 15)

_CTL, _DEPTH = _U(msrs.IA32_LBR_CTL.index), _U(msrs.IA32_LBR_DEPTH.index)
_LER_FROM, _LER_TO, _LER_INFO = (
    _U(register.index) for register in (msrs.IA32_LER_FROM_IP, msrs.IA32_LER_TO_IP, msrs.IA32_LER_INFO)
)
_SELECT, _TOS = _U(msrs.MSR_LBR_SELECT.index), _U(msrs.MSR_LASTBRANCH_TOS.index)
_DEBUGCTL, _CAPABILITIES, _XSS = (
    _U(register.index) for register in (msrs.IA32_DEBUGCTL, msrs.IA32_PERF_CAPABILITIES, msrs.IA32_XSS)
)
_STATUS, _STATUS_RESET, _STATUS_SET = (
    _U(register.index)
    for register in (
        msrs.IA32_PERF_GLOBAL_STATUS, msrs.IA32_PERF_GLOBAL_STATUS_RESET, msrs.IA32_PERF_GLOBAL_STATUS_SET,
    )
)  # fmt: skip
_FROM, _TO, _ENTRY_INFO = (
    _U(register.index) for register in (msrs.IA32_LBR_FROM_IP, msrs.IA32_LBR_TO_IP, msrs.IA32_LBR_INFO)
)
_OLD_FROM, _OLD_TO, _OLD_INFO = (
    _U(register.index) for register in (msrs.MSR_LASTBRANCH_FROM_IP, msrs.MSR_LASTBRANCH_TO_IP, msrs.MSR_LBR_INFO)
)


@native
def sign_extended(value: _U, width: _U, top: _U) -> bool:
    """Say whether bits top-1 .. width-1 are all the same (`legacy.sign_extended`)."""
    high = value << (U64 - top) >> (U64 - top) >> (width - U1)
    return bool(high == U0 or high == (U1 << (top - width + U1)) - U1)


@native
def entry_word(words: Words, index: _U) -> _U:
    """Return the word of an entry's register, or 0 when the register does not exist or x >= DEPTH."""
    depth = words[w.DEPTH]
    if words[w.FORMAT] == _ARCH:
        if _FROM <= index < _FROM + depth:
            x, part = index - _FROM, U0
        elif _TO <= index < _TO + depth:
            x, part = index - _TO, U1
        elif _ENTRY_INFO <= index < _ENTRY_INFO + depth:
            x, part = index - _ENTRY_INFO, U2
        else:
            return U0
        head: _U = words[w.HEAD]
        back = _STRIDE * x
        return (head if head - _RING >= back else head + _STRIDE * depth) - back + part
    if _OLD_FROM <= index < _OLD_FROM + depth:
        return _RING + _STRIDE * (index - _OLD_FROM)
    if _OLD_TO <= index < _OLD_TO + depth:
        return _RING + _STRIDE * (index - _OLD_TO) + U1
    if _OLD_INFO <= index < _OLD_INFO + depth and (words[w.FORMAT] == _INFO or words[w.FORMAT] == _INFO2):
        return _RING + _STRIDE * (index - _OLD_INFO) + U2
    return U0


@native
def rdmsr(words: Words, index: _U) -> tuple[bool, _U]:
    """Return (True, value), or (False, 0) for #GP(0)."""
    at = entry_word(words, index)
    if at:
        return True, words[at]
    if index == _LER_FROM:
        return True, words[w.LER_FROM]
    if index == _LER_TO:
        return True, words[w.LER_TO]
    if index == _DEBUGCTL:
        return True, words[w.DEBUGCTL]
    if index == _CAPABILITIES:
        return True, words[w.FORMAT]
    version = words[w.PMU_VERSION]
    if index == _STATUS and version >= U2:
        return True, words[w.FROZEN] * _LBR_FRZ
    if (index == _STATUS_RESET and version >= U2) or (index == _STATUS_SET and version >= U4):
        return True, U0
    if index == _XSS and words[w.XSAVES]:
        return True, words[w.XSS]
    if words[w.FORMAT] == _ARCH:
        if index == _CTL:
            return True, words[w.CTL]
        if index == _DEPTH:
            return True, words[w.DEPTH]
        if index == _LER_INFO:
            return True, words[w.LER_INFO]
        return False, U0
    if index == _SELECT:
        return True, words[w.SELECT]
    if index == _TOS:
        return True, (words[w.HEAD] - _RING) // _STRIDE
    return False, U0


@native
def _address_writable(words: Words, part: _U, value: _U) -> bool:
    """Say whether FROM (part 0) or TO (part 1) of an entry takes the value; INFO takes any."""
    form, width = words[w.FORMAT], words[w.LINEAR_WIDTH]
    if part == U2:
        return True
    if form == _ARCH:
        return sign_extended(value, width, U64)
    if form == _FORMAT_32:
        return bool(value >> U32 == U0)
    if part == U1:
        return bool(form == _TIME) or sign_extended(value, width, U64)
    if form == _FLAGS2 and words[w.TSX]:
        return sign_extended(value, width, U61)
    if form in (_FLAGS, _FLAGS2, _TIME):
        return sign_extended(value, width, U63)
    return sign_extended(value, width, U64)


@native
def _write_depth(words: Words, value: _U) -> bool:
    number = value >> U3
    if value & U7 or number < U1 or number > U8 or not words[w.DEPTH_MASK] >> (number - U1) & U1:
        return False
    words[w.DEPTH] = value
    wipe(words)
    refresh(words)
    return True


@native
def wrmsr(words: Words, index: _U, value: _U) -> bool:
    """Write a register; False for #GP(0)."""
    at = entry_word(words, index)
    if at:
        if not _address_writable(words, (at - _RING) % _STRIDE, value):
            return False
        words[at] = value
        return True
    if index in (_LER_FROM, _LER_TO):
        if not sign_extended(value, words[w.LINEAR_WIDTH], U64):
            return False
        words[w.LER_FROM if index == _LER_FROM else w.LER_TO] = value
        return True
    if index == _DEBUGCTL:
        if value & ~words[w.DEBUGCTL_LEGAL]:
            return False
        words[w.DEBUGCTL] = value & ~_LBR if words[w.FORMAT] == _ARCH else value
        refresh(words)
        return True
    version = words[w.PMU_VERSION]
    if index == _STATUS_RESET and version >= U2:
        if value & _LBR_FRZ:
            if version < U4:
                return False
            thaw(words)
        return True
    if index == _STATUS_SET and version >= U4:
        if value & _LBR_FRZ:
            words[w.FROZEN] = U1
            refresh(words)
        return True
    if index == _XSS and words[w.XSAVES]:
        if value & ~_COMPONENT:
            return False
        words[w.XSS] = value
        return True
    if words[w.FORMAT] == _ARCH:
        if index == _CTL:
            if value & ~words[w.CTL_LEGAL]:
                return False
            words[w.CTL] = value
            refresh(words)
            return True
        if index == _DEPTH:
            return _write_depth(words, value)
        if index == _LER_INFO:
            words[w.LER_INFO] = value
            return True
        return False
    if index == _SELECT:
        if value & ~words[w.SELECT_LEGAL]:
            return False
        words[w.SELECT] = value
        refresh(words)
        return True
    if index == _TOS:
        if value >= words[w.DEPTH]:
            return False
        words[w.HEAD] = _RING + _STRIDE * value
        return True
    return False
