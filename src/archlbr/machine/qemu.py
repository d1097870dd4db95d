"""A program on QEMU's user mode: the plugin's messages and streams, turned into what a recorder is told.

`cli` calls `run_on_qemu` where `machine.supervise.run_guest` would run the program on Unicorn. QEMU runs as a child; a
thread here reads what its plugin, and those of all processes that the program starts, write (`cpu.qemu.stream`). Each
guest process has a recorder of its own, each guest thread a processor of its own. Design: docs/decisions/042.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
import threading
from typing import TYPE_CHECKING, Final, Protocol

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.cpu.decode import Decoder
from archlbr.cpu.qemu import plugin, stream
from archlbr.cpu.qemu.stream import Inbox, Message, Ring, Told
from archlbr.errors import InputError
from archlbr.machine import streaming, supervise
from archlbr.machine.memory import Region
from archlbr.machine.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SYS_FUTEX: Final = 202
_FUTEX_WAKE: Final = 1
_PAUSE_MS: Final = 100
_SIGKILL: Final = 9
_LIBC: Final = ctypes.CDLL(None)


class StreamRecorder(Recorder, Protocol):
    """A recorder of a process that runs elsewhere, with `machine.streaming`'s table behind its words."""

    reader: int

    def copied(self, blocks: int) -> StreamRecorder:
        """Return the recorder of a child that is being forked, which knows the first blocks of the table."""


class Thread:
    """What is kept of a guest thread: its place in its stream, and the block it runs while another's is looked at.

    after: where the system call under way returns to. elsewhere: the kernel goes back to where the next block starts.
    """

    def __init__(self, processor: int, tid: int) -> None:
        self.processor = processor
        self.tid = tid
        self.done = 0
        self.current = 0
        self.after = 0
        self.elsewhere = False
        self.started = False


