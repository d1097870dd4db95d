"""Host signals on their way to the guest: the ring, the flags it raises, and what the host is told to do."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import threading
import time

import numpy as np
import pytest

from archlbr.errors import InternalError
from archlbr.guest.kernel import ERESTARTSYS, Kernel
from archlbr.guest.signals import Action
from archlbr.machine.signals import PENDING, WRITTEN, Arrival, Signals
from tests.machine.apart import apart

SI_USER, SI_QUEUE, SI_TKILL = 0, -1, -6
READ, TGKILL = 0, 234
HANDLER = 0x401000
SA_RESTART = 0x10000000
RTMIN = 34
_libc = ctypes.CDLL(None)


def catching(*numbers: int) -> tuple[Kernel, Signals]:
    """Return the signals of a process whose guest has handlers for some."""
    kernel = Kernel()
    signals = Signals(kernel)
    for number in numbers:
        signals.set(number, Action(HANDLER))
    return kernel, signals


def pending() -> int:
    return ctypes.c_uint64.from_address(PENDING).value


def queue(number: int, value: int) -> None:
    assert _libc.sigqueue(os.getpid(), number, ctypes.c_void_p(value)) == 0


def test_signals_arrive_in_order_with_all_that_the_kernel_said() -> None:
    def child() -> tuple[list[tuple[int, bool, tuple[int, ...]]], int, int, list[object]]:
        _, signals = catching(RTMIN, RTMIN + 1, signal.SIGUSR1)
        for value in range(50):
            queue(RTMIN + value % 2, value + 1)
        os.kill(os.getpid(), signal.SIGUSR1)
        before = pending()
        arrivals = signals.take()
        rows = [
            (arrival.number, arrival.thread == os.getpid(), struct.unpack_from("<iiiiiiQ", arrival.info))
            for arrival in arrivals
        ]
        return rows, before, pending(), list(signals.take())

    rows, before, after, rest = apart(child)
    assert (before, after, rest) == (1, 0, [])
    # si_signo, si_errno, si_code, padding, si_pid, si_uid, si_value
    assert [(number, mine, said[0], said[2], said[6]) for number, mine, said in rows[:50]] == [
        (RTMIN + value % 2, True, RTMIN + value % 2, SI_QUEUE, value + 1) for value in range(50)
    ]
    number, mine, said = rows[50]
    assert (number, mine, said[0], said[2], said[5]) == (signal.SIGUSR1, True, signal.SIGUSR1, SI_USER, os.getuid())
    assert {said[4] for _, _, said in rows} == {rows[0][2][4]}


def test_the_ring_goes_round() -> None:
    def child() -> list[int]:
        _, signals = catching(RTMIN)
        values = []
        sent = 0
        for batch in (100, 255, 255, 1, 254, 60):
            for _ in range(batch):
                sent += 1
                queue(RTMIN, sent)
            values += [struct.unpack_from("<Q", arrival.info, 24)[0] for arrival in signals.take()]
        return values

    assert apart(child) == list(range(1, 926))


def test_more_than_the_ring_holds_is_no_silence() -> None:
    def child() -> str:
        _, signals = catching(RTMIN)
        for value in range(256):
            queue(RTMIN, value)
        with pytest.raises(InternalError) as raised:
            signals.take()
        return str(raised.value)

    assert apart(child) == "256 signals came at once; the ring holds 255"


def test_a_signal_belongs_to_the_thread_it_came_to() -> None:
    def child() -> list[tuple[int, int]]:
        kernel, signals = catching(RTMIN)
        tids: list[int] = []

        def body() -> None:
            tids.append(threading.get_native_id())
            kernel.call(TGKILL, os.getpid(), tids[-1], RTMIN)

        for _ in range(5):
            thread = threading.Thread(target=body)
            thread.start()
            thread.join()
        arrivals = signals.take()
        assert [struct.unpack_from("<i", arrival.info, 8)[0] for arrival in arrivals] == [SI_TKILL] * 5
        return [(arrival.thread, tid) for arrival, tid in zip(arrivals, tids, strict=True)]

    pairs = apart(child)
    assert len(pairs) == 5
    assert [came for came, _ in pairs] == [tid for _, tid in pairs]


def test_the_engine_is_told_to_stop() -> None:
    def child() -> tuple[list[int], list[int], list[int]]:
        _, signals = catching(signal.SIGUSR1)
        words = np.array([7, 0, 5, 7], np.uint64)
        os.kill(os.getpid(), signal.SIGUSR1)
        untouched = words.tolist()
        signals.attach(words.ctypes.data + 8)
        os.kill(os.getpid(), signal.SIGUSR1)
        raised = words.tolist()
        words[1:3] = 0, 5
        signals.attach(0)
        os.kill(os.getpid(), signal.SIGUSR1)
        return untouched, raised, words.tolist()

    # The word itself becomes 1 and the limit behind it 0; the neighbours stay.
    assert apart(child) == ([7, 0, 5, 7], [7, 1, 0, 7], [7, 0, 5, 7])


def test_a_waiting_call_comes_back() -> None:
    """The kernel would restart read(2) after the handler: it must come back instead."""

    def child() -> tuple[int, bool, int]:
        kernel, signals = catching(signal.SIGALRM)
        signals.set(signal.SIGALRM, Action(HANDLER, SA_RESTART))
        reader, _ = os.pipe()
        buffer = ctypes.create_string_buffer(8)
        words = (ctypes.c_uint64 * 7)(READ, reader, ctypes.addressof(buffer), 8)
        start = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        result = kernel.call_interruptible(words, PENDING)
        waited = time.monotonic() - start >= 0.15
        return result, waited, len(signals.take())

    assert apart(child, seconds=20) == (-ERESTARTSYS, True, 1)


def test_a_signal_at_any_moment_keeps_the_thread_out_of_the_kernel() -> None:
    """Signals at random moments before a read that would wait for ever: each must end it."""

    def child() -> int:
        kernel, signals = catching(signal.SIGALRM)
        reader, _ = os.pipe()
        buffer = ctypes.create_string_buffer(8)
        words = (ctypes.c_uint64 * 7)(READ, reader, ctypes.addressof(buffer), 8)
        came = 0
        for turn in range(300):
            signal.setitimer(signal.ITIMER_REAL, (1 + turn * 7 % 60) * 1e-6)
            assert kernel.call_interruptible(words, PENDING) == -ERESTARTSYS
            came += len(signals.take())
        return came

    assert apart(child, seconds=30) == 300


def test_a_forked_child_has_its_own_signals_alone() -> None:
    """What came to the parent is dropped, and so is the row of a thread that was in the handler at the fork."""

    def child() -> tuple[list[int], int, list[int]]:
        _, signals = catching(RTMIN)
        queue(RTMIN, 1)
        ctypes.c_uint64.from_address(WRITTEN).value += 1  # as the handler does first, on a thread that is gone now
        queue(RTMIN, 2)

        def grandchild() -> tuple[list[int], int, list[int]]:
            queue(RTMIN, 3)
            kept = values_of(signals.forget())
            before = pending()
            queue(RTMIN, 4)
            return kept, before, values_of(signals.take())

        return apart(grandchild)

    assert apart(child) == ([3], 0, [4])


def values_of(arrivals: list[Arrival]) -> list[int]:
    return [struct.unpack_from("<Q", arrival.info, 24)[0] for arrival in arrivals]


def host_handlers() -> dict[str, set[int]]:
    """Return which signals this process ignores and catches, by the kernel's own account."""
    with open("/proc/self/status") as status:
        lines = dict(line.split(":\t") for line in status if line.startswith("Sig"))
    return {name: {bit + 1 for bit in range(64) if int(lines[name], 16) >> bit & 1} for name in ("SigIgn", "SigCgt")}


