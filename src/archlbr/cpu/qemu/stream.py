"""What the plugin writes and how it is read: the ring of a process, and messages through a FIFO.

The plugin's C files are compiled with the sizes and codes that stand here. A ring holds a description of every block
of code and, for each thread, a circle of 32-bit words: block numbers, and events between them. `machine.following`
reads messages, `machine.streams` the streams they speak of. Design: docs/decisions/042.
"""

from __future__ import annotations

import os
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from archlbr.cpu import words as at

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK: Final = 1 << 16  # words after which a stream's reader is told
CHUNKS: Final = 4
FIRST_CHUNKS: Final = 256  # of the first thread under QEMU, which runs while its reader is still being loaded
WORDS: Final = CHUNK * CHUNKS
BLOCKS: Final = 1 << 20
THREADS: Final = 512
HIDDEN: Final = 1  # the first letter, on the way to a program, of a variable that QEMU or its loader would take

# Words of a stream that are no block numbers, and how many words each has; 0 is nothing.
EVENTS: Final = 0x7FFFFF00
SYSCALL: Final = EVENTS
RETURNED: Final = EVENTS + 1  # from a system call, to the next instruction
SIGRETURN: Final = EVENTS + 2
SIGNAL: Final = EVENTS + 3  # block of the handler, instructions retired before, RIP low, RIP high, 1: a fault there
RESTARTED: Final = EVENTS + 4  # instructions retired before, 1: the last instruction was begun
COUNTED: Final = EVENTS + 5  # taken branches, instructions low, high: of blocks not written, up to the one that follows
ASKED: Final = EVENTS + 6  # number: how many taken branches are there to the next sample, as of here?
LENGTH: Final = {SYSCALL: 1, RETURNED: 1, SIGRETURN: 1, SIGNAL: 6, RESTARTED: 3, COUNTED: 4, ASKED: 2}


class Ending(IntEnum):
    """How a block's last instruction can go on, as the plugin's ends.c says; UNTOLD where nothing is counted."""

    UNTOLD = 0
    UNSURE = 1
    ODD = 2  # no branch is counted
    PLAIN = 3  # no branch
    CONDITIONAL = 4
    ALWAYS = 5


class Told(IntEnum):
    """Kinds of messages."""

    NOTHING = 0
    BEGUN = 1  # b: the ring's generation
    FORKED = 2  # a: processor, b: generation, c: parent, d: number of the fork
    PROGRESS = 3  # a: processor, b: words written
    FORKING = 4  # a: processor, b: number of the fork, c: blocks described
    MAPPED = 5  # a, b: start and end, c: offset, d: device, e: inode << 8 | flags << 4 | rights; text: the file
    THREAD = 6  # a: processor, b: thread
    THREAD_ENDED = 7  # a: processor
    NAMED = 8
    EXEC = 9  # text: the program
    STAYED = 10  # execve failed
    UNFOLLOWED = 11  # text: a program that runs outside QEMU
    UNPRIVILEGED = 12  # text: a program that should run as another user
    EXITED = 13


class Message(NamedTuple):
    """One message of a thread of a process."""

    told: int
    pid: int
    tid: int
    a: int
    b: int
    c: int
    d: int
    e: int
    text: bytes


_MESSAGE: Final = struct.Struct("<IIIIQQQQQ")
BLOCK_BYTES: Final = 48  # struct block: start, end, last, count, size, ending, code[16]
BEGUN_BYTES: Final = 32
STREAMS_AT: Final = 4096 + BLOCK_BYTES * BLOCKS
STREAM_BYTES: Final = 4096 + 4 * WORDS
RING_BYTES: Final = STREAMS_AT + THREADS * STREAM_BYTES


def macros() -> Iterator[str]:
    """Yield `NAME=value` for each constant that the plugin is compiled with."""
    sizes = {
        "CHUNK": CHUNK,
        "CHUNKS": CHUNKS,
        "FIRST_CHUNKS": FIRST_CHUNKS,
        "BLOCKS": BLOCKS,
        "THREADS": THREADS,
        "EVENTS": EVENTS,
        "LEARNT": at.LEARNT,
        "HIDDEN": HIDDEN,
    }
    codes = {
        "SYSCALL": SYSCALL,
        "RETURNED": RETURNED,
        "SIGRETURN": SIGRETURN,
        "SIGNAL": SIGNAL,
        "RESTARTED": RESTARTED,
        "COUNTED": COUNTED,
        "ASKED": ASKED,
    }
    for name, value in (*sizes.items(), *codes.items(), *((told.name, told.value) for told in Told)):
        yield f"{name}={value}u"


class Inbox:
    """The FIFO in a folder that all plugins of a recording write messages to."""

    def __init__(self, folder: str) -> None:
        path = os.path.join(folder, "events")
        os.mkfifo(path, 0o600)
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._path = path
        self._left = b""

    def read(self) -> list[Message]:
        """Return the messages that have come."""
        try:
            raw = self._left + os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return []
        messages, at = [], 0
        while len(raw) - at >= _MESSAGE.size:
            size, told, pid, tid, *numbers = _MESSAGE.unpack_from(raw, at)
            if len(raw) - at < size:
                break
            text = raw[at + _MESSAGE.size : at + size].split(b"\0", 1)[0]
            a, b, c, d, e = numbers
            messages.append(Message(told, pid, tid, a, b, c, d, e, text))
            at += size
        self._left = raw[at:]
        return messages

    def close(self) -> None:
        """Remove the FIFO: whoever still writes goes on unrecorded."""
        os.unlink(self._path)
        os.close(self.fd)
