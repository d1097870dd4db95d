"""The local APIC: a timer, a PMI entry, interrupts to oneself, end of interrupt; xAPIC mode at FEE00000H.

The board reads and writes its registers, gives it the model's clock in nanoseconds and asks for the vector that is due.
Sources: SDM vol. 3A, chapter 11. One processor: IPIs reach only itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = 0xFEE00000
_ID, _VERSION, _TPR, _EOI, _LDR, _DFR, _SVR = 0x20, 0x30, 0x80, 0xB0, 0xD0, 0xE0, 0xF0
_ISR, _TMR, _IRR, _ESR = 0x100, 0x180, 0x200, 0x280
_ICR, _ICR_HIGH = 0x300, 0x310
_TIMER, _THERMAL, _PERFORMANCE, _LINT0, _LINT1, _ERROR = 0x320, 0x330, 0x340, 0x350, 0x360, 0x370
_INITIAL, _CURRENT, _DIVIDE = 0x380, 0x390, 0x3E0
_LOCAL = (_TIMER, _THERMAL, _PERFORMANCE, _LINT0, _LINT1, _ERROR)
_MASKED, _PERIODIC, _NMI, _EXTINT = 1 << 16, 1 << 17, 4 << 8, 7 << 8
_DELIVERY = 7 << 8


class LocalApic:
    """The APIC of the one processor; `period` is the nanoseconds of a timer tick before division."""

    STATE = ("_plain", "_requests", "_service", "_initial", "_start", "due", "nmi")

    def __init__(self, clock: Callable[[], int], period: int) -> None:
        self._clock = clock
        self._period = period
        self._plain = {_TPR: 0, _LDR: 0, _DFR: 0xFFFFFFFF, _SVR: 0xFF, _ESR: 0, _ICR: 0, _ICR_HIGH: 0, _DIVIDE: 0}
        self._plain.update(dict.fromkeys(_LOCAL, _MASKED))
        self._plain[_LINT0] = _EXTINT  # virtual wire from the start: the 8259s reach the processor
        self._requests = 0
        self._service = 0
        self._initial = 0
        self._start = 0
        self.due = -1
        self.nmi = 0

    @property
    def enabled(self) -> bool:
        """Whether software has enabled it (SVR bit 8)."""
        return bool(self._plain[_SVR] & 0x100)

    @property
    def passes_pic(self) -> bool:
        """Whether LINT0 lets the 8259s' interrupt through."""
        return self._plain[_LINT0] & (_DELIVERY | _MASKED) == _EXTINT

    def pending(self) -> int:
        """Return the vector that may interrupt now, 0 for none."""
        if not self._requests:
            return 0
        vector = self._requests.bit_length() - 1
        busy = max(self._service.bit_length() - 1, 0)
        return vector if vector >> 4 > max(busy >> 4, self._plain[_TPR] >> 4 & 0xF) else 0

    def acknowledge(self, vector: int) -> None:
        """Move a vector from requested to in service."""
        self._requests &= ~(1 << vector)
        self._service |= 1 << vector

    def performance_interrupt(self) -> None:
        """Deliver LVTPC, and mask it as the processor does (SDM vol. 3A, 11.5.1)."""
        entry = self._plain[_PERFORMANCE]
        if not entry & _MASKED:
            self._plain[_PERFORMANCE] = entry | _MASKED
            self._deliver(entry)

    def serve(self, now: int) -> None:
        """Fire the timer when the time has come."""
        if 0 <= self.due <= now:
            entry = self._plain[_TIMER]
            if not entry & _MASKED:
                self._deliver(entry)
            if entry & _PERIODIC:
                period = max(1, self._initial * self._tick())
                self.due += max(1, (now - self.due) // period + 1) * period
                self._start = self.due - period
            else:
                self.due = -1

    def read(self, offset: int) -> int:
        """Answer a read of a register."""
        if offset in self._plain:
            return self._plain[offset]
        if _ISR <= offset < _TMR:
            return self._service >> (offset - _ISR) // 16 * 32 & 0xFFFFFFFF
        if _IRR <= offset < _ESR:
            return self._requests >> (offset - _IRR) // 16 * 32 & 0xFFFFFFFF
        if offset == _VERSION:
            return 0x00050014
        if offset == _INITIAL:
            return self._initial
        if offset == _CURRENT:
            left = self.due - self._clock()
            return max(0, left // self._tick()) if self.due >= 0 else 0
        return 0

    def write(self, offset: int, value: int) -> None:
        """Answer a write of a register."""
        if offset == _EOI:
            self._service &= ~(1 << max(self._service.bit_length() - 1, 0))
        elif offset == _ICR:
            self._plain[_ICR] = value & ~(1 << 12)
            self._send(value)
        elif offset == _INITIAL:
            self._initial = value
            self._arm()
        elif offset == _ESR:
            self._plain[_ESR] = 0
        elif offset in self._plain:
            self._plain[offset] = value
            if offset == _DIVIDE and self.due >= 0:
                self._arm()

    def _send(self, value: int) -> None:
        # To itself: by shorthand (self, all), or by its own id 0 as the destination.
        shorthand = value >> 18 & 3
        if shorthand in (1, 2) or (shorthand == 0 and self._plain[_ICR_HIGH] >> 24 in (0, 0xFF)):
            self._deliver(value)

    def _deliver(self, entry: int) -> None:
        if entry & _DELIVERY == _NMI:
            self.nmi = 1
        elif entry & _DELIVERY == 0 and entry & 0xFF >= 16:
            self._requests |= 1 << (entry & 0xFF)

    def _arm(self) -> None:
        self._start = self._clock()
        self.due = self._start + self._initial * self._tick() if self._initial else -1

    def _tick(self) -> int:
        code = self._plain[_DIVIDE] & 3 | self._plain[_DIVIDE] >> 1 & 4
        return self._period * (1 if code == 7 else 2 << code)
