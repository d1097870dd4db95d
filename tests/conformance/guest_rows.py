"""The conformance table asked of a guest built from tests/guests/rows.c, which boots on the board by multiboot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.machine.msr_guest import Layout
from tests.guests.images import build, symbols

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from archlbr.machine.board import Board

# Where branches are taken, 400000H on, nothing else may lie.
LOAD = 0x200000
STUBS = ("rdmsr", "wrmsr", "cpuid", "xsaves", "xrstors")
# The selectors of flat.S.
SELECTORS = {0: (0x08, 0x10), 3: (0x33, 0x2B)}


def booted(folder: Path) -> Callable[[Board], Layout]:
    """Build the guest; return what boots it on a board and says where it is once it waits."""
    image = build(folder, "rows", "flat.S", "gates.S", "rows.c", load=LOAD)
    places = symbols(image)

    def boot(board: Board) -> Layout:
        board.start_image(image.read_bytes(), "rows", b"", "")
        assert board.run(10**7) == 0
        stubs = {name: places[f"row_{name}"] for name in STUBS}
        return Layout(stubs, places["mailbox"], places["area"], places["stack_top"] - 8, SELECTORS)

    return boot
