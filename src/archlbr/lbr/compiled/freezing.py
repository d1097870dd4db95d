"""What stops and starts recording, natively: the twin of `lbr.freeze`.

`machine` calls these between branches. The authorities stand in `lbr.freeze`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from archlbr.arch import msrs
from archlbr.lbr.compiled import words as w
from archlbr.lbr.compiled.recorder import refresh, wipe
from archlbr.lbr.freeze import SMM_OFF
from archlbr.lbr.state import ARCH
from archlbr.native import native

if TYPE_CHECKING:
    from archlbr.lbr.compiled.words import Words

_U = np.uint64
U0, U1, U4 = _U(0), _U(1), _U(4)
_ARCH = _U(ARCH)
_LBREN = _U(msrs.CTL_LBREN)
_FREEZE_LBRS, _FREEZE_SMM = _U(msrs.DEBUGCTL_FREEZE_LBRS), _U(msrs.DEBUGCTL_FREEZE_SMM)
_SMM_OFF = _U(SMM_OFF)


@native
def disable(words: Words) -> None:
    """Clear LBREn, or DEBUGCTL.LBR in the legacy facility."""
    at = w.CTL if words[w.FORMAT] == _ARCH else w.DEBUGCTL
    words[at] &= ~_LBREN
    refresh(words)


@native
def pmi(words: Words) -> None:
    """Freeze on a PMI as DEBUGCTL[11] and the PMU's version have it."""
    if not words[w.DEBUGCTL] & _FREEZE_LBRS:
        return
    if words[w.PMU_VERSION] >= U4:
        words[w.FROZEN] = U1
        refresh(words)
    else:
        disable(words)


@native
def thaw(words: Words) -> None:
    """Clear LBR_FRZ."""
    words[w.FROZEN] = U0
    refresh(words)


@native
def debug_exception(words: Words) -> None:
    """Deliver #DB."""
    disable(words)


@native
def smi(words: Words) -> None:
    """Deliver #SMI; in SMM it is held back."""
    if words[w.SMM]:
        return
    saved = U1 | (words[w.CTL] & U1) << U1
    if words[w.DEBUGCTL] & _FREEZE_SMM:
        saved |= U4
        words[w.SMM_DEBUGCTL] = words[w.DEBUGCTL]
        words[w.DEBUGCTL] &= ~_SMM_OFF
    words[w.SMM] = saved
    words[w.CTL] &= ~_LBREN
    refresh(words)


@native
def rsm(words: Words) -> bool:
    """Return from SMM; False (#UD) outside it."""
    smm = words[w.SMM]
    if not smm:
        return False
    words[w.CTL] = words[w.CTL] & ~_LBREN | smm >> U1 & U1
    if smm & U4:
        words[w.DEBUGCTL] = words[w.SMM_DEBUGCTL]
    words[w.SMM] = words[w.SMM_DEBUGCTL] = U0
    refresh(words)
    return True


@native
def init(words: Words) -> None:
    """INIT keeps everything."""


@native
def warm_reset(words: Words) -> None:
    """Keep the LBR registers, clear LBREn and what is not theirs."""
    words[w.CTL] &= ~_LBREN
    words[w.DEBUGCTL] = words[w.FROZEN] = words[w.XSS] = words[w.SMM] = words[w.SMM_DEBUGCTL] = U0
    refresh(words)


@native
def cold_reset(words: Words) -> None:
    """Clear everything; DEPTH is its maximum."""
    for at in range(w.CTL, w.SMM_DEBUGCTL + 1):
        words[at] = U0
    words[w.DEPTH] = words[w.MAX_DEPTH]
    wipe(words)
    refresh(words)


@native
def deep_c_state(words: Words) -> None:
    """Clear the entries where CPUID.1CH:EAX[30] says so."""
    if words[w.DEEP_C_RESET]:
        wipe(words)
