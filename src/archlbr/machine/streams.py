"""What a process writes that runs elsewhere: its threads' streams of blocks, turned into what a recorder is told.

`machine.following` and `machine.stalker` say when there is something to read; `machine.streaming` is the compiled
reader. Each process has a recorder of its own, each thread a processor of its own. Design: docs/decisions/042.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.cpu.decode import Decoder
from archlbr.cpu.qemu import stream
from archlbr.errors import InputError, InternalError
from archlbr.machine import hooks, skimming, streaming
from archlbr.machine.recorder import Recorder

if TYPE_CHECKING:
    from archlbr.cpu.qemu.ring import Ring

_SYS_FUTEX: Final = 202
_FUTEX_WAKE: Final = 1
_LIBC: Final = ctypes.CDLL(None)


class StreamRecorder(Recorder, Protocol):
    """A recorder of a process that runs elsewhere, with `machine.streaming`'s table behind its words."""

    reader: int

    def copied(self, blocks: int) -> StreamRecorder:
        """Return the recorder of a child that is being forked, which knows the first blocks of the table."""


class ThreadStream:
    """A guest thread's stream: how far it was read, and the block the thread runs while another's is looked at.

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


class ProcessStreams:
    """The streams of a guest process: the ring they stand in, one a thread, and the recorder they go to."""

    lengths = stream.LENGTH

    def __init__(self, pid: int, recorder: StreamRecorder, ring: Ring) -> None:
        self.pid = pid
        self.recorder = recorder
        self.decoder = Decoder()
        self.ring = ring
        self.defined = 0
        self.threads: dict[int, ThreadStream] = {}
        self.active: ThreadStream | None = None
        self.name = b""
        self.warning = ""
        self.read = streaming.reader(recorder.reader)
        self.prepare()

    def prepare(self) -> None:
        """Give the recorder's words what compiled code calls."""
        streaming.prepare(self.recorder.words)
        self.decoder.install(self.recorder.words)

    def thread(self, processor: int, tid: int) -> ThreadStream:
        """Return the thread on a processor, a new one when there was none."""
        thread = self.threads.get(processor)
        if thread is None:
            thread = self.threads[processor] = ThreadStream(processor, tid)
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
        words, circle = self.ring.words(processor), self.ring.circle(processor)
        mine, theirs = self.recorder.words.ctypes.data, words.ctypes.data
        while thread.done < total and self.proceeds(thread):
            start = thread.done % circle
            end = min(circle, start + total - thread.done)
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

    def proceeds(self, thread: ThreadStream) -> bool:
        """Return whether what a thread writes is recorded."""
        return True

    def consumed(self, thread: ThreadStream) -> None:
        """Let the writer go on over what was read."""
        address = self.ring.consume(thread.processor, thread.done // stream.CHUNK)
        _LIBC.syscall(_SYS_FUTEX, ctypes.c_void_p(address), _FUTEX_WAKE, 1, None, None, 0)

    def define(self) -> None:
        """Take in the blocks that were described since."""
        known = self.ring.known()
        if known > self.defined:
            other = streaming.define(self.recorder.words, self.ring.blocks.ctypes.data, self.defined + 1, known)
            if other:
                raise InternalError(f"the decoder and the plugin's ends.c differ over the instruction at {other:#x}")
            self.defined = known

    def activate(self, thread: ThreadStream) -> None:
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
        return int(self.recorder.words[skimming.TABLE + number * at.ENTRY + part])

    def happened(self, thread: ThreadStream, event: int, values: list[int]) -> None:
        """Account for what stands between blocks."""
        words = self.recorder.words
        current = (int(words[at.CURRENT]) - skimming.TABLE) // at.ENTRY if words[at.CURRENT] else 0
        if event == stream.COUNTED:
            raise InternalError("the plugin counted branches that a sample shows")
        if event == stream.ASKED:
            left = int(words[hooks.NEXT_TAKEN]) - int(words[at.TAKEN])
            self.ring.answer(thread.processor, values[0], left)
        elif event == stream.RETURNED:
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
        self, thread: ThreadStream, current: int, handler: int, count: int, low: int, high: int, fault: int
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
            self.take_in(thread)
        self.recorder.finish()

    def take_in(self, thread: ThreadStream) -> None:
        """Take in what a thread counted and, since it was stopped, never wrote."""
        taken, retired = self.ring.counted(thread.processor)
        self.recorder.words[at.TAKEN] += np.uint64(taken)
        self.recorder.words[at.RETIRED] += np.uint64(retired)
