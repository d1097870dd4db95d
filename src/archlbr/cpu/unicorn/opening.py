"""Opening an engine where there is room for what it translates; else it would end the process by itself.

`engine` and `supervisor` open theirs here. The buffer is the library's (qemu/accel/tcg/translate-all.c,
code_gen_alloc, which calls exit where mmap fails).
"""

from __future__ import annotations

import mmap
import os
from typing import Any, Final

import unicorn
from unicorn import unicorn_const as uc

from archlbr.errors import InputError

_BUFFER: Final = 1 << 30
_FLAGS: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_PROTECTION: Final = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC


def opened() -> Any:
    """Return an x86-64 engine that has run nothing; InputError when its buffer cannot be had."""
    try:
        mmap.mmap(-1, _BUFFER, flags=_FLAGS, prot=_PROTECTION).close()
    except OSError as error:
        raise InputError(
            f"the engine's 1 GiB of address space for translated code cannot be had: {os.strerror(error.errno or 0)}; "
            "raise the limit (ulimit -v)"
        ) from error
    return unicorn.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
