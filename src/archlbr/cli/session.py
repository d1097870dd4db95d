"""One machine's stay in this process: where its output goes, when it ends, and who may ask something of it.

`cli.run` and `cli.restore` open one, build a board on its buffers, and drive it.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from archlbr.cli.control import Control, save
from archlbr.cli.drive import drive
from archlbr.cli.stats import Stopwatch
from archlbr.errors import InputError
from archlbr.profile.output import Output

if TYPE_CHECKING:
    from types import TracebackType

    from archlbr.cli.drive import Asker
    from archlbr.machine.board import Board

LEFT_UNCONFIRMED = 1


class Session:
    """Buffers for both serial ports, and the files around them; the second port's output appears when it ends well.

    until: the model's clock in ns at which the run ends, 0 for never; snapshot: a file for the machine as it is then.
    control: the socket at which others may ask.
    """

    def __init__(
        self,
        output: str | None,
        timeout: float,
        until: int = 0,
        snapshot: str | None = None,
        control: str | None = None,
    ) -> None:
        if snapshot is not None and not until:
            raise InputError("--snapshot says where, not when: give the model's clock in nanoseconds with --until")
        if until < 0:
            raise InputError(f"--until {until}: no clock is there; give nanoseconds since the machine started")
        self.console = bytearray()
        self.sent = bytearray()
        self.watch = Stopwatch()
        self._timeout, self._until = timeout, until
        self._snapshot, self._control = snapshot, control
        self._out = Output(output) if output is not None else None
        self._left = False

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._out is None:
            return
        if error is None and not self._left:
            self._out.write(bytes(self.sent))
            self._out.commit()
        else:
            self._out.abort()

    def drive(self, board: Board, asker: Asker | None = None) -> int:
        """Run the machine until it ends, leaves or is there; return the exit status."""
        with contextlib.ExitStack() as open_files:
            control = None
            if self._control is not None:
                control = open_files.enter_context(Control(self._control, board, self.sent))
            status = drive(board, self.console, self.watch, self._timeout, self._until, _Both(asker, control))
            if control is not None and control.left is not None:
                self._left = True
                if not control.left.confirmed:
                    print("archlbr: the machine was handed over, and nothing was heard of it", file=sys.stderr)
                    return LEFT_UNCONFIRMED
                return 0
            if status is None and self._snapshot is not None:
                save(board, bytes(self.sent), self._snapshot)
        return status or 0

    def print_stats(self, board: Board) -> None:
        """Print the line of numbers."""
        from archlbr.cpu import words as at

        words = board.words
        counts = {"instructions": int(words[at.RETIRED]), "branches": int(words[at.TAKEN])}
        self.watch.print(**counts, samples=0, engine="unicorn")


class _Both:
    def __init__(self, *askers: Asker | None) -> None:
        self._askers = [asker for asker in askers if asker is not None]

    def look(self) -> bool:
        looks = [asker.look() for asker in self._askers]  # each of them looks
        return any(looks)
