"""The CMOS clock and memory: a fixed moment plus the model's clock, so that runs repeat.

Ports 70H and 71H. Source: Motorola MC146818 data sheet; the values are in BCD, 24 hours.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# The moment at which every machine starts.
_START = datetime(2026, 1, 1, tzinfo=UTC)


def _bcd(value: int) -> int:
    return value // 10 << 4 | value % 10


class Cmos:
    """The clock; the time is `_START` plus the clock in nanoseconds."""

    PORTS = (0x70, 0x71)
    STATE = ("_index",)

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._index = 0

    def read(self, port: int) -> int:
        """Answer IN."""
        if port == 0x70:
            return self._index
        now = _START + timedelta(microseconds=self._clock() // 1000)
        fields = {
            0: now.second, 2: now.minute, 4: now.hour, 6: now.isoweekday() % 7 + 1,
            7: now.day, 8: now.month, 9: now.year % 100, 0x32: now.year // 100,
        }  # fmt: skip
        if self._index in fields:
            return _bcd(fields[self._index])
        return {0x0A: 0x26, 0x0B: 0x02, 0x0D: 0x80}.get(self._index, 0)

    def write(self, port: int, value: int) -> None:
        """Answer OUT; only the index is kept."""
        if port == 0x70:
            self._index = value & 0x7F
