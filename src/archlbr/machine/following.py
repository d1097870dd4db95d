"""Following a program on QEMU and all that it starts: the plugin's messages, turned into what recorders are told.

`machine.qemu` starts the program and then this, in a thread. Each guest process has a recorder of its own, each guest
thread a processor of its own. Design: docs/decisions/042.
"""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING, Final

from archlbr.cpu.qemu.ring import Ring
from archlbr.cpu.qemu.stream import Told
from archlbr.machine.progress import Counted, counted, total
from archlbr.machine.regions import Region
from archlbr.machine.streams import ProcessStreams

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.cpu.qemu.stream import Inbox, Message
    from archlbr.machine.streams import StreamRecorder

_PAUSE_MS: Final = 100


class Follower:
    """Follow a program and all that it starts, message by message."""

    def __init__(self, folder: str, inbox: Inbox, make_recorder: Callable[[int], StreamRecorder], name: bytes) -> None:
        self.inbox = inbox
        self.warnings: list[str] = []
        self.failure: BaseException | None = None
        self.ended = threading.Event()
        self._folder = folder
        self._make = make_recorder
        self._name = name
        self._processes: dict[int, ProcessStreams] = {}
        self._ended: list[Counted] = []
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

    def counted(self) -> Counted:
        """Return what all processes have retired, as far as it was read."""
        return total([*self._ended, *(counted(process.recorder.words) for process in list(self._processes.values()))])

    def take(self, message: Message) -> None:
        """Act on one message."""
        told, pid = message.told, message.pid
        process = self._processes.get(pid)
        if told == Told.BEGUN:
            self._begin(process, message)
        elif told == Told.FORKED:
            recorder, defined, after = self._children.pop((message.c, message.d))
            child = self._processes[pid] = ProcessStreams(
                pid, recorder, Ring(self._folder, pid, message.b, longer=True)
            )
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
            self._ended.append(counted(process.recorder.words))
            self._tell(process)
        else:
            self._note(process, message)

    def _begin(self, process: ProcessStreams | None, message: Message) -> None:
        ring = Ring(self._folder, message.pid, message.b, longer=True)
        if process is not None:
            process.become(ring, os.path.basename(process.name)[:15])
            return
        process = self._processes[message.pid] = ProcessStreams(message.pid, self._make(message.pid), ring)
        process.recorder.named(message.pid, self._name, True)

    def _end_thread(self, process: ProcessStreams, message: Message) -> None:
        thread = process.thread(message.a, message.tid)
        process.activate(thread)
        process.recorder.flush()
        if len(process.threads) > 1:
            process.recorder.thread_ended(thread.tid)
        # Another thread may come to this processor, and its stream goes on where this one's ended.
        thread.tid, thread.current, thread.started = 0, 0, False
        process.active = None

    def _note(self, process: ProcessStreams, message: Message) -> None:
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

    def _tell(self, process: ProcessStreams) -> None:
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
