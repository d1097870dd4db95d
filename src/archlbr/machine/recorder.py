"""What watches a guest process: the protocol between `machine.userland` and a recording.

A recorder brings the words and the compiled block hook that the engine runs with, and is told what a profiler's
side-band says: names, mappings, forks, threads. `recording.tracing` and `recording.sampling` are the two there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from archlbr.machine.regions import Region


class Recorder(Protocol):
    """One process's recording; a forked child goes on with its own."""

    words: npt.NDArray[np.uint64]

    @property
    def on_block(self) -> int:
        """The address of a compiled block hook."""

    def named(self, tid: int, name: bytes, is_exec: bool) -> None:
        """Note that a thread has a new name; `is_exec`: the process became another program."""

    def mapped(self, tid: int, region: Region) -> None:
        """Note a region that became executable."""

    def forking(self) -> None:
        """Write out what there is: the process is about to fork, and both sides go on from here."""

    def forked(self, parent: int, pid: int) -> None:
        """Go on as the recording of a child: what the parent had not yet written stays the parent's."""

    def thread_started(self, tid: int, parent: int) -> None:
        """Note a new thread of this process."""

    def thread_ended(self, tid: int) -> None:
        """Note the end of a thread."""

    def switch_in(self, tid: int) -> None:
        """Let the processor belong to a thread from now on."""

    def switch_out(self, tid: int) -> None:
        """Take the processor from a thread."""

    def landed(self, rip: int) -> None:
        """Account for the running block, whose end led to `rip`, where no code can run."""

    def kernel_returned(self, rip: int, elsewhere: bool) -> None:
        """Record that the kernel went back to user code at `rip`; `elsewhere` than where that was left."""

    def settle(self) -> None:
        """Account for what the hook has only noted: the engine has stopped."""

    def flush(self) -> None:
        """Write out what the hook has gathered."""

    def finish(self) -> None:
        """Write out everything; the process ends or becomes another program."""
