"""The pair of 8259A interrupt controllers: sixteen lines in, one interrupt to the processor out.

Devices raise and lower lines; the board asks for the vector when the processor takes the interrupt. Edge-triggered,
fully nested, with automatic or specific end of interrupt. Source: Intel 8259A data sheet (order 231468).
"""

from __future__ import annotations

from typing import Final

_CASCADE = 2


class _Chip:
    STATE = ("base", "mask", "request", "service", "lines", "step", "fourth", "automatic", "read_service")
    RANGES: Final = {"base": range(0x100)}

    def __init__(self) -> None:
        self.base = 0
        self.mask = 0xFF
        self.request = 0
        self.service = 0
        self.lines = 0
        self.step = 0  # next initialisation word, 0 outside the sequence
        self.fourth = 0
        self.automatic = 0
        self.read_service = 0

    def raise_line(self, line: int, level: int) -> None:
        bit = 1 << line
        if level and not self.lines & bit:
            self.request |= bit
        if not level:
            self.request &= ~bit
        self.lines = self.lines | bit if level else self.lines & ~bit

    def pending(self) -> int:
        ready = self.request & ~self.mask
        if not ready:
            return -1
        line = (ready & -ready).bit_length() - 1
        busy = self.service & -self.service
        return line if not busy or 1 << line < busy else -1

    def acknowledge(self, line: int) -> int:
        self.request &= ~(1 << line)
        if not self.automatic:
            self.service |= 1 << line
        return self.base + line

    def write(self, odd: int, value: int) -> None:
        if not odd:
            if value & 0x10:
                self.mask = self.service = self.request = self.read_service = 0
                self.step, self.fourth = 2, value & 1
            elif value & 0x08:
                if value & 2:
                    self.read_service = value & 1
            elif value & 0x20:
                if value & 0x40:
                    self.service &= ~(1 << (value & 7))
                else:
                    self.service &= self.service - 1
        elif self.step == 2:
            self.base, self.step = value & 0xF8, 3
        elif self.step == 3:
            self.step = 4 if self.fourth else 0
        elif self.step == 4:
            self.automatic, self.step = value >> 1 & 1, 0
        else:
            self.mask = value

    def read(self, odd: int) -> int:
        return self.mask if odd else self.service if self.read_service else self.request


class Pic:
    """Both chips; ports 20H, 21H and A0H, A1H."""

    PORTS = (0x20, 0x21, 0xA0, 0xA1)
    STATE = ("_chips",)

    def __init__(self) -> None:
        self._chips = (_Chip(), _Chip())

    def raise_line(self, line: int, level: int) -> None:
        """Set an input line 0..15 high (1) or low (0)."""
        self._chips[line >> 3].raise_line(line & 7, level)

    def pending(self) -> bool:
        """Say whether the processor is asked for an interrupt."""
        self._chips[0].raise_line(_CASCADE, int(self._chips[1].pending() >= 0))
        return self._chips[0].pending() >= 0

    def acknowledge(self) -> int:
        """Return the vector of the interrupt that the processor takes; the spurious one when the request is gone."""
        if not self.pending():
            return self._chips[0].base + 7
        line = self._chips[0].pending()
        vector = self._chips[0].acknowledge(line)
        if line != _CASCADE:
            return vector
        inner = self._chips[1].pending()
        return self._chips[1].acknowledge(inner) if inner >= 0 else self._chips[1].base + 7

    def read(self, port: int) -> int:
        """Answer IN."""
        return self._chips[port >> 7].read(port & 1)

    def write(self, port: int, value: int) -> None:
        """Answer OUT."""
        self._chips[port >> 7].write(port & 1, value)
