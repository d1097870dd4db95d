"""A wait for a blocked signal ends with that signal or with nothing, stopped meanwhile or not."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from archlbr.machine.sigtimedwait import sigtimedwait

_WAIT = """
import signal
from archlbr.machine.sigtimedwait import sigtimedwait
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print("ready", flush=True)
print(sigtimedwait([signal.SIGUSR1], 0.5))
"""


def test_what_came_is_taken_with_where_it_came_from_and_then_nothing() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # a library's thread may let it in
        assert sigtimedwait([signal.SIGUSR2], 0.0) is None
        arrival = sigtimedwait([signal.SIGUSR2, signal.SIGUSR1], 60.0)
        assert arrival is not None
        assert arrival.number == signal.SIGUSR1
        assert arrival.code <= 0  # SI_FROMUSER (include/uapi/asm-generic/siginfo.h)
        assert sigtimedwait([signal.SIGUSR1], 0.01) is None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize("stopped", [0.0, 1.0])
def test_a_wait_that_is_stopped_beyond_its_end_finds_nothing(stopped: float) -> None:
    with subprocess.Popen([sys.executable, "-c", _WAIT], stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "ready\n"
        time.sleep(0.1)  # into the wait; where it has not begun, or is over, nothing is found either
        waiting.send_signal(signal.SIGSTOP)
        time.sleep(stopped)
        waiting.send_signal(signal.SIGCONT)
        assert waiting.communicate(timeout=60) == ("None\n", None)
