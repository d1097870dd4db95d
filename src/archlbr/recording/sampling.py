"""The recorder behind `archlbr record`: the LBRs programmed as perf does, and a sample at every overflow.

`machine.journal` fills the buffer of samples; this module programs the LBR registers by WRMSR and switches them
between threads as perf does, and hands samples and side-band to the process's spool. `cli.record` merges the
spools.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from archlbr.arch import msrs
from archlbr.arch.branches import BranchKind
from archlbr.arch.cpuid import GOLDEN_COVE
from archlbr.cpu import words as at
from archlbr.errors import InternalError
from archlbr.lbr import compiled as lbr
from archlbr.lbr.state import architectural
from archlbr.machine import hooks, journal
from archlbr.machine.doorstep import Doorstep
from archlbr.profile.build_id import build_id
from archlbr.profile.perfdata.spool import Spool
from archlbr.profile.stack import Mapping
from archlbr.recording.events import TAKEN, Event, records_all

if TYPE_CHECKING:
    from archlbr.machine.regions import Region
    from archlbr.profile.perfdata.attr import Attr

# Where the kernel's return to user code stands: any address of the kernel's half does, since the user-only filter
# masks it in FROM (ours; the value is Linux's usual text base, Documentation/arch/x86/x86_64/mm.rst).
KERNEL_TEXT = 0xFFFFFFFF81000000
_KERNEL, _USER, _OTHER = np.uint64(0), np.uint64(3), np.uint64(BranchKind.OTHER)
_PMU_VERSION = 5

# The golden ratio's bits: any start but 0 does (ours, docs/decisions/050).
JITTER_SEED = 0x9E3779B97F4A7C15


class Sampler:
    """Sample a process's branch stack into a spool in `folder`, one a process."""

    def __init__(self, folder: str, attr: Attr, event: Event) -> None:
        self.words = np.zeros(hooks.SAMPLING_WORDS, np.uint64)
        self._folder = folder
        self._event = event
        self._pid = self._tid = os.getpid()
        self._name = "0"
        self._forks = 0
        self._detours = 0
        self._spool = Spool(self._path(), attr)
        self._left: dict[int, int] = {}
        self._stacks: dict[int, np.ndarray[tuple[int], np.dtype[np.uint64]]] = {}
        self._registers = self.words[hooks.LBR_AT : hooks.LBR_END]
        self._registers[:] = lbr.new_words(architectural(GOLDEN_COVE, _PMU_VERSION))
        self.words[hooks.OWNED] = 1
        self.words[hooks.PERIOD] = event.period - event.jitter // 2
        self.words[hooks.JITTER], self.words[hooks.JITTER_STATE] = event.jitter, JITTER_SEED
        self.words[hooks.NEXT_TAKEN] = self.words[hooks.NEXT_RETIRED] = hooks.NEVER
        self._next = hooks.NEXT_TAKEN if event.position == TAKEN else hooks.NEXT_RETIRED
        self.words[hooks.LEARNING] = at.LEARNT if records_all(event) else hooks.NEVER
        self._overflow_at(event.period)
        self._program()

    @cached_property
    def _doorstep(self) -> Doorstep:
        return Doorstep(journal.sampling.address)

    @property
    def on_block(self) -> int:
        """The address of the compiled block hook, which no other engine than Unicorn needs."""
        return self._doorstep.address

    def named(self, tid: int, name: bytes, is_exec: bool) -> None:
        """Write a COMM record; the first of a program also empties the LBRs, whose branches were another's."""
        self.flush()
        if is_exec:
            self._program()
        self._spool.comm(self._pid, tid, self._now(), name.decode(errors="replace"), is_exec)

    def mapped(self, tid: int, region: Region) -> None:
        """Write an MMAP2 record."""
        path = region.path or "//anon"
        identity = build_id(path) if region.path else b""
        major, minor = os.major(region.device), os.minor(region.device)
        mapping = Mapping(
            region.start,
            region.end - region.start,
            region.offset,
            path,
            identity,
            major,
            minor,
            region.inode,
            0,
            region.protection,
            region.flags & 3,
        )
        self.flush()
        self._spool.mmap2(self._pid, tid, self._now(), mapping)

    def forking(self) -> None:
        """Hand over the samples of the buffer, and count the children."""
        self.flush()
        self._forks += 1

    def forked(self, parent: int, pid: int) -> None:
        """Go on in a child's own spool, with a counter that starts over and empty LBRs (perf's inherited event)."""
        previous = self._pid
        self._detours = 0
        self.words[at.INHERITED_RETIRED], self.words[at.INHERITED_TAKEN] = self.words[at.RETIRED], self.words[at.TAKEN]
        self._name, self._forks = f"{self._name}.{self._forks:06}", 0
        self._pid = self._tid = pid
        self._left.clear()
        self._stacks.clear()
        self.words[hooks.SAMPLES_USED] = 0
        self._overflow_at(int(self.words[self._event.position]) + self._event.period)
        self._spool = self._spool.forked(self._path(), pid, pid, previous, parent, self._now())
        self._program()

    def thread_started(self, tid: int, parent: int) -> None:
        """Write the FORK record of a thread; its counter starts over."""
        self._left[tid] = self._event.period
        self._spool.fork(self._pid, tid, self._pid, parent, self._now())

    def thread_ended(self, tid: int) -> None:
        """Write an EXIT record."""
        self.flush()
        self._left.pop(tid, None)
        self._stacks.pop(tid, None)
        self._spool.exit(self._pid, tid, self._pid, tid, self._now())

    def switch_in(self, tid: int) -> None:
        """Give the LBRs to a thread: restored in call-stack mode, empty otherwise (intel_pmu_lbr_sched_task)."""
        if tid != self._tid:
            self._take_up(tid)

    def _take_up(self, tid: int) -> bool:
        # Whether the thread's own registers came back; its counter goes on in any case.
        self._tid = tid
        left = self._left.get(tid, self._event.period)
        self._overflow_at(int(self.words[self._event.position]) + left)
        saved = self._stacks.get(tid)
        if saved is None:
            self._program()
            return False
        self._registers[:] = saved
        return True

    def switch_out(self, tid: int) -> None:
        """Take the LBRs from a thread: its samples are written, its counter and its call stack kept."""
        self.flush()
        self._left[tid] = int(self.words[self._next]) - int(self.words[self._event.position])
        if self._event.ctl & msrs.CTL_CALL_STACK:
            self._stacks[tid] = self._registers.copy()

    def landed(self, rip: int) -> None:
        """Record the branch to where no code can run."""
        hooks.sample_landing(self.words, np.uint64(rip))

    def kernel_returned(self, rip: int, elsewhere: bool) -> None:
        """Record SYSRET or IRET to user code: an OTHER_BRANCH from ring 0 to ring 3 (architecture.md 3.1, 3.2)."""
        self._detours += elsewhere
        lbr.record(
            self._registers,
            np.uint64(KERNEL_TEXT),
            np.uint64(rip),
            _OTHER,
            _KERNEL,
            _USER,
            self.words[at.RETIRED],
            np.uint64(0),
        )

    def settle(self) -> None:
        """Account for the blocks that the hook has only noted."""
        journal.settle(self.words)
        if self.words[hooks.SAMPLES_USED] > journal.ENOUGH:
            self.flush()

    def flush(self) -> None:
        """Hand the samples of the buffer to the spool."""
        used = int(self.words[hooks.SAMPLES_USED])
        if not used:
            return
        self.words[hooks.SAMPLES_USED] = 0
        rows = self.words[hooks.SAMPLES_AT : hooks.SAMPLES_AT + used].reshape(-1, hooks.SAMPLE_ROW)
        stacks = rows[:, hooks.SAMPLE_STACK :].reshape(len(rows), hooks.DEPTH_LIMIT, 3)
        counts = rows[:, hooks.SAMPLE_COUNT].astype(np.int64)
        ips, times = rows[:, hooks.SAMPLE_IP], rows[:, hooks.SAMPLE_TIME]
        self._spool.samples(self._pid, self._tid, times, ips, self._event.period, stacks, counts)

    def finish(self) -> None:
        """Write out everything and the process's EXIT record."""
        self.flush()
        self._spool.exit(self._pid, self._pid, os.getppid(), os.getppid(), self._now())
        retired = self.words[at.RETIRED] - self.words[at.INHERITED_RETIRED]
        taken = self.words[at.TAKEN] - self.words[at.INHERITED_TAKEN]
        totals = np.array([retired, taken, self._detours], np.uint64)
        totals.tofile(os.path.join(self._folder, f"{self._name}.totals"))

    # Freeze on PMI, empty stack, filter and enable: the order of intel_pmu_arch_lbr_reset and __intel_pmu_lbr_enable.
    def _program(self) -> None:
        for index, value in (
            (msrs.IA32_LBR_CTL.index, 0),
            (msrs.IA32_LBR_DEPTH.index, hooks.DEPTH_LIMIT),
            (msrs.IA32_DEBUGCTL.index, msrs.DEBUGCTL_FREEZE_LBRS),
            (msrs.IA32_LBR_CTL.index, self._event.ctl),
        ):
            if not lbr.wrmsr(self._registers, np.uint64(index), np.uint64(value)):
                raise InternalError(f"WRMSR {index:#x} <- {value:#x} faulted; the filter is not legal here")

    def _overflow_at(self, count: int) -> None:
        self.words[self._next] = count
        hooks.learn(self.words)

    def _now(self) -> int:
        return int(self.words[at.RETIRED])

    def _path(self) -> str:
        return os.path.join(self._folder, f"{self._name}.spool")
