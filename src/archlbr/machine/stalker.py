"""A program on Frida's Stalker: its threads' streams, out of shared memory, turned into what a recorder is told.

`cli` calls `run_on_stalker` where `machine.supervise.run_guest` would run the program on Unicorn. The program runs as
a child, natively up to main; from there on Stalker translates it, and what `cpu.stalker` adds puts the numbers of its
blocks into a ring that a thread here reads as it reads QEMU's. What cannot be recorded exactly ends the program, and
is named. Design: docs/decisions/044.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import numpy as np

from archlbr.cpu import words as at
from archlbr.cpu.qemu import stream
from archlbr.cpu.qemu.ring import Ring
from archlbr.cpu.stalker import agent
from archlbr.cpu.stalker.agent import Agent, Reason
from archlbr.cpu.stalker.launch import hold_at_entry, trace_me
from archlbr.errors import InputError
from archlbr.guest.linking import linking
from archlbr.machine import supervise
from archlbr.machine.progress import counted
from archlbr.machine.regions import Region
from archlbr.machine.streams import ProcessStreams, ThreadStream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from archlbr.machine.progress import Counted
    from archlbr.machine.streams import StreamRecorder

_SYS_FUTEX: Final = 202
_FUTEX_WAIT: Final = 0
_LIBC: Final = ctypes.CDLL(None)
_PAUSE_NS: Final = 50_000_000
_MAPPING: Final = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (r.xp) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)")


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class StalkedStreams(ProcessStreams):
    """The process's streams: what lies before main, or a thread's function, and behind exit's call is passed over."""

    lengths = agent.LENGTH

    def __init__(self, pid: int, recorder: StreamRecorder, ring: Ring) -> None:
        super().__init__(pid, recorder, ring)
        self.inside: set[int] = set()

    def read_all(self) -> None:
        """Read what every thread has written since."""
        for number in range(min(self.ring.word(agent.THREADS_AT), stream.THREADS)):
            self.read_thread(number)

    def read_thread(self, number: int) -> None:
        """Read a thread's stream; until it begins, and once it has left, nothing of it counts."""
        total = self.ring.written(number)
        tid = self.ring.control(number, agent.TID_AT)
        while True:
            thread = self.thread(number, tid)
            if number not in self.inside:
                self._skip(thread, total)
            if number not in self.inside or thread.done >= total:
                break
            self.follow(number, tid, total)

    def proceeds(self, thread: ThreadStream) -> bool:
        """Return whether what a thread writes is recorded."""
        return thread.processor in self.inside

    def happened(self, thread: ThreadStream, event: int, values: list[int]) -> None:
        """Account for what stands between blocks."""
        if event == agent.LEFT:
            if self.recorder.words[at.CURRENT]:
                self.recorder.landed(values[1] << 32 | values[0])
            self.recorder.words[at.CURRENT] = 0
            self.inside.discard(thread.processor)
        elif event == agent.NAMED:
            name = np.array(values, "<u4").tobytes().split(b"\0", 1)[0]
            self.recorder.named(thread.tid, name, False)
        elif event != agent.BEGUN:
            super().happened(thread, event, values)

    def look_at_mappings(self, maps: bytes) -> None:
        """Tell the recorder of the code that is mapped; maps: of the process, before Frida came."""
        for line in maps.splitlines():
            found = _MAPPING.fullmatch(line)
            if found is None:
                continue
            start, end = int(found[1], 16), int(found[2], 16)
            path = os.fsdecode(found[8])
            vouched = (path.startswith("/") and not path.startswith("/memfd:")) or path == "[vdso]"
            if not vouched:
                continue
            device = os.makedev(int(found[5], 16), int(found[6], 16))
            self.recorder.mapped(self.pid, Region(start, end, 5, 2, path, int(found[4], 16), device, int(found[7])))

    def _skip(self, thread: ThreadStream, total: int) -> None:
        words = self.ring.words(thread.processor)
        while thread.done < total:
            start = thread.done % stream.WORDS
            end = min(stream.WORDS, start + total - thread.done)
            begun = np.flatnonzero(words[start:end] == agent.BEGUN)
            if begun.size:
                thread.done += int(begun[0]) + 1
                self.inside.add(thread.processor)
                break
            thread.done = thread.done + end - start
        self.consumed(thread)