SYNCHRONOUS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}


def test_the_host_is_told_what_a_disposition_means() -> None:
    def child() -> list[dict[str, set[int]]]:
        _, signals = catching()
        seen = [host_handlers()]
        for number in (signal.SIGUSR1, signal.SIGSEGV, signal.SIGCHLD, signal.SIGTSTP):
            signals.set(number, Action(1))  # SIG_IGN
        seen.append(host_handlers())
        for number in (signal.SIGUSR1, signal.SIGSEGV, signal.SIGCHLD, signal.SIGTSTP):
            signals.set(number, Action(HANDLER))
        seen.append(host_handlers())
        signals.set(signal.SIGUSR1, Action(1))
        signals.reset_for_exec()
        assert signals.actions[signal.SIGUSR1] == Action(1)
        assert signals.actions[signal.SIGCHLD] == Action()
        seen.append(host_handlers())
        return seen

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        start, ignoring, caught, after = apart(child)
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    theirs = {32, 33}  # the C library's own
    everything = set(range(1, 65)) - {signal.SIGKILL, signal.SIGSTOP} - theirs
    # Where the default is to end the process, a recording must be finished first: we catch it.
    by_default = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
    by_default |= {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
    assert start["SigIgn"] - theirs == {signal.SIGHUP}
    assert start["SigCgt"] - theirs == everything - by_default - SYNCHRONOUS - {signal.SIGHUP}
    # A fault of our own must still end us: SIGSEGV is never ignored.
    assert ignoring["SigIgn"] - theirs == {signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD, signal.SIGTSTP}
    assert ignoring["SigCgt"] == start["SigCgt"] - {signal.SIGUSR1}
    assert caught["SigIgn"] - theirs == {signal.SIGHUP}
    assert caught["SigCgt"] == start["SigCgt"] | {signal.SIGSEGV, signal.SIGCHLD, signal.SIGTSTP}
    assert after["SigIgn"] - theirs == {signal.SIGHUP, signal.SIGUSR1}
    assert after["SigCgt"] == start["SigCgt"] - {signal.SIGUSR1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGSEGV, signal.SIGUSR1, signal.SIGKILL])
def test_dying_of_a_signal_is_what_the_parent_sees(number: int) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            _, signals = catching(number) if number != signal.SIGKILL else catching()
            signal.pthread_sigmask(signal.SIG_BLOCK, {number})
            signals.die_of(number)
        finally:
            os._exit(99)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == number
