"""Host signals on their way to the guest: a compiled handler that only writes down what came.

A signal may arrive while guest code runs, while the interpreter runs, or inside the host's kernel. The handler,
installed with SA_RESTART on an ordinary stack, appends signal, thread and siginfo to a ring in a page at a fixed
address, raises the flags that stop the engine at the next block and keep `guest.kernel` out of the kernel, and returns.
`machine.userland` takes them from the ring at its safe points. The page's address is a constant because a signal
handler gets no argument of ours.
"""

from __future__ import annotations

import ctypes
import signal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types, uint64

from archlbr.cpu.address import call1, call5, load64, store64
from archlbr.errors import InternalError
from archlbr.guest import signals as linux
from archlbr.guest import syscalls
from archlbr.native import callback, intrinsic

if TYPE_CHECKING:
    from archlbr.guest.kernel import Kernel

_PAGE_AT: Final = 0x1FFF_FF00_0000
_SIZE: Final = 1 << 16
# Words of the page.
_SIGNALLED: Final = _PAGE_AT  # address of the engine's SIGNALLED word and its LIMIT, 0 before there is an engine
PENDING: Final = _PAGE_AT + 8  # non-zero while the ring holds signals
WRITTEN: Final = _PAGE_AT + 16  # signals ever written
_WINDOW: Final = _PAGE_AT + 24  # three words: guest.kernel's window
_GETTID: Final = _PAGE_AT + 48
_SIGNAL: Final = _PAGE_AT + 56
_COUNTS: Final = _PAGE_AT + 64  # address of a count for each signal, which the waiting process reads; 0: nobody does
_RING: Final = _PAGE_AT + 256
_ROW: Final = 256  # signal, thread, siginfo
_ROWS: Final = (_PAGE_AT + _SIZE - _RING) // _ROW

# ucontext_t: gregs[REG_RIP] (sys/ucontext.h).
_RIP_AT: Final = 168

_SEGV, _BUS, _FPE = int(signal.SIGSEGV), int(signal.SIGBUS), int(signal.SIGFPE)
_ILL, _TRAP = int(signal.SIGILL), int(signal.SIGTRAP)

_HANDLER: Final = types.void(types.int32, types.uint64, types.uint64)


@intrinsic
def _take_ticket(_typing: Any, address: Any) -> Any:
    # Two threads may be in the handler at once: each takes its own row.
    signature = types.uint64(types.uint64)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        pointer = builder.inttoptr(arguments[0], word.as_pointer())
        return builder.atomic_rmw("add", pointer, ir.Constant(word, 1), "seq_cst")

    return signature, generate


@callback(_HANDLER)
def _on_signal(number: int, info: int, context: int) -> None:
    code = load64(info + uint64(8)) & uint64(0xFFFFFFFF)
    if (
        number == _SEGV or number == _BUS or number == _FPE or number == _ILL or number == _TRAP
    ) and 0 < code < 0x80000000:
        # The processor raised it in this process, not in the guest: returning with the default set ends us by it.
        call5(load64(uint64(_SIGNAL)), uint64(number), uint64(0), uint64(0), uint64(0), uint64(0))
        return
    counts = load64(uint64(_COUNTS))
    if counts != 0:
        _take_ticket(counts + uint64(8) * uint64(number))
    row = uint64(_RING) + (_take_ticket(uint64(WRITTEN)) % uint64(_ROWS)) * uint64(_ROW)
    store64(row + uint64(8), call1(load64(uint64(_GETTID)), uint64(0)) & uint64(0xFFFFFFFF))
    for offset in range(0, 128, 8):
        store64(row + uint64(16) + uint64(offset), load64(info + uint64(offset)))
    store64(row, uint64(number))  # last: a row counts once its number is there
    store64(uint64(PENDING), uint64(1))
    signalled = load64(uint64(_SIGNALLED))
    if signalled != 0:
        store64(signalled, uint64(1))
        store64(signalled + uint64(8), uint64(0))  # the word behind: at.LIMIT
    rip = load64(context + uint64(_RIP_AT))
    if load64(uint64(_WINDOW)) <= rip < load64(uint64(_WINDOW + 8)):
        store64(context + uint64(_RIP_AT), load64(uint64(_WINDOW + 16)))


class Arrival(NamedTuple):
    """A signal that the host delivered: its number, the thread it came to, its siginfo bytes."""

    number: int
    thread: int
    info: bytes


