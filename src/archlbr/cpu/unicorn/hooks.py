"""Plant compiled hooks in the engine: the one call that its Python interface has no word for.

That interface wraps each hook in Python; ours are addresses of compiled code (uc.h, uc_hook_add). `engine` and
`supervisor` plant what `intercepts` and `machine` compile.
"""

from __future__ import annotations

import ctypes
from typing import Any

from unicorn import unicorn_const as uc
from unicorn.unicorn_py3.unicorn import uclib

from archlbr.errors import InternalError


def plant(handle: Any, kind: int, function: int, pointer: int, *extra: int) -> int:
    """Add a compiled hook of one of Unicorn's kinds, for all of memory; return the hook, to delete it by."""
    hook = ctypes.c_size_t()
    status = uclib.uc_hook_add(
        handle,
        ctypes.byref(hook),
        ctypes.c_int(kind),
        ctypes.c_void_p(function),
        ctypes.c_void_p(pointer),
        ctypes.c_uint64(1),
        ctypes.c_uint64(0),
        *(ctypes.c_int(value) for value in extra),
    )
    if status != uc.UC_ERR_OK:
        raise InternalError(f"hook {kind:#x} refused by the engine with error {status}")
    return hook.value
