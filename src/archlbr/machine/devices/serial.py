"""The 16550 serial port: characters out at once, characters in from a queue, interrupts as enabled.

The board feeds `receive` and takes what `transmit` is given. Source: National Semiconductor PC16550D data sheet. Bytes
leave as they are written, so the FIFOs are always empty; that they are there spares the guest an interrupt a byte.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_RECEIVED, _EMPTY = 1, 2  # bits of the interrupt enable register
_NONE, _TRANSMIT, _RECEIVE = 1, 2, 4  # identifications
_FIFOS = 0xC0  # of the identification, while they are enabled


class Serial:
    """One port at `base`..`base` + 7 on an interrupt line; levels go to `interrupt`, bytes to `transmit`."""

    STATE = ("_input", "_enable", "_line", "_modem", "_scratch", "_divisor", "_emptied", "_fifos")

    def __init__(self, base: int, transmit: Callable[[int], None], interrupt: Callable[[int], None]) -> None:
        self.ports = range(base, base + 8)
        self._transmit = transmit
        self._interrupt = interrupt
        self._input: deque[int] = deque()
        self._enable = self._line = self._modem = self._scratch = 0
        self._divisor = 12
        self._emptied = 0
        self._fifos = 0

    def receive(self, content: bytes) -> None:
        """Let bytes arrive."""
        self._input.extend(content)
        self._update()

    @property
    def wanted(self) -> bool:
        """Whether the guest listens and has read all that came."""
        return bool(self._enable & _RECEIVED) and not self._input

    def read(self, port: int) -> int:
        """Answer IN."""
        match port & 7:
            case 0 if self._line & 0x80:
                return self._divisor & 0xFF
            case 0:
                value = self._input.popleft() if self._input else 0
                self._update()
                return value
            case 1:
                return self._divisor >> 8 if self._line & 0x80 else self._enable
            case 2:
                cause = self._cause()
                if cause == _TRANSMIT:
                    self._emptied = 0
                    self._update()
                return cause | (_FIFOS if self._fifos else 0)
            case 3:
                return self._line
            case 4:
                return self._modem
            case 5:
                return 0x60 | int(bool(self._input))
            case 6:
                return 0xB0  # carrier, data set ready, clear to send
            case _:
                return self._scratch

    def write(self, port: int, value: int) -> None:
        """Answer OUT."""
        match port & 7:
            case 0 if self._line & 0x80:
                self._divisor = self._divisor & 0xFF00 | value
            case 0:
                if self._modem & 0x10:  # loopback
                    self._input.append(value)
                else:
                    self._transmit(value)
                self._emptied = 1
            case 1 if self._line & 0x80:
                self._divisor = self._divisor & 0xFF | value << 8
            case 1:
                if value & _EMPTY and not self._enable & _EMPTY:
                    self._emptied = 1
                self._enable = value & 0xF
            case 2:
                self._fifos = value & 1
                if value & 2:
                    self._input.clear()
            case 3:
                self._line = value
            case 4:
                self._modem = value
            case 7:
                self._scratch = value
            case _:
                pass
        self._update()

    def _cause(self) -> int:
        if self._enable & _RECEIVED and self._input:
            return _RECEIVE
        if self._enable & _EMPTY and self._emptied:
            return _TRANSMIT
        return _NONE

    def _update(self) -> None:
        self._interrupt(int(self._cause() != _NONE and bool(self._modem & 8)))