class Process:
    """A guest process: its ring, its recorder, its threads."""

    lengths = stream.LENGTH

    def __init__(self, pid: int, recorder: StreamRecorder, ring: Ring) -> None:
        self.pid = pid
        self.recorder = recorder
        self.decoder = Decoder()
        self.ring = ring
        self.defined = 0
        self.threads: dict[int, Thread] = {}
        self.active: Thread | None = None
        self.name = b""
        self.warning = ""
        self.read = streaming.reader(recorder.reader)
        self.prepare()

    def prepare(self) -> None:
        """Give the recorder's words what compiled code calls."""
        streaming.prepare(self.recorder.words)
        self.decoder.install(self.recorder.words)

    def thread(self, processor: int, tid: int) -> Thread:
        """Return the thread on a processor, a new one when there was none."""
        thread = self.threads.get(processor)
        if thread is None:
            thread = self.threads[processor] = Thread(processor, tid)
        if thread.tid == 0:
            thread.tid = tid
        return thread

    def follow(self, processor: int, tid: int, total: int) -> None:
        """Read a thread's stream up to a number of words since it began."""
        thread = self.thread(processor, tid)
        if thread.done >= total:
            return
        self.define()
        self.activate(thread)
        words = self.ring.words(processor)
        mine, theirs = self.recorder.words.ctypes.data, words.ctypes.data
        while thread.done < total and self.proceeds(thread):
            start = thread.done % stream.WORDS
            end = min(stream.WORDS, start + total - thread.done)
            if thread.elsewhere and 0 < words[start] < stream.EVENTS:
                thread.elsewhere = False
                self.recorder.kernel_returned(self.word(int(words[start]), at.KEY), True)
            position = self.read(mine, theirs, start, end)
            thread.done += position - start
            if self.recorder.words[at.UNDECODED]:
                where = int(self.recorder.words[at.UNDECODED])
                raise InputError(f"cannot decode the instruction at {where:#x}; record with --engine unicorn")
            if self.recorder.words[at.REASON]:
                self.recorder.words[at.REASON] = 0
                self.recorder.flush()
            elif position < end:
                event = int(words[position])
                length = self.lengths[event]
                self.happened(thread, event, [int(word) for word in words[position + 1 : position + length]])
                thread.done += length
        self.consumed(thread)

    def proceeds(self, thread: Thread) -> bool:
        """Return whether what a thread writes is recorded."""
        return True

    def consumed(self, thread: Thread) -> None:
        """Let the writer go on over what was read."""
        address = self.ring.consume(thread.processor, thread.done // stream.CHUNK)
        _LIBC.syscall(_SYS_FUTEX, ctypes.c_void_p(address), _FUTEX_WAKE, 1, None, None, 0)

    def define(self) -> None:
        """Take in the blocks that were described since."""
        known = self.ring.known()
        if known > self.defined:
            streaming.define(self.recorder.words, self.ring.blocks.ctypes.data, self.defined + 1, known)
            self.defined = known

    def activate(self, thread: Thread) -> None:
        """Let the recorder's words be a thread's."""
        before, words = self.active, self.recorder.words
        if before is thread:
            return
        if before is not None:
            before.current = int(words[at.CURRENT])
            self.recorder.switch_out(before.tid)
        words[at.CURRENT] = thread.current
        if not thread.started and before is not None:
            thread.started = True
            self.recorder.thread_started(thread.tid, self.pid)
        thread.started = True
        self.recorder.switch_in(thread.tid)
        self.active = thread

    def word(self, number: int, part: int) -> int:
        """Return a word of a block's entry."""
        return int(self.recorder.words[streaming.TABLE + number * at.ENTRY + part])

    def happened(self, thread: Thread, event: int, values: list[int]) -> None:
        """Account for what stands between blocks."""
        words = self.recorder.words
        current = (int(words[at.CURRENT]) - streaming.TABLE) // at.ENTRY if words[at.CURRENT] else 0
        if event == stream.RETURNED:
            self.recorder.kernel_returned(thread.after, False)
        elif event == stream.SIGNAL:
            self.signalled(thread, current, *values)
        elif event == stream.RESTARTED:
            count, reached = values
            meta = self.word(current, at.META)
            kind, repeated = meta & 0xFF, meta & at.META_REP
            if not reached or (kind == BranchKind.NONE and not repeated):
                self.retire(count)
        else:  # SYSCALL, SIGRETURN
            thread.after = self.word(current, at.END) if current else 0
            self.retire(self.count(current))
            thread.elsewhere = event == stream.SIGRETURN

    def count(self, number: int) -> int:
        """Return the instructions of a block."""
        return self.word(number, at.META) >> at.META_COUNT_SHIFT & at.META_COUNT_MASK if number else 0

    def retire(self, instructions: int) -> None:
        """Let the running block end here, without a branch."""
        self.recorder.words[at.RETIRED] += instructions
        self.recorder.words[at.CURRENT] = 0

    def signalled(
        self, thread: Thread, current: int, handler: int, count: int, low: int, high: int, fault: int
    ) -> None:
        """Account for a signal whose handler begins now; the interrupted RIP says how far the running block came."""
        rip = high << 32 | low
        entry = self.word(handler, at.KEY)
        if current:
            start, end, kind = (
                self.word(current, at.KEY),
                self.word(current, at.END),
                self.word(current, at.META) & 0xFF,
            )
            led = self.successors(current)
            if entry in led and not start <= rip <= end and rip not in led:
                return  # the handler's own code jumped to its first instruction, with the frame still on top
            if fault and start <= rip < end:
                self.retire(count)
            elif fault and rip == end and kind == BranchKind.OTHER:  # INT3 leaves RIP behind it
                self.retire(self.count(current))
            else:
                self.recorder.landed(rip)
        if thread.elsewhere:  # back from a handler, and into the next
            thread.elsewhere = False
            self.recorder.kernel_returned(rip, True)
        self.recorder.kernel_returned(entry, True)

    def successors(self, number: int) -> tuple[int, ...]:
        """Return where the end of a block can lead, nothing when anywhere."""
        kind, end = self.word(number, at.META) & 0xFF, self.word(number, at.END)
        if kind == BranchKind.NONE:
            return (end,)
        if kind not in (BranchKind.COND, BranchKind.REL_JMP, BranchKind.REL_CALL):
            return ()
        size = end - self.word(number, at.LAST)
        row = number * stream.BLOCK_BYTES + 32
        code = self.ring.blocks[row : row + size].tobytes()
        near = size >= 5 and (code[-5] in (0xE8, 0xE9) or 0x80 <= code[-5] <= 0x8F)  # a 32-bit displacement
        target = end + int.from_bytes(code[-4:] if near else code[-1:], "little", signed=True)
        return (target, end) if kind == BranchKind.COND else (target,)

    def become(self, ring: Ring, name: bytes) -> None:
        """Go on as another program."""
        self.ring, self.defined, self.threads, self.active = ring, 0, {}, None
        self.warning = ""
        self.recorder.flush()
        self.recorder.words[at.CURRENT] = 0
        self.recorder.named(self.pid, name, True)
        self.thread(0, self.pid).elsewhere = True

    def finish(self) -> None:
        """Read what is left of every stream, and end the recording."""
        for thread in list(self.threads.values()):
            self.follow(thread.processor, thread.tid, self.ring.written(thread.processor))
        self.recorder.finish()


class Follower:
    """Follow a program and all that it starts, message by message."""

    def __init__(self, folder: str, make_recorder: Callable[[int], StreamRecorder], name: bytes) -> None:
        self.inbox = Inbox(folder)
        self.warnings: list[str] = []
        self.failure: BaseException | None = None
        self.ended = threading.Event()
        self._folder = folder
        self._make = make_recorder
        self._name = name
        self._processes: dict[int, Process] = {}
        self._children: dict[tuple[int, int], tuple[StreamRecorder, int, int]] = {}

    def run(self) -> None:
        """Read messages until the program has ended and no more come; a failure is kept in `failure`."""
        try:
            poller = select.poll()
            poller.register(self.inbox.fd, select.POLLIN)
            while True:
                ended = self.ended.is_set()
                messages = self.inbox.read() if poller.poll(0 if ended else _PAUSE_MS) else []
                for message in messages:
                    self.take(message)
                if ended and not messages:
                    break
            for process in self._processes.values():
                self.warnings.append(
                    f"process {process.pid} was killed, or still runs: the block it was in is not recorded"
                )
                process.finish()
        except BaseException as error:
            self.failure = error
        finally:
            self.inbox.close()

    def take(self, message: Message) -> None:
        """Act on one message."""
        told, pid = message.told, message.pid
        process = self._processes.get(pid)
        if told == Told.BEGUN:
            self._begin(process, message)
        elif told == Told.FORKED:
            recorder, defined, after = self._children.pop((message.c, message.d))
            child = self._processes[pid] = Process(pid, recorder, Ring(self._folder, pid, message.b))
            child.defined = defined
            thread = child.active = child.thread(message.a, pid)
            thread.started, thread.after = True, after
            recorder.forked(message.c, pid)
        elif process is None:
            return
        elif told == Told.PROGRESS:
            process.follow(message.a, message.tid, message.b)
        elif told == Told.FORKING:
            process.define()
            process.activate(process.thread(message.a, message.tid))
            process.recorder.forking()
            after = process.thread(message.a, message.tid).after
            self._children[pid, message.b] = process.recorder.copied(message.c), message.c, after
        elif told == Told.MAPPED:
            process.recorder.mapped(message.tid, _region(message))
        elif told == Told.THREAD:
            process.thread(message.a, message.b)
        elif told == Told.THREAD_ENDED:
            self._end_thread(process, message)
        elif told == Told.EXITED:
            del self._processes[pid]
            process.finish()
            self._tell(process)
        else:
            self._note(process, message)

    def _begin(self, process: Process | None, message: Message) -> None:
        ring = Ring(self._folder, message.pid, message.b)
        if process is not None:
            process.become(ring, os.path.basename(process.name)[:15])
            return
        process = self._processes[message.pid] = Process(message.pid, self._make(message.pid), ring)
        process.recorder.named(message.pid, self._name, True)

    def _end_thread(self, process: Process, message: Message) -> None:
        thread = process.thread(message.a, message.tid)
        process.activate(thread)
        process.recorder.flush()
        if len(process.threads) > 1:
            process.recorder.thread_ended(thread.tid)
        # Another thread may come to this processor, and its stream goes on where this one's ended.
        thread.tid, thread.current, thread.started = 0, 0, False
        process.active = None

    def _note(self, process: Process, message: Message) -> None:
        text = os.fsdecode(message.text)
        if message.told == Told.NAMED:
            process.recorder.named(message.tid, message.text[:15], False)
        elif message.told == Told.EXEC:
            process.name = message.text
        elif message.told == Told.STAYED:
            process.warning = ""
        elif message.told == Told.UNFOLLOWED:
            process.warning = f"{text} runs unrecorded: QEMU runs 64-bit x86 programs only; use --engine unicorn"
        elif message.told == Told.UNPRIVILEGED:
            self.warnings.append(f"{text} is set-user-ID or set-group-ID: it runs without that under QEMU")

    def _tell(self, process: Process) -> None:
        if process.warning:
            self.warnings.append(process.warning)


def _region(message: Message) -> Region:
    return Region(
        message.a,
        message.b,
        message.e & 0xF,
        message.e >> 4 & 0xF,
        os.fsdecode(message.text),
        message.c,
        os.makedev(message.d >> 32, message.d & 0xFFFFFFFF),
        message.e >> 8,
    )


def run_on_qemu(path: str, words: list[str], folder: Path, make_recorder: Callable[[int], StreamRecorder]) -> int:
    """Run a program under QEMU and record it; return its exit status, 128 + N when signal N ended it.

    `make_recorder` is called with the process's pid. InputError when QEMU or a compiler is missing, or the recording
    could not be written.
    """
    program = supervise.resolve(path, words)
    command = plugin.command(os.fspath(folder), program.image.path, [os.fsdecode(word) for word in program.argv])
    follower = Follower(os.fspath(folder), make_recorder, os.fsencode(os.path.basename(path))[:15])
    thread = threading.Thread(target=follower.run)
    status = supervise.run_command(command[0], command, plugin.environment(), lambda _pid: thread.start())
    follower.ended.set()
    thread.join()
    if follower.failure is not None:
        raise follower.failure
    for line in follower.warnings:
        print(f"archlbr: {line}", file=sys.stderr)
    return status
