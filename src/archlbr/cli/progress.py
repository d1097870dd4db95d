"""The line that tells how far a long run has come, where stderr is a terminal.

Fed by `machine.supervise` twice a second. The line is written over by the next one, by what the program prints, and
wiped at the end; a pipe or a file never sees it.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archlbr.machine.progress import Counted

# A shorter run says nothing.
_QUIET = 1.0
_WIPE = "\r\x1b[K"


class ProgressLine:
    """Instructions, branches, samples and the rate so far; period: branches a sample, 0 when nothing is sampled."""

    def __init__(self, period: int = 0, of_instructions: bool = False) -> None:
        self._start = time.perf_counter()
        self._period, self._of_instructions = period, of_instructions
        self._shown = False

    def show(self, counted: Counted) -> None:
        """Write the line."""
        seconds = time.perf_counter() - self._start
        if seconds < _QUIET or not counted.instructions:
            return
        parts = [
            f"{seconds:.0f} s",
            f"{_short(counted.instructions)} instructions",
            f"{_short(counted.branches)} branches",
        ]
        if self._period:
            events = counted.instructions if self._of_instructions else counted.branches
            parts.append(f"{_short(events // self._period)} samples")
        parts.append(f"{_short(int(counted.branches / seconds))} branches/s")
        self._write(f"{_WIPE}[ {', '.join(parts)} ]\r")
        self._shown = True

    def wipe(self) -> None:
        """Remove the line."""
        if self._shown:
            self._write(_WIPE)

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            return  # nobody looks


def progress_line(period: int = 0, of_instructions: bool = False) -> ProgressLine | None:
    """Return a line to write to, None where stderr is no terminal that could show it."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return None
    return ProgressLine(period, of_instructions)


def _short(number: int) -> str:
    for unit, name in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= 10 * unit:
            return f"{number / unit:,.1f}{name}"
    return f"{number:,}"
