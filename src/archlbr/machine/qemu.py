"""A program on QEMU's user mode.

`cli` calls `run_on_qemu` where `machine.supervise.run_guest` would run the program on Unicorn. QEMU runs as a child; a
thread here (`machine.following`) reads what its plugin, and those of all processes that the program starts, write
(`cpu.qemu.stream`). Design: docs/decisions/042.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from archlbr.cpu.qemu import plugin
from archlbr.cpu.qemu.stream import Inbox
from archlbr.machine import supervise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from archlbr.machine.following import Follower
    from archlbr.machine.progress import Counted
    from archlbr.machine.streams import StreamRecorder


def run_on_qemu(
    path: str,
    words: list[str],
    folder: Path,
    make_recorder: Callable[[int], StreamRecorder],
    watch: Callable[[Counted], None] | None = None,
    period: int = 0,
) -> int:
    """Run a program under QEMU and record it; return its exit status, 128 + N when signal N ended it.

    `make_recorder` is called with the process's pid, `watch` twice a second with how far the program has come. period:
    taken branches a sample, where those that no sample will show need only be counted; 0: all are recorded.
    InputError when QEMU or a compiler is missing, or the recording could not be written.
    """
    program = supervise.resolve(path, words)
    command = plugin.command(
        os.fspath(folder), program.image.path, [os.fsdecode(word) for word in program.argv], period
    )
    inbox = Inbox(os.fspath(folder))
    started: list[tuple[Follower, threading.Thread]] = []

    def begin(_pid: int) -> None:
        from archlbr.machine.following import Follower  # compiled code, which is loaded while the program runs

        follower = Follower(os.fspath(folder), inbox, make_recorder, os.fsencode(os.path.basename(path))[:15])
        started.append((follower, threading.Thread(target=follower.run)))
        started[0][1].start()

    look = None if watch is None else lambda: watch(started[0][0].counted())
    status = supervise.run_command(command[0], command, plugin.environment(), begin, look=look)
    follower, thread = started[0]
    follower.ended.set()
    thread.join()
    if follower.failure is not None:
        raise follower.failure
    for line in follower.warnings:
        print(f"archlbr: {line}", file=sys.stderr)
    if status == 128 + signal.SIGILL:
        _name_avx(path, program.image.path)
    return status


def _name_avx(path: str, image: str) -> None:
    from archlbr.cpu.contents import contents
    from archlbr.guest.linking import linking

    if contents(linking(image).text).wide:
        print(
            f"archlbr: {path} uses AVX, which this processor does not offer; use --engine stalker, or "
            "build it without -mavx and -march=native",
            file=sys.stderr,
        )
