"""Running a machine: its console on stdin and stdout, looks at the wall clock and at who asks something of it.

`cli.run` and `cli.restore` give it a board. It looks each 20 ms of the model's clock, on a grid that starts at 0: that
is when what was typed enters, so that a run whose input is a file is the same each time, and the same after a snapshot.
"""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from archlbr.cli.stats import Stopwatch
    from archlbr.machine.board import Board

# Model nanoseconds between two looks.
LOOK: Final = 20_000_000
TIMED_OUT: Final = 124  # as timeout(1) has it


class Asker(Protocol):
    """Who may ask something of the machine at a look."""

    def look(self) -> bool:
        """Do what was asked; say whether the machine has left this process."""


def drive(
    board: Board, console: bytearray, watch: Stopwatch, timeout: float, until: int = 0, asker: Asker | None = None
) -> int | None:
    """Run a machine until it ends; return its exit status, TIMED_OUT, or None at `until` or when it has left.

    until: the model's clock in nanoseconds, 0 for no end. What is typed enters at a look, at most 64 bytes, once the
    guest listens and has read all that came before.
    """
    keyboard = open_keyboard()
    while True:
        target = (board.now() // LOOK + 1) * LOOK
        status = board.run(min(target, until) if until else target)
        show(console)
        if status is not None:
            if board.cause:
                print(f"archlbr: the machine ended: {board.cause}", file=sys.stderr)
            return status
        if timeout and watch.seconds() > timeout:
            print(f"archlbr: the machine ran for {timeout:g} s without an end", file=sys.stderr)
            return TIMED_OUT
        if board.now() >= target and keyboard >= 0 and board.serial.wanted:
            keyboard = _take_typed(board, keyboard)
        if until and board.now() >= until:
            return None
        if asker is not None and asker.look():
            return None


def show(console: bytearray) -> None:
    """Write what the guest has sent to its console."""
    if console:
        sys.stdout.buffer.write(bytes(console))
        sys.stdout.buffer.flush()
        console.clear()


def _take_typed(board: Board, keyboard: int) -> int:
    if select.select([keyboard], [], [], 0)[0]:
        typed = os.read(keyboard, 64)
        if not typed:
            return -1
        board.serial.receive(typed)
    return keyboard


def open_keyboard() -> int:
    """Return stdin's descriptor, -1 when there is none."""
    try:
        return sys.stdin.fileno()
    except (OSError, ValueError):
        return -1
