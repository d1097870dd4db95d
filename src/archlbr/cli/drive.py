"""Running a machine: its console on stdin and stdout, looks at the wall clock and at who asks something of it.

`cli.run` and `cli.restore` give it a board. It looks each 20 ms of the model's clock, on a grid that starts at 0: that
is when what was typed enters, so that a run whose input is a file is the same each time, and the same after a snapshot.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from archlbr.cli.stats import Stopwatch
    from archlbr.machine.board import Board

# Model nanoseconds between two looks.
LOOK: Final = 20_000_000
TIMED_OUT: Final = 124  # as timeout(1) has it


class Asker(Protocol):
    """Who may ask something of the machine at a look."""

    def look(self) -> bool:
        """Do what was asked; say whether the machine has left this process."""


@contextmanager
def holding_interrupts(stop: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back while the engine runs; the function that is given raises the KeyboardInterrupt that waits.

    The engine calls Python for each access of a port, by ctypes, which prints a KeyboardInterrupt that is raised there,
    and goes on. So `stop` is called instead, and asks the engine to come back. A second Ctrl-C ends the process.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, as in a script's background
        yield lambda: None
        return
    came = False

    def note(_number: int, _frame: object) -> None:
        nonlocal came
        came = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        stop()

    def look() -> None:
        if came:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield look
    finally:
        signal.signal(signal.SIGINT, before)


def drive(
    board: Board, console: bytearray, watch: Stopwatch, timeout: float, until: int = 0, asker: Asker | None = None
) -> int | None:
    """Run a machine until it ends; return its exit status, TIMED_OUT, or None at `until` or when it has left.

    until: the model's clock in nanoseconds, 0 for no end. What is typed enters at a look, at most 64 bytes, once the
    guest listens and has read all that came before.
    """
    with holding_interrupts(board.stop) as look:
        return _drive(board, console, watch, timeout, until, asker, look)


def _drive(
    board: Board,
    console: bytearray,
    watch: Stopwatch,
    timeout: float,
    until: int,
    asker: Asker | None,
    look: Callable[[], None],
) -> int | None:
    keyboard = open_keyboard()
    while True:
        target = (board.now() // LOOK + 1) * LOOK
        status = board.run(min(target, until) if until else target)
        show(console)
        look()
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
