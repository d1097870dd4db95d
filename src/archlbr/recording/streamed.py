"""The recorders of a process on QEMU or Stalker: the block table lies behind their words, and a fork copies them.

`machine.streams` reads the streams of all guest processes in one process of ours; so a recorder is told whose it is,
and a fork copies it instead of the process around it. Threads run at the same time, each on a processor of its own:
what the LBRs of one hold stays while another's stream is read.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Self

import numpy as np

from archlbr.cpu import words as at
from archlbr.lbr.compiled import words as w
from archlbr.machine import hooks, skimming, streaming
from archlbr.recording.events import Event, records_all
from archlbr.recording.sampling import Sampler
from archlbr.recording.tracing import Tracer

if TYPE_CHECKING:
    from archlbr.cpu.words import Words
    from archlbr.profile.perfdata.attr import Attr


def _grown(words: Words, blocks: int) -> Words:
    """Return a copy of a recorder's words with room for the table, of which the first blocks are copied too."""
    grown = np.zeros(streaming.WORDS, np.uint64)
    grown[: at.TABLE] = words[: at.TABLE]
    grown[at.WORDS : skimming.TABLE] = words[at.WORDS : skimming.TABLE]
    end = skimming.TABLE + (blocks + 1) * at.ENTRY
    grown[skimming.TABLE : end] = words[skimming.TABLE : end]
    return grown


class StreamedTracer(Tracer):
    """Write the branches of a process on QEMU or Stalker to `folder`."""

    def __init__(self, folder: str, pid: int) -> None:
        super().__init__(folder)
        self.reader = streaming.trace_stream.address
        grown = np.zeros(streaming.WORDS, np.uint64)
        grown[: hooks.TRACE_WORDS] = self.words
        self.words = grown
        self._pid = self._tid = pid

    def copied(self, blocks: int) -> Self:
        """Return the recorder of a child."""
        child = copy.copy(self)
        child.words = _grown(self.words, blocks)
        return child


class StreamedSampler(Sampler):
    """Sample the branch stack of a process on QEMU or Stalker into a spool in `folder`."""

    def __init__(self, folder: str, attr: Attr, event: Event, pid: int) -> None:
        super().__init__(folder, attr, event)
        self.reader = streaming.sample_stream.address
        grown = np.zeros(streaming.WORDS, np.uint64)
        grown[: hooks.SAMPLING_WORDS] = self.words
        grown[streaming.WINDOW] = streaming.ENOUGH if records_all(event) else streaming.ALWAYS
        self._take(grown)
        self._pid = self._tid = pid
        self._since: dict[int, int] = {}

    def copied(self, blocks: int) -> Self:
        """Return the recorder of a child."""
        child = copy.copy(self)
        child._take(_grown(self.words, blocks))
        child._left, child._stacks, child._since = {}, {}, {}
        return child

    def switch_out(self, tid: int) -> None:
        """Put a thread's processor aside."""
        self.flush()
        now = int(self.words[at.RETIRED])
        self._left[tid] = int(self.words[self._next]) - int(self.words[self._event.position])
        self._stacks[tid] = self._registers.copy()
        self._since[tid] = now

    def switch_in(self, tid: int) -> None:
        """Take a thread's processor up again; no instruction of its own has passed."""
        if tid != self._tid and self._take_up(tid):
            self._registers[w.SINCE] += np.uint64(int(self.words[at.RETIRED]) - self._since[tid])

    def _take(self, words: Words) -> None:
        self.words = words
        self._registers = words[hooks.LBR_AT : hooks.LBR_END]
