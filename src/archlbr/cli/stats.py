"""The line of numbers that `--stats` ends with."""

from __future__ import annotations

import sys
import time


class Stopwatch:
    """Seconds since it was made, and the line that tells them."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Return the seconds since it was made."""
        return time.perf_counter() - self._start

    def print(self, *, instructions: int, branches: int, samples: int, engine: str) -> None:
        """Print `stats: key=value ...`, the last line on stderr."""
        seconds = time.perf_counter() - self._start
        print(
            f"stats: instructions={instructions} branches={branches} samples={samples} "
            f"seconds={seconds:.3f} engine={engine}",
            file=sys.stderr,
        )
