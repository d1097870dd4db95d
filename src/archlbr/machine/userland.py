"""A Linux user program on the machine: its threads take turns on the engine, its system calls go to the host's kernel.

`cli` starts a `Process` through `machine.launch`; the engine and the recorder run underneath. Each guest thread is a
host thread, so that the kernel's own ideas of a thread (its id, its signal mask, its robust list, its futex) are the
guest's. Only one runs guest code at a time. `machine.calls` gives meaning to the calls that cannot pass,
`machine.delivery` enters signal handlers. Design: docs/decisions/012.
"""

from __future__ import annotations

import ctypes
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from archlbr.cpu import words as at
from archlbr.cpu.engine import Stop, StopReason
from archlbr.cpu.unicorn.engine import UnicornEngine
from archlbr.guest import signals as linux
from archlbr.guest import syscalls
from archlbr.guest.kernel import ERESTARTSYS, Kernel
from archlbr.machine import calls, delivery, forking
from archlbr.machine.memory import AddressSpace
from archlbr.machine.processor import answer_cpuid
from archlbr.machine.signals import PENDING, Arrival, Signals
from archlbr.machine.turns import Turns

if TYPE_CHECKING:
    from archlbr.machine.recorder import Recorder
    from archlbr.machine.regions import Region

# Instructions a thread runs before another that waits may go on: some milliseconds.
SLICE: Final = 1_000_000
ENDLESS: Final = 1 << 62
SYSCALL_LENGTH: Final = 2


@dataclass(slots=True)
class Thread:
    """A guest thread and what the machine keeps of it while it does not run.

    cleared: the address the kernel would clear at its end (CLONE_CHILD_CLEARTID). block: the block (start, end) that
    stopped the engine before it ran and comes again. saved: the registers, while another thread runs.
    """

    tid: int
    rip: int
    cleared: int = 0
    alternate: linux.AlternateStack = field(default_factory=linux.AlternateStack)
    block: tuple[int, int] | None = None
    saved: Any = None
    ended: bool = False
    arrivals: list[Arrival] = field(default_factory=list)
    arguments: Any = field(default_factory=lambda: (ctypes.c_uint64 * 7)())