class Signals:
    """The process's dispositions, and the ring of signals that have come."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.actions = [linux.Action() for _ in range(linux.COUNT + 1)]
        self._taken = 0
        flags = 0x22 | 0x100000  # MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
        if kernel.call(syscalls.MMAP, _PAGE_AT, _SIZE, 3, flags, -1, 0) != _PAGE_AT:
            raise InternalError(f"the page for signals at {_PAGE_AT:#x} is taken in this process")
        libc = ctypes.CDLL(None)
        for address, value in (
            (_WINDOW, kernel.window[0]),
            (_WINDOW + 8, kernel.window[1]),
            (_WINDOW + 16, kernel.window[2]),
            (_GETTID, ctypes.cast(libc.gettid, ctypes.c_void_p).value or 0),
            (_SIGNAL, ctypes.cast(libc.signal, ctypes.c_void_p).value or 0),
        ):
            ctypes.c_uint64.from_address(address).value = value
        for number in range(1, linux.COUNT + 1):
            if number not in linux.UNCATCHABLE and number not in (32, 33):  # 32, 33: the C library's own
                self._adopt(number)

    def attach(self, signalled: int) -> None:
        """Let the handler raise the engine's word at an address; 0 detaches it."""
        ctypes.c_uint64.from_address(_SIGNALLED).value = signalled

    def report(self, counts: int) -> None:
        """Let the handler count arrivals at an address, a 64-bit word a signal number; 0 ends that."""
        ctypes.c_uint64.from_address(_COUNTS).value = counts

    def take(self) -> list[Arrival]:
        """Return the signals that came since the last call, in order."""
        return self._take(forked=False)

    def forget(self) -> list[Arrival]:
        """Drop what came before this process was forked: a child inherits no pending signals.

        Return the signals that have come to the child itself.
        """
        own = self._kernel.call(syscalls.GETTID)
        return [arrival for arrival in self._take(forked=True) if arrival.thread == own]

    def _take(self, *, forked: bool) -> list[Arrival]:
        ctypes.c_uint64.from_address(PENDING).value = 0
        written = ctypes.c_uint64.from_address(WRITTEN)
        arrivals: list[Arrival] = []
        while self._taken < written.value:
            if written.value - self._taken > _ROWS:
                raise InternalError(f"{written.value - self._taken} signals came at once; the ring holds {_ROWS}")
            row = _RING + self._taken % _ROWS * _ROW
            number = ctypes.c_uint64.from_address(row)
            if number.value:
                thread = ctypes.c_uint64.from_address(row + 8).value
                arrivals.append(Arrival(number.value, thread, ctypes.string_at(row + 16, 128)))
                number.value = 0
            elif not forked:  # its handler has not finished on another thread, as it never will where there is none
                ctypes.c_uint64.from_address(PENDING).value = 1
                break
            self._taken += 1
        return arrivals

    def set(self, number: int, action: linux.Action) -> None:
        """Give a signal a new disposition, in the guest's eyes and in the host's."""
        self.actions[number] = action
        self._install(number)

    def reset_for_exec(self) -> None:
        """Put every caught signal back to its default, as execve(2) does."""
        for number in range(1, linux.COUNT + 1):
            if self.actions[number].handler not in (linux.SIG_DFL, linux.SIG_IGN):
                self.set(number, linux.Action())

    def die_of(self, number: int) -> None:
        """Let this process die by a signal, so that its parent sees what a native death shows."""
        self._host_action(number, linux.SIG_DFL)
        mask = np.array([1 << (number - 1)], np.uint64)
        self._kernel.call(syscalls.RT_SIGPROCMASK, 1, mask.ctypes.data, 0, 8)  # SIG_UNBLOCK
        self._kernel.call(
            syscalls.TGKILL, self._kernel.call(syscalls.GETPID), self._kernel.call(syscalls.GETTID), number
        )

    # What the process was started with stays: ignored signals (nohup, a script's background) are ignored. The
    # interpreter ignores SIGPIPE and SIGXFSZ for itself; a program started here has their defaults.
    def _adopt(self, number: int) -> None:
        if number not in (signal.SIGPIPE, signal.SIGXFSZ):
            current = (ctypes.c_uint64 * 4)()
            self._kernel.call(syscalls.RT_SIGACTION, number, 0, ctypes.addressof(current), 8)
            if current[0] == linux.SIG_IGN:
                self.actions[number] = linux.Action(linux.SIG_IGN)
                return
        self._install(number)

    def _install(self, number: int) -> None:
        action = self.actions[number]
        if number in linux.UNCATCHABLE or number in (32, 33):
            return
        if action.handler == linux.SIG_IGN:
            # A fault of this process itself must still end it.
            self._host_action(number, linux.SIG_DFL if number in linux.SYNCHRONOUS else linux.SIG_IGN)
        elif (action.handler == linux.SIG_DFL and (number in linux.IGNORED or number in linux.STOPPING)) or (
            number in linux.SYNCHRONOUS and action.handler == linux.SIG_DFL
        ):
            self._host_action(number, linux.SIG_DFL)
        else:
            self._host_action(number, _on_signal.address, action.flags & linux.SA_NOCLDSTOP)

    def _host_action(self, number: int, handler: int, flags: int = 0) -> None:
        libc = ctypes.CDLL(None)
        if handler > linux.SIG_IGN:
            flags |= linux.SA_SIGINFO | linux.SA_RESTART
        # struct sigaction of the C library: handler, mask (128 bytes), flags, restorer
        action = (ctypes.c_uint64 * 19)()
        action[0] = handler
        for word in range(1, 17):
            action[word] = (1 << 64) - 1
        action[17] = flags
        libc.sigaction(number, ctypes.byref(action), None)
