"""The 8254 interval timer: channel 0 drives line 0, channel 2 answers calibration through port 61H.

The board gives it the model's clock in nanoseconds and asks when it wants attention next. Source: Intel 8254 data sheet
(order 231164); the input is 1.193182 MHz.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_HERTZ = 1_193_182
_SECOND = 1_000_000_000


class _Channel:
    STATE = ("mode", "access", "reload", "start", "low", "latch", "high_next", "running")
    RANGES: Final = {"reload": range(1, 0x10001)}

    def __init__(self) -> None:
        self.mode = 3
        self.access = 3
        self.reload = 0x10000
        self.start = 0
        self.low = -1
        self.latch = -1
        self.high_next = 0
        self.running = 0

    def elapsed(self, now: int) -> int:
        return (now - self.start) * _HERTZ // _SECOND

    def count(self, now: int) -> int:
        ticks = self.elapsed(now)
        if self.mode in (2, 3):
            return self.reload - ticks % self.reload
        return (self.reload - ticks) & 0xFFFF

    def output(self, now: int) -> int:
        ticks = self.elapsed(now)
        if self.mode in (2, 3):
            return int(ticks % self.reload < (self.reload + 1) // 2)
        return int(ticks >= self.reload)


class Pit:
    """The three channels; ports 40H to 43H and 61H. `tick` is called with a level for line 0."""

    PORTS = (0x40, 0x41, 0x42, 0x43, 0x61)
    STATE = ("_channels", "_gate", "_due")

    def __init__(self, clock: Callable[[], int], tick: Callable[[int], None]) -> None:
        self._clock = clock
        self._tick = tick
        self._channels = (_Channel(), _Channel(), _Channel())
        self._gate = 0
        self._due = -1

    @property
    def due(self) -> int:
        """The clock at which channel 0 ticks next, -1 for never."""
        return self._due

    def serve(self, now: int) -> None:
        """Tick when the time has come."""
        if 0 <= self._due <= now:
            self._tick(0)
            self._tick(1)
            channel = self._channels[0]
            if channel.mode in (2, 3):
                period = channel.reload * _SECOND // _HERTZ
                self._due += max(1, (now - self._due) // period + 1) * period
            else:
                self._due = -1

    def read(self, port: int) -> int:
        """Answer IN."""
        now = self._clock()
        if port == 0x61:
            return self._gate & 3 | self._channels[2].output(now) << 5
        if port == 0x43:
            return 0xFF
        channel = self._channels[port & 3]
        value = channel.latch if channel.latch >= 0 else channel.count(now)
        if channel.access == 1:
            channel.latch = -1
            return value & 0xFF
        if channel.access == 2:
            channel.latch = -1
            return value >> 8 & 0xFF
        channel.high_next ^= 1
        if channel.high_next:
            if channel.latch < 0:
                channel.latch = value
            return value & 0xFF
        channel.latch = -1
        return value >> 8 & 0xFF

    def write(self, port: int, value: int) -> None:
        """Answer OUT."""
        now = self._clock()
        if port == 0x61:
            if value & 1 and not self._gate & 1:
                self._channels[2].start = now
            self._gate = value
            return
        if port == 0x43:
            number = value >> 6
            if number == 3:
                return
            channel = self._channels[number]
            if value >> 4 & 3 == 0:
                channel.latch = channel.count(now)
                return
            channel.access, channel.mode = value >> 4 & 3, value >> 1 & 7
            channel.mode -= 4 if channel.mode > 5 else 0
            channel.low, channel.high_next, channel.latch = -1, 0, -1
            if number == 0:
                self._due = -1
            return
        channel = self._channels[port & 3]
        if channel.access == 3 and channel.low < 0:
            channel.low = value
            return
        count = value << 8 | max(channel.low, 0) if channel.access == 3 else value << 8 * (channel.access - 1)
        channel.low = -1
        channel.reload = count or 0x10000
        channel.start = now
        if port == 0x40:
            self._due = now + channel.reload * _SECOND // _HERTZ
