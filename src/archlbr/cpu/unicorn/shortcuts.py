"""Detours of the engine that a run can do without: its translator and its slow path for stores, changed in memory.

Unicorn's translator plants a call behind every access to memory and at the head of every block, which asks whether
somebody wants emulation to stop; our stops are made in compiled hooks, which can leave by themselves. And where the
guest has no paging, every store takes the slow path, lest the page hold code; a mapping without execute right holds
none. `cpu.unicorn.engine` and `cpu.unicorn.supervisor` say before each run which shortcuts it takes. The places are
bytes of the one pinned wheel, compared before they are changed (docs/decisions/018).
"""

from __future__ import annotations

import ctypes
from typing import Final, NamedTuple

from unicorn.unicorn_py3.unicorn import uclib

from archlbr.errors import InternalError

NONE: Final = 0  # as the wheel has it
ACCESSES: Final = 1  # no question behind an access to memory: a stop waits for the next block
BLOCKS: Final = 2  # nor at a block: only a hook that leaves by itself ends a run
STORES: Final = 4  # a page of a mapping without execute right is written directly; a hook on stores would not see it


class _Place(NamedTuple):
    # The shortcut that needs it, a function, how far into it, what stands there, what stands there instead.
    shortcut: int
    function: str
    offset: int
    before: bytes
    after: bytes


_PLACES: Final = (
    # Each ends in a jump to check_exit_request through the linkage table: a RET instead.
    _Place(ACCESSES, "tcg_gen_qemu_ld_i32_x86_64", 0x46, b"\xe9", b"\xc3"),
    _Place(ACCESSES, "tcg_gen_qemu_st_i32_x86_64", 0x4C, b"\xe9", b"\xc3"),
    _Place(ACCESSES, "tcg_gen_qemu_ld_i64_x86_64", 0x32, b"\xe9", b"\xc3"),
    _Place(ACCESSES, "tcg_gen_qemu_st_i64_x86_64", 0x36, b"\xe9", b"\xc3"),
    # The translator's loop has the question inlined: a jump to what follows.
    _Place(BLOCKS, "translator_loop_x86_64", 0x225, b"\x48\x8b\xb5\x70\x99\x00\x00", b"\xe9\x98\x00\x00\x00\x66\x90"),
    # notdirty_write (accel/tcg/cputlb.c), which has no symbol of its own, where the mapping is not executable: a jump
    # to tlb_set_dirty, past what asks for snapshots, for the same page as code, and for hooks.
    _Place(STORES, "check_exit_request_x86_64", 0x6103, b"\x48\x83\x7d\x08\xff", b"\xe9\xe7\x02\x00\x00"),
)
_WRITABLE, _AS_BEFORE = 7, 5

_taken = NONE


def take(shortcuts: int) -> None:
    """Take these shortcuts, and no others, in code that is generated and stores that are made from now on.

    InternalError when the wheel is not the pinned one.
    """
    global _taken
    if shortcuts == _taken:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for place in _PLACES:
        address = (ctypes.cast(getattr(uclib, place.function), ctypes.c_void_p).value or 0) + place.offset
        wanted = place.after if shortcuts & place.shortcut else place.before
        found = ctypes.string_at(address, len(wanted))
        if found == wanted:
            continue
        if found not in (place.before, place.after):
            raise InternalError(f"{place.function}+{place.offset:#x} holds {found.hex()}: install the pinned Unicorn")
        page = ctypes.c_void_p(address & -4096)
        if libc.mprotect(page, 8192, _WRITABLE):
            raise InternalError(f"the engine's code cannot be changed: errno {ctypes.get_errno()}")
        ctypes.memmove(address, wanted, len(wanted))
        libc.mprotect(page, 8192, _AS_BEFORE)
    _taken = shortcuts


def leaving() -> int:
    """Return the address of the function of (engine, 0) that leaves generated code after a stop was asked for."""
    return ctypes.cast(uclib.helper_check_exit_request_x86_64, ctypes.c_void_p).value or 0
