"""The processor's register accesses: LBR and PMU registers are here, everything else is the engine's.

`cpu.unicorn.supervisor` asks for each RDMSR, WRMSR and RDPMC. LBR registers are the compiled facility's; counters count
what the hooks of `machine.observing` count, by ring. Sources: SDM vol. 3B, chapter 20 (architectural performance
monitoring version 5); event numbers from Intel's list for Golden Cove. An event that the model does not have counts 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from archlbr.arch import msrs
from archlbr.cpu import words as at
from archlbr.cpu.unicorn.supervisor import ENGINES_OWN
from archlbr.lbr import compiled as lbr
from archlbr.machine import observing

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.cpu.words import Words
    from archlbr.machine.models import Model

_MISC_ENABLE: Final = 0x1A0
_APIC_BASE: Final = 0x1B
_PEBS_ENABLE: Final = 0x3F1
_PMC0, _A_PMC0, _EVTSEL0, _FIXED0 = 0xC1, 0x4C1, 0x186, 0x309
_FIXED_CTRL, _STATUS, _CTRL, _RESET, _SET = 0x38D, 0x38E, 0x38F, 0x390, 0x391
_LBR_FRZ, _CTR_FRZ = 1 << 58, 1 << 59
_USR, _OS, _INT, _EN = 1 << 16, 1 << 17, 1 << 20, 1 << 22
_FREEZE_COUNTERS: Final = 1 << 12
_WIDTH: Final = 48
_MASK: Final = (1 << _WIDTH) - 1
_FIXED_BIT: Final = 32
_RDPMC_FIXED: Final = 1 << 30

# (event, umask) to the first of four words by ring. Cycles are the model's: an instruction takes one.
_EVENTS: Final = {
    (0xC0, 0x00): observing.RETIRED_BY_RING,
    (0xC0, 0x01): observing.RETIRED_BY_RING,
    (0x3C, 0x00): observing.RETIRED_BY_RING,
    (0x3C, 0x01): observing.RETIRED_BY_RING,
    (0xC4, 0x00): observing.BRANCHES_BY_RING,
    (0xC4, 0x20): observing.TAKEN_BY_RING,
    (0xC5, 0x00): observing.MISSED_BY_RING,
}
_FIXED_SOURCES: Final = (observing.RETIRED_BY_RING,) * 3


class Counter(NamedTuple):
    """One counter while it counts: its bit in GLOBAL_CTRL, its words, which rings, whether it interrupts."""

    bit: int
    source: int
    rings: tuple[int, ...]
    interrupts: int


class Pmu:
    """The LBR and PMU registers of a processor of `model`, over the hooks' words.

    `overflowed` is set when a PMI is due; the board delivers it and clears it.
    """

    def __init__(self, model: Model, words: Words, now: Callable[[], int]) -> None:
        self.overflowed = 0
        self._words = words
        self._registers = words[observing.LBR_AT : observing.LBR_END]
        self._now = now
        self._gp = model.pmu.gp_counters if model.pmu.version else 0
        self._fixed = model.pmu.fixed_counters if model.pmu.version else 0
        self._lbr = _lbr_indices(model)
        self._select = [0] * self._gp
        self._fixed_ctrl = 0
        self._ctrl = 0
        self._status = 0
        # What each counter held when it was last looked at, and its source's count then.
        self._held = dict.fromkeys([*range(self._gp), *range(_FIXED_BIT, _FIXED_BIT + self._fixed)], 0)
        self._seen = dict.fromkeys(self._held, 0)
        self._running: dict[int, Counter] = {}
        self._plain = {
            _MISC_ENABLE: 0x1881,
            _APIC_BASE: 0xFEE00900,
            _PEBS_ENABLE: 0,
            msrs.IA32_PERF_CAPABILITIES.index: 0x2000 | max(model.lbr_format, 0),
        }

    def serve(self) -> None:
        """Bring the counters up to date, note overflows, and say when the next is due."""
        self._settle()
        self._arm()

    def rdmsr(self, msr: int) -> int | None:
        """Return a register's value, None for #GP, ENGINES_OWN for what the engine keeps."""
        if msr in self._lbr:
            fine, value = lbr.rdmsr(self._registers, np.uint64(msr))
            return int(value) if fine else None
        counter = self._counter_of(msr)
        if counter is not None:
            self._settle()
            return self._held[counter]
        if _EVTSEL0 <= msr < _EVTSEL0 + self._gp:
            return self._select[msr - _EVTSEL0]
        if self._gp and msr in (_FIXED_CTRL, _CTRL, _STATUS, _RESET, _SET):
            self._settle()
            frozen = int(lbr.rdmsr(self._registers, np.uint64(_STATUS))[1]) & _LBR_FRZ
            return {_FIXED_CTRL: self._fixed_ctrl, _CTRL: self._ctrl, _STATUS: self._status | frozen}.get(msr, 0)
        return self._plain.get(msr, ENGINES_OWN)

    def wrmsr(self, msr: int, value: int) -> bool | int:
        """Write a register; False for #GP."""
        if msr in self._lbr:
            return bool(lbr.wrmsr(self._registers, np.uint64(msr), np.uint64(value)))
        counter = self._counter_of(msr)
        if counter is not None:
            self._settle()
            # A write through 0C1H is sign-extended from 32 bits (SDM vol. 3B, 20.2.8).
            narrow = _PMC0 <= msr < _PMC0 + self._gp
            self._held[counter] = ((value & 0xFFFFFFFF ^ 1 << 31) - (1 << 31) if narrow else value) & _MASK
        elif _EVTSEL0 <= msr < _EVTSEL0 + self._gp:
            self._settle()
            self._select[msr - _EVTSEL0] = value
        elif self._gp and msr in (_FIXED_CTRL, _CTRL, _STATUS, _RESET, _SET):
            return self._write_global(msr, value)
        elif msr in self._plain:
            self._plain[msr] = value
            return True
        else:
            return ENGINES_OWN
        self._restart()
        return True

    def rdpmc(self, counter: int) -> int | None:
        """Return a counter by RDPMC's number; None for #GP."""
        bit = _FIXED_BIT + (counter & 0xFFFF) if counter & _RDPMC_FIXED else counter
        if bit not in self._held:
            return None
        self._settle()
        return self._held[bit]

    def execute(self, rip: int) -> int:
        """Execute nothing that the engine does not know: #UD at any `rip`."""
        return 0

    def _write_global(self, msr: int, value: int) -> bool:
        self._settle()
        if msr == _STATUS:
            return False  # read-only from version 2 on
        if msr == _FIXED_CTRL:
            self._fixed_ctrl = value
        elif msr == _CTRL:
            self._ctrl = value
        elif msr == _RESET:
            self._status &= ~value
            lbr.wrmsr(self._registers, np.uint64(_RESET), np.uint64(value & _LBR_FRZ))
        else:
            self._status |= value & ~_LBR_FRZ
            lbr.wrmsr(self._registers, np.uint64(_SET), np.uint64(value & _LBR_FRZ))
        self._restart()
        return True

    def _counter_of(self, msr: int) -> int | None:
        for base, first, count in (
            (_PMC0, 0, self._gp),
            (_A_PMC0, 0, self._gp),
            (_FIXED0, _FIXED_BIT, self._fixed),
        ):
            if base <= msr < base + count:
                return first + msr - base
        return None

    # Which counters count now, and from where: after a control has changed.
    def _restart(self) -> None:
        self._running = {}
        if not self._status & _CTR_FRZ:
            for index, select in enumerate(self._select):
                source = _EVENTS.get((select & 0xFF, select >> 8 & 0xFF))
                if source is not None and select & _EN and self._ctrl >> index & 1:
                    self._run(index, source, select & _OS, select & _USR, select & _INT)
            for index in range(min(self._fixed, len(_FIXED_SOURCES))):
                control = self._fixed_ctrl >> 4 * index
                if control & 3 and self._ctrl >> _FIXED_BIT + index & 1:
                    self._run(_FIXED_BIT + index, _FIXED_SOURCES[index], control & 1, control & 2, control & 8)
        self._arm()

    def _run(self, bit: int, source: int, kernel: int, user: int, interrupts: int) -> None:
        rings = ((0,) if kernel else ()) + ((3,) if user else ())
        if rings:
            counter = Counter(bit, source, rings, int(bool(interrupts)))
            self._running[bit] = counter
            self._seen[bit] = self._count(counter)

    def _count(self, counter: Counter) -> int:
        return sum(int(self._words[counter.source + ring]) for ring in counter.rings)

    def _settle(self) -> None:
        for bit, counter in self._running.items():
            count = self._count(counter)
            value = self._held[bit] + count - self._seen[bit]
            self._seen[bit] = count
            self._held[bit] = value & _MASK
            if value > _MASK:
                self._status |= 1 << bit
                if counter.interrupts:
                    self._interrupt()

    def _interrupt(self) -> None:
        if not self.overflowed:
            self.overflowed = 1
            debugctl = int(lbr.rdmsr(self._registers, np.uint64(msrs.IA32_DEBUGCTL.index))[1])
            lbr.pmi(self._registers)
            if debugctl & _FREEZE_COUNTERS:
                self._status |= _CTR_FRZ

    # The hook stops when a source's count reaches a mark. With both rings the nearer mark of each alone is a safe one:
    # the board looks, and arms again.
    def _arm(self) -> None:
        if self._status & _CTR_FRZ:
            self._running = {}
        words = self._words
        marks: dict[int, int] = {}
        for bit, counter in self._running.items():
            if counter.interrupts:
                left = (_MASK + 1) - self._held[bit]
                share = left if len(counter.rings) == 1 else max(1, left // 2)
                for ring in counter.rings:
                    word = counter.source + ring
                    mark = int(words[word]) + share
                    marks[word] = min(mark, marks.get(word, mark))
        slots = list(marks.items())[: observing.MARKS]
        for index in range(observing.MARKS):
            word, mark = slots[index] if index < len(slots) else (observing.NOTHING, observing.NEVER)
            words[observing.MARK_WORD + index] = word
            words[observing.MARK_AT + index] = mark
        words[at.LIMIT] = 0


def _lbr_indices(model: Model) -> frozenset[int]:
    indices = {msrs.IA32_DEBUGCTL.index}
    if model.lbr.depths:
        indices |= {msrs.IA32_LBR_CTL.index, msrs.IA32_LBR_DEPTH.index, 0x1DD, 0x1DE, 0x1E0}
        for block in (msrs.IA32_LBR_FROM_IP, msrs.IA32_LBR_TO_IP, msrs.IA32_LBR_INFO):
            indices |= set(range(block.index, block.index + msrs.ENTRIES))
    elif model.lbr_format >= 0:
        indices |= {0x1C8, 0x1C9, 0x1DD, 0x1DE}
        for base in (0x680, 0x6C0, 0xDC0):
            indices |= set(range(base, base + 32))
    return frozenset(indices)
