"""The recorder behind `archlbr trace`: every taken branch of every thread, in program order.

`machine.hooks.tracing` fills the ring; `flush` hands it to a spool that `profile.trace` reads. A forked child writes a
spool of its own beside its parent's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from archlbr.cpu import words as at
from archlbr.machine import hooks
from archlbr.profile import trace
from archlbr.profile.output import append

if TYPE_CHECKING:
    from archlbr.machine.regions import Region


class Tracer:
    """Write a process's branches to `folder`, one spool file a process."""

    def __init__(self, folder: str) -> None:
        self.words = np.zeros(hooks.TRACE_WORDS, np.uint64)
        self.words[at.LEARN_FROM] = hooks.NEVER  # a trace says nothing of predictions
        self._folder = folder
        self._pid = os.getpid()
        self._tid = self._pid
        self._name = "0"
        self._forks = 0

    @property
    def on_block(self) -> int:
        """The address of the compiled block hook, which no other engine than Unicorn needs."""
        return hooks.tracing.address

    def named(self, tid: int, name: bytes, is_exec: bool) -> None:
        """Note that a thread has a new name."""
        verb = "exec" if is_exec else "comm"
        self._note(tid, f"{verb} {tid} {name.decode(errors='backslashreplace')}")

    def mapped(self, tid: int, region: Region) -> None:
        """Note a region that became executable, for whoever turns addresses into symbols."""
        path = region.path or "//anon"
        self._note(tid, f"mmap {self._pid} {region.start:#x} {region.end:#x} {region.offset:#x} {path}")

    def forking(self) -> None:
        """Write out the ring, and count the children."""
        self.flush()
        self._forks += 1

    def forked(self, parent: int, pid: int) -> None:
        """Go on in a child's own spool, named so that spools sort as the tree of processes does."""
        self._name, self._forks = f"{self._name}.{self._forks:06}", 0
        self.words[hooks.TRACE_USED] = 0
        self.words[at.INHERITED_RETIRED], self.words[at.INHERITED_TAKEN] = self.words[at.RETIRED], self.words[at.TAKEN]
        self._pid = self._tid = pid
        self._note(pid, f"fork {parent} {pid}")

    def thread_started(self, tid: int, parent: int) -> None:
        """Note a new thread."""
        self._note(parent, f"thread {parent} {tid}")

    def thread_ended(self, tid: int) -> None:
        """Note the end of a thread."""
        self._note(tid, f"exit {tid}")

    def switch_in(self, tid: int) -> None:
        """Let what follows be another thread's."""
        self._tid = tid

    def switch_out(self, tid: int) -> None:
        """Write out a thread's branches before another runs."""
        self._tid = tid
        self.flush()

    def landed(self, rip: int) -> None:
        """Write down the branch to where no code can run."""
        hooks.trace_landing(self.words, np.uint64(rip))

    def kernel_returned(self, rip: int, elsewhere: bool) -> None:
        """Record nothing: a trace lists branches between user instructions only."""

    def settle(self) -> None:
        """Do nothing: the hook accounts for each block as the next one starts."""

    def flush(self) -> None:
        """Write out the ring."""
        used = int(self.words[hooks.TRACE_USED])
        if used:
            rows = self.words[hooks.TRACE_AT : hooks.TRACE_AT + used]
            self.words[hooks.TRACE_USED] = 0
            append(self._path(), trace.branches(self._tid, rows))

    def finish(self) -> None:
        """Write out everything, and the number of instructions that retired."""
        self.flush()
        retired = int(self.words[at.RETIRED]) - int(self.words[at.INHERITED_RETIRED])
        taken = int(self.words[at.TAKEN]) - int(self.words[at.INHERITED_TAKEN])
        append(self._path(), trace.summary(retired, taken))

    def _path(self) -> str:
        return os.path.join(self._folder, f"{self._name}.trace")

    def _note(self, tid: int, text: str) -> None:
        self.flush()
        append(self._path(), trace.note(tid, text))
