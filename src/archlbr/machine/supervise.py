"""The process that waits: starts the guest in a child of its own, passes signals on, and says how it ended.

`cli` calls `run_guest`. The recording lives in the child and its forks; this process only waits and then gathers what
they wrote, so that a guest that is killed, or a recorder that fails, still leaves a profile.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import time
import traceback
from typing import TYPE_CHECKING, Final

from archlbr.errors import InputError
from archlbr.guest import elf
from archlbr.machine.progress import Progress
from archlbr.machine.sigtimedwait import sigtimedwait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from archlbr.machine.progress import Counted
    from archlbr.machine.recorder import Recorder

FAILED: Final = "failed"
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_SI_KERNEL: Final = 0x80
# A guest may ignore what it is sent; whoever asks this often means it.
_PATIENCE: Final = 4
_SIGNALS: Final = 65
# There is no signal 0: its place in the shared page tells where the guest's processes have their words.
_WORDS_AT: Final = 0
# Seconds between two looks at a guest's progress.
_LOOK: Final = 0.5
# Seconds between looks at whether a signal reached the guest's process too, and how many looks.
_PAUSE: Final = 0.01
_LOOKS: Final = 5
_PR_SET_PDEATHSIG: Final = 1


def find_guest(words: list[str]) -> str:
    """Return the file of the program a command line names; InputError, in one line, when it cannot be run."""
    if not words:
        raise InputError("no program to run: name one after --, as in archlbr record -- ls -l")
    path = elf.find_program(words[0], os.environ.get("PATH", os.defpath))
    if path is None:
        raise InputError(f"{words[0]}: no such program on PATH; give its path")
    resolve(path, words)
    return path


def resolve(path: str, words: list[str]) -> elf.Program:
    """Return what execve would run for a program and its command line; InputError when nothing."""
    program = elf.resolve(path, tuple(os.fsencode(word) for word in words))
    if isinstance(program, elf.Refusal):
        raise InputError(program.reason)
    return program


def run_guest(
    path: str,
    words: list[str],
    folder: Path,
    make_recorder: Callable[[], Recorder],
    watch: Callable[[Counted], None] | None = None,
) -> int:
    """Run a program under a recorder made in its process; return its exit status, 128 + N when signal N ended it.

    `watch` is told twice a second how far the program has come.
    InputError when it could not start or its recording could not be written.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_PASSED_ON, signal.SIGCHLD))
    parent = os.getpid()
    arrivals = (ctypes.c_uint64 * _SIGNALS).from_buffer(mmap.mmap(-1, 8 * _SIGNALS))  # shared with the child
    pid = os.fork()
    if pid == 0:
        _be_guest(path, words, folder, make_recorder, parent, ctypes.addressof(arrivals))
    try:
        progress = Progress(pid)
        look = None if watch is None else lambda: watch(progress.look(int(arrivals[_WORDS_AT])))
        status = _wait(pid, arrivals, look)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_PASSED_ON, signal.SIGCHLD))
    failed = folder / FAILED
    if failed.exists():
        raise InputError(failed.read_text(errors="replace"))
    return 128 - status if status < 0 else status


def run_command(
    path: str | bytes,
    command: list[str] | tuple[bytes, ...],
    environment: Mapping[str, str] | Mapping[bytes, bytes],
    started: Callable[[int], None],
    before: Callable[[], None] = lambda: None,
    look: Callable[[], None] | None = None,
) -> int:
    """Run another program that runs the guest, as `run_guest` does.

    `started` is called with its pid once there is a process; what it raises ends that. `before` is called in the child,
    `look` twice a second.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, (*_PASSED_ON, signal.SIGCHLD))
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _be_command(path, command, environment, parent, before)
    try:
        try:
            started(pid)
        except BaseException:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            raise
        status = _wait(pid, (ctypes.c_uint64 * _SIGNALS)(), look)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_PASSED_ON, signal.SIGCHLD))
    return 128 - status if status < 0 else status


def _be_command(
    path: str | bytes,
    command: list[str] | tuple[bytes, ...],
    environment: Mapping[str, str] | Mapping[bytes, bytes],
    parent: int,
    before: Callable[[], None],
) -> None:
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            # Python ignores these two for itself; the program has what it would have had.
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a script's background
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_PASSED_ON, signal.SIGCHLD))
            before()
            os.execve(path, command, environment)  # noqa: S606 - running programs is the job
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)


def _wait(pid: int, arrivals: ctypes.Array[ctypes.c_uint64], look: Callable[[], None] | None = None) -> int:
    asked = 0
    known = [0] * _SIGNALS
    while True:
        # Asked each time: where a library's thread (Frida has one) lets SIGCHLD in, it may never come here.
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        arrived = sigtimedwait((*_PASSED_ON, signal.SIGCHLD), _LOOK)
        if arrived is None:
            if look is not None:
                look()
            continue
        number = arrived.number
        if number == signal.SIGCHLD:
            continue
        if arrived.code != _SI_KERNEL and not _reached(arrivals, known, number):
            asked += 1
            os.kill(pid, number if asked < _PATIENCE else signal.SIGKILL)
            known[number] += 1


# What the terminal sends (Ctrl-C), or somebody sends to the whole process group, reaches the guest's process by itself;
# what is sent to this process alone goes on. Which it was shows in whether the guest's process has counted one more.
def _reached(arrivals: ctypes.Array[ctypes.c_uint64], known: list[int], number: int) -> bool:
    for _ in range(_LOOKS):
        if arrivals[number] > known[number]:
            known[number] = int(arrivals[number])
            return True
        time.sleep(_PAUSE)
    return False


def _be_guest(
    path: str, words: list[str], folder: Path, make_recorder: Callable[[], Recorder], parent: int, arrivals: int
) -> None:
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # the waiting process was killed before this one could be told
        from archlbr.machine.launch import close_on_exec, start

        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_PASSED_ON, signal.SIGCHLD))
        close_on_exec()
        envp = tuple(name + b"=" + value for name, value in os.environb.items())
        recorder = make_recorder()
        ctypes.c_uint64.from_address(arrivals + 8 * _WORDS_AT).value = recorder.words.ctypes.data
        process, thread = start(path, tuple(os.fsencode(word) for word in words), envp, recorder)
        process.signals.report(arrivals)
        process.end(process.run(thread))
    except InputError as error:
        (folder / FAILED).write_text(str(error))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)
