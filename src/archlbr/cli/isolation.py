"""A verb that runs a whole machine gets a process of its own: when the engine dies, a line is left instead of a core.

The engine is a C library that hostile guest code may bring down. `app` divides before the verb's modules are loaded:
the child goes on, the parent waits, passes on the signals that only it was sent, and exits as the child did. Output
files that the child left unfinished are taken away. Sources: signal(7), prctl(2) PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

from archlbr.cli.messages import complain
from archlbr.machine.sigtimedwait import sigtimedwait

ISOLATED = ("run", "restore")
FAILED = 1
TIMED_OUT = 124  # as timeout(1) has it
# How long after --timeout the machine may take to end by itself, its start included. Code that never leaves the engine
# cannot.
GRACE = 60.0
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_OUTPUTS = ("-o", "--output", "--trace", "--snapshot")
_TIMEOUT = "--timeout"
_SI_KERNEL = 0x80
_PR_SET_PDEATHSIG = 1


def divide(words: list[str]) -> int | None:
    """Fork; return None in the child, which does the work, and the exit status in the parent, when it is done.

    words: the command line, for --timeout and for the files that a dead child leaves.
    """
    waited = {signal.SIGCHLD, *_PASSED_ON}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, nobody could wait
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(FAILED)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    try:
        return _wait(child, words, waited)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(child: int, words: list[str], waited: set[signal.Signals]) -> int:
    limit = _timeout(words)
    end = time.monotonic() + limit + GRACE if limit else float("inf")
    while True:
        left = min(end - time.monotonic(), 3600.0)
        arrived = sigtimedwait(waited, max(0.0, left))
        if arrived is not None and arrived.number != signal.SIGCHLD and arrived.code != _SI_KERNEL:
            os.kill(child, arrived.number)  # the terminal's own go to both
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return _ended(child, os.waitstatus_to_exitcode(status), words)
        if time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            _take_away(child, words)
            complain(f"the machine ran for {limit:g} s without an end")
            return TIMED_OUT


def _ended(child: int, code: int, words: list[str]) -> int:
    if code >= 0:
        return code
    _take_away(child, words)
    number = signal.Signals(-code)
    if number in CRASHES:
        complain(
            f"the engine died of {number.name} while guest code ran: a bug of the engine, which the guest met; "
            "nothing was written, and no other guest is touched"
        )
        return FAILED
    return 128 - code


def _timeout(words: list[str]) -> float:
    given = _given(words, (_TIMEOUT,))
    with contextlib.suppress(ValueError, IndexError):
        return max(0.0, float(given[-1]))
    return 0.0


def _take_away(child: int, words: list[str]) -> None:
    for name in _given(words, _OUTPUTS):
        path = Path(os.path.realpath(name))
        with contextlib.suppress(OSError):
            (path.parent / f".{path.name}.{child}.tmp").unlink()


def _given(words: list[str], options: tuple[str, ...]) -> list[str]:
    found = [after for word, after in pairwise(words) if word in options]
    return found + [word.split("=", 1)[1] for word in words if "=" in word and word.split("=", 1)[0] in options]