class Watcher:
    """Read the ring until the program has ended."""

    def __init__(self, process: StalkedStreams, attached: Agent) -> None:
        self.failure: BaseException | None = None
        self.ended = threading.Event()
        self.process = process
        self._agent = attached

    def run(self) -> None:
        """Read the streams as they fill; a failure is kept in `failure` and ends the program."""
        process, ring = self.process, self.process.ring
        pause = _Time(0, _PAUSE_NS)
        bell = ctypes.c_void_p(ring.address(agent.BELL_AT))
        try:
            while not self.ended.is_set():
                rung = ring.word(agent.BELL_AT)
                process.read_all()
                if self._agent.lost:
                    raise InputError(f"--engine stalker: Frida lost its hold of the program ({self._agent.lost})")
                _LIBC.syscall(_SYS_FUTEX, bell, _FUTEX_WAIT, rung, ctypes.byref(pause), None, 0)
            process.read_all()
        except BaseException as error:
            self.failure = error
            if not self.ended.is_set():
                os.kill(process.pid, signal.SIGKILL)


def run_on_stalker(
    path: str,
    words: list[str],
    folder: Path,
    make_recorder: Callable[[int], StreamRecorder],
    watch: Callable[[Counted], None] | None = None,
) -> int:
    """Run a program under Stalker and record it; return its exit status, 128 + N when signal N ended it.

    `make_recorder` is called with the process's pid, `watch` twice a second with how far the program has come.
    InputError when Frida is missing, the program cannot be recorded exactly, or the recording could not be written.
    """
    agent.find_frida()
    program = supervise.resolve(path, words)
    if program.interpreter is None:
        raise InputError(f"--engine stalker cannot record the static program {path}: use --engine qemu or unicorn")
    if "__libc_start_main" not in linking(program.image.path).imports:
        raise InputError(f"--engine stalker: {path} has no main that a C library calls: use --engine qemu or unicorn")
    started: list[tuple[Watcher, threading.Thread, Agent]] = []

    def make(pid: int, maps: bytes) -> StalkedStreams:
        process = StalkedStreams(pid, make_recorder(pid), Ring(os.fspath(folder), pid, 0, keep=True))
        process.recorder.named(pid, os.fsencode(os.path.basename(path))[:15], True)
        process.look_at_mappings(maps)
        return process

    def hand_over(pid: int) -> None:
        held = hold_at_entry(pid)
        file = agent.make_ring(os.fspath(folder), pid)
        with open(f"/proc/{pid}/maps", "rb") as maps:
            mapped = maps.read()
        # Frida mostly waits for the program, and the recorder's compiled code is loaded meanwhile. Frida stays in this
        # thread: those that it starts take their signal masks from the one it is called in.
        with ThreadPoolExecutor(1) as executor:
            making = executor.submit(make, pid, mapped)
            attached = Agent(pid, file, held.entry, held.code)
            process = making.result()
        watcher = Watcher(process, attached)
        thread = threading.Thread(target=watcher.run)
        thread.start()
        started.append((watcher, thread, attached))

    def look() -> None:
        if watch is not None and started:
            watch(counted(started[0][0].process.recorder.words))

    try:
        status = supervise.run_command(program.image.path, program.argv, os.environb, hand_over, trace_me, look)
    except ChildProcessError:
        raise InputError("--engine stalker: the program was killed while Frida took hold of it") from None
    finally:
        agent.end_injector(os.fspath(folder))
        for watcher, _, attached in started:  # its thread would keep this process
            attached.ended = True
            watcher.ended.set()
    watcher, thread, attached = started[0]
    thread.join()
    process = watcher.process
    refused = process.ring.word(agent.REASON_AT)
    if refused:
        raise InputError(_refusal(process.ring, attached, Reason(refused)))
    if watcher.failure is not None:
        raise watcher.failure
    if not process.threads:
        raise InputError("--engine stalker: the program ended before main; use --engine qemu or --engine unicorn")
    process.recorder.finish()
    if status > 128 and process.inside:
        print(f"archlbr: process {process.pid} was killed: the block it was in is not recorded", file=sys.stderr)
    return status


def _refusal(ring: Ring, attached: Agent, reason: Reason) -> str:
    where = ring.word(agent.WHERE_AT) | ring.word(agent.WHERE_AT + 1) << 32
    text = agent.WORDS_OF[reason]
    if reason is Reason.CHANGED_CODE:
        text += f", {attached.named(where)}"
    elif where:
        text += f" (at {where:#x})"
    return f"--engine stalker: {text}; it was stopped there: use --engine qemu or --engine unicorn"