class Process:
    """One guest process: engine, memory, signals, threads.

    `run` returns the exit status of the program, or the negative number of the signal that ends it; the caller lets
    this process end the same way.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.kernel = Kernel()
        self.signals = Signals(self.kernel)
        self.recorder = recorder
        self.turns = Turns()
        self.threads: dict[int, Thread] = {}
        self.status: int | None = None
        self.path = ""
        self.argv: tuple[bytes, ...] = ()
        self.auxv = b""
        self.messages: list[str] = []
        self.spawning = -1  # the pipe to a parent that waits in vfork
        self.pid = os.getpid()
        self.last_ended = threading.Event()
        self._last_tid = self.pid
        self.engine, self.memory = self._processor()

    def _processor(self) -> tuple[UnicornEngine, AddressSpace]:
        words = self.recorder.words
        engine = UnicornEngine(words, self.recorder.on_block, words.ctypes.data, answer_cpuid, self.recorder.settle)
        self.signals.attach(words.ctypes.data + 8 * at.SIGNALLED)
        return engine, AddressSpace(self.kernel, engine, self._announce)

    def _announce(self, region: Region) -> None:
        self.recorder.mapped(self._last_tid, region)

    def run(self, thread: Thread) -> int:
        """Run the first thread of the program, and wait for the rest."""
        self.turns.take()
        self.threads[thread.tid] = thread
        self._switch_in(thread)
        self._loop(thread)
        while self.status is None and self.threads:
            # The first thread has ended before the others; exit_group in one of them ends the process from there.
            self.last_ended.clear()
            self.turns.give()
            self.last_ended.wait()
            self.turns.take()
        return 0 if self.status is None else self.status

    def start_thread(self, thread: Thread, ready: threading.Event) -> None:
        """Run a new guest thread on a new host thread; `ready` is set once it has its tid."""

        def body() -> None:
            thread.tid = threading.get_native_id()
            ready.set()
            self.turns.take()
            if thread.ended:  # another thread has called execve meanwhile
                self.turns.give()
                return
            self._switch_in(thread)
            try:
                self._loop(thread)
            except BaseException:
                self.fail()
            if self.status is not None:
                self.end(self.status)
            if not self.threads:
                self.last_ended.set()
            self.turns.give()

        threading.Thread(target=body, daemon=True).start()

    def fail(self) -> None:
        """End the whole process after a failure of ours, with the traceback that says what it was."""
        import traceback

        traceback.print_exc()
        os._exit(70)

    def end(self, status: int) -> None:
        """End this process the way the guest ended: by its status, or by the signal -status."""
        self.recorder.finish()
        forking.release_parent(self, share=True)
        for message in self.messages:
            os.write(2, f"archlbr: {message}\n".encode(errors="surrogateescape"))
        if status < 0:
            self.signals.die_of(-status)
        os._exit(status & 0xFF)

    # The thread runs until it or its process ends; the turn is held on entry and on return.
    def _loop(self, thread: Thread) -> None:
        engine, words = self.engine, self.recorder.words
        while True:
            words[at.DEADLINE] = int(words[at.RETIRED]) + SLICE if len(self.threads) > 1 else ENDLESS
            words[at.LIMIT] = 0  # the hook works it out
            stop = engine.run(thread.rip)
            thread.rip = stop.rip
            if stop.reason == StopReason.SYSCALL:
                self._syscall(thread, stop)
                engine = self.engine  # execve brings a new one
            elif stop.reason == StopReason.FLUSH:
                self.recorder.flush()
            elif stop.reason == StopReason.SLICE:
                if self.turns.wanted:
                    self.hand_over(thread)
            elif stop.reason != StopReason.SIGNAL:
                if stop.access == "fetch":
                    self.recorder.landed(stop.rip)
                delivery.fault(self, thread, stop)
            if words[at.SIGNALLED]:
                self.gather()
            if thread.arrivals:
                delivery.deliver(self, thread)
            if self.status is not None or thread.ended:
                return

    def _syscall(self, thread: Thread, stop: Stop) -> None:
        number, *arguments, flags = self.engine.syscall_arguments()
        call = calls.OURS.get(number)
        if call is not None:
            result = call(self, thread, arguments)
            if result is None:  # the call has set the registers itself, or nothing goes on
                return
        elif number in syscalls.REFUSED:
            result = -syscalls.REFUSED[number]
        else:
            result = self.pass_on(thread, number, arguments)
            if thread.ended:  # another thread has called execve meanwhile: the engine is the new program's
                return
        if result == -ERESTARTSYS:
            self.restart_or_interrupt(thread, number, stop)
            return
        self.engine.finish_syscall(result, stop.rip, flags)
        self.recorder.kernel_returned(stop.rip, False)

    def pass_on(self, thread: Thread, number: int, arguments: list[int]) -> int:
        """Make the guest's system call in the host's kernel, giving the turn away meanwhile."""
        words = thread.arguments
        words[0] = number
        words[1:7] = arguments
        if len(self.threads) == 1:
            return self.kernel.call_interruptible(words, PENDING)
        self._switch_out(thread)
        self.turns.give()
        result = self.kernel.call_interruptible(words, PENDING)
        self.turns.take()
        self._switch_in(thread)
        return result

    def restart_or_interrupt(self, thread: Thread, number: int, stop: Stop) -> None:
        """Let an interrupted call be made again, or fail with EINTR when a handler without SA_RESTART runs."""
        self.gather()
        restart = all(self.signals.actions[arrival.number].flags & linux.SA_RESTART for arrival in thread.arrivals)
        if restart:
            thread.rip = stop.rip - SYSCALL_LENGTH
            self.engine.write_registers({"RAX": number})
        else:
            self.engine.write_registers({"RAX": -4 & (1 << 64) - 1})

    def gather(self) -> None:
        """Hand the signals that came to the threads they came to."""
        self.recorder.words[at.SIGNALLED] = 0
        for arrival in self.signals.take():
            thread = self.threads.get(arrival.thread) or next(iter(self.threads.values()))
            thread.arrivals.append(arrival)

    def hand_over(self, thread: Thread) -> None:
        """Let the threads that wait run before this one goes on."""
        self._switch_out(thread)
        self.turns.give()
        self.turns.take()
        self._switch_in(thread)

    def _switch_out(self, thread: Thread) -> None:
        words = self.recorder.words
        thread.saved = self.engine.save()
        current = int(words[at.CURRENT])
        thread.block = None
        if int(words[at.UNUSUAL]) & at.UNUSUAL_REPEATED and current:
            thread.block = (int(words[current + at.KEY]), int(words[current + at.END]))
        self.engine.resume_before(None)
        if not thread.ended:
            self.recorder.switch_out(thread.tid)

    def _switch_in(self, thread: Thread) -> None:
        if thread.ended:  # another thread became a new program meanwhile
            return
        self._last_tid = thread.tid
        if thread.saved is not None:
            self.engine.restore(thread.saved)
        self.engine.resume_before(thread.block)
        self.recorder.switch_in(thread.tid)
        if thread.arrivals:
            self.recorder.words[at.SIGNALLED] = 1

    def forked(self, thread: Thread, parent: int) -> None:
        """Go on as the child of a fork: this thread is all there is."""
        self.pid = os.getpid()
        thread.tid = self.pid
        self._last_tid = self.pid
        self.threads = {thread.tid: thread}
        self.turns = Turns()
        self.turns.take()
        self.signals.report(0)
        self.recorder.words[at.SIGNALLED] = 0
        thread.arrivals = self.signals.forget()
        self.recorder.forked(parent, self.pid)

    def renew(self) -> None:
        """Give the process an empty address space and a new processor, as execve does."""
        self.memory.clear()
        self.engine.close()
        self.recorder.words[at.CURRENT] = np.uint64(0)
        self.engine, self.memory = self._processor()
