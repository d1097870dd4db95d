"""One boot of the Linux guest, driven from here: what is typed, what the console says, what a trace from outside holds.

`perf record` runs in the guest five times, once over two programs; meanwhile the board writes down every branch of the
program, or around each NMI every branch of the kernel. The profiles come out by the second serial port.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, cast

import numpy as np
from unicorn import x86_const as x86

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.machine import observing
from archlbr.machine.board import Board
from archlbr.machine.models import SAPPHIRE_RAPIDS
from archlbr.machine.vcpu import Vcpu
from archlbr.profile.perfdata.reader import Reader
from tests.guests.linux import FOLDER, TEXT_AT, TEXT_END

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from archlbr.machine.models import Model

APPEND = "console=ttyS0 mitigations=off rdinit=/init quiet"
PERIOD = 10007
# What is recorded: perf's words, and the program's.
JOBS = {
    "edges": (f"-b -e branches:u -c {PERIOD}", "interpreter 8"),
    "kernel": ("-j any,k -e branches -c 1009", "interpreter 0"),
    "calls": (f"-j call,u -e branches:u -c {PERIOD}", "interpreter 1"),
    "stacks": (f"--call-graph lbr -e branches:u -c {PERIOD}", "interpreter 2"),
}
# Two programs that take turns: what their call stacks are is saved and loaded at each turn.
TURNS = {"turns": (f"--call-graph lbr -e branches:u -c {PERIOD}", "sh -c 'interpreter 2 & interpreter 2; wait'")}
SLICE = 1_000_000
MOST = 60_000_000_000  # model nanoseconds: ten times what it takes
KERNEL = 1 << 63
NEWEST = 64
OTHER = int(BranchKind.OTHER)


class Moved(NamedTuple):
    """An XSAVES or XRSTORS of the LBRs: its area, and how many rows the trace held before it."""

    name: str
    area: int
    row: int


class Guest(NamedTuple):
    """The console, the profiles' folder, and by name of the profile the branches that the trace holds: uint64[n, 3].

    Of `kernel`: for each NMI the last NEWEST branches into ring 0, the NMI's own last. moves: while `turns` ran.
    """

    console: str
    folder: Path
    traces: dict[str, list[NDArray[np.uint64]]]
    retired: int
    moves: list[Moved]


class Sample(NamedTuple):
    """A sample's address and its records, newest first."""

    ip: int
    records: list[tuple[int, int]]


class Watched(Vcpu):
    """A vCPU that notes the guest's XSAVES and XRSTORS of the LBRs."""

    note: Callable[[str], None]

    def xsaves(self) -> bytes | int:
        """Note it, and do it."""
        self.note("xsaves")
        return super().xsaves()

    def xrstors(self, area: bytes) -> int:
        """Note it, and do it."""
        self.note("xrstors")
        return super().xrstors(area)


def typed(jobs: dict[str, tuple[str, str]]) -> bytes:
    """Return the lines that record, bring the profiles out and end the machine."""
    lines = ["echo typed $((6*7)); dmesg | grep LBR"]
    for name, (words, program) in jobs.items():
        lines.append(f"echo [{name}]; perf record -q {words} -o {name}.data -- {program}")
    lines += ["echo [end]; tar cf /dev/ttyS1 *.data", "poweroff -f", ""]
    return "\n".join(lines).encode()


def boot(folder: Path, jobs: dict[str, tuple[str, str]] = JOBS | TURNS, model: Model = SAPPHIRE_RAPIDS) -> Guest:
    """Boot, record some jobs, and put what comes out into a folder; `kernel` is traced around its NMIs only."""
    console, sent = bytearray(), bytearray()
    board = Board(model, 256 << 20, console.append, sent.append, vcpu=Watched)
    board.start_linux((FOLDER / "vmlinuz").read_bytes(), (FOLDER / "guest.cpio").read_bytes(), APPEND)
    traces: dict[str, list[NDArray[np.uint64]]] = {name: [] for name in jobs}
    moves: list[Moved] = []

    def note(name: str) -> None:
        if waiting == ["end"] and "turns" in jobs:
            rows = sum(map(len, traces["turns"])) + int(board.words[observing.TRACE_USED]) // observing.TRACE_ROW
            moves.append(Moved(name, board.uc.reg_read(x86.UC_X86_REG_RDI), rows))

    cast("Watched", board.vcpu).note = note
    waiting = [*jobs, "end"]
    ready = False
    while board.run(board.now() + SLICE) is None and board.now() < MOST:
        if not ready and board.serial.wanted and b"/tmp # " in console:
            board.serial.receive(typed(jobs))
            ready = True
        if waiting and f"\n[{waiting[0]}]".encode() in console:
            name = waiting.pop(0)
            if name == "end":
                board.trace(None)
            elif name == "kernel":
                board.trace(_BeforeNmis(handler_of_nmis(traces["edges"]), traces[name]).take)
            else:
                board.trace(_Copies(traces[name]).take, TEXT_AT, TEXT_END)
    with tarfile.open(fileobj=io.BytesIO(bytes(sent))) as profiles:
        for member in profiles:
            (folder / Path(member.name).name).write_bytes(cast("IO[bytes]", profiles.extractfile(member)).read())
    return Guest(console.decode(errors="replace"), folder, traces, int(board.words[at.RETIRED]), moves)


class _Copies:
    # Keeps everything.
    def __init__(self, into: list[NDArray[np.uint64]]) -> None:
        self._into = into

    def take(self, rows: NDArray[np.uint64]) -> None:
        self._into.append(rows.copy())


def handler_of_nmis(trace: list[NDArray[np.uint64]]) -> int:
    """Return where NMIs lead, out of a trace of a program that is sampled: where most of its far branches do."""
    rows = np.concatenate(trace)
    far = rows[rows[:, 2] == OTHER, 1]
    places, counts = np.unique(far[far >= KERNEL], return_counts=True)
    return int(places[counts.argmax()])


def samples(path: Path) -> list[Sample]:
    """Return the samples of a profile."""
    found = []
    with Reader(path) as profile:
        for batch in profile.samples():
            sources, targets = batch.entries["from"].tolist(), batch.entries["to"].tolist()
            for ip, low, high in zip(batch.ip.tolist(), batch.offsets[:-1], batch.offsets[1:], strict=True):
                found.append(Sample(ip, list(zip(sources[low:high], targets[low:high], strict=True))))
    return found


def at_nmis(rows: NDArray[np.uint64], handler: int) -> list[int]:
    """Return which rows of a trace are NMIs."""
    return np.flatnonzero((rows[:, 1] == handler) & (rows[:, 2] == OTHER)).tolist()


class _BeforeNmis:
    # Keeps the last NEWEST branches into ring 0 at each NMI.
    def __init__(self, handler: int, into: list[NDArray[np.uint64]]) -> None:
        self._handler = np.uint64(handler)
        self._into = into
        self._kept = np.zeros((0, 3), np.uint64)

    def take(self, rows: NDArray[np.uint64]) -> None:
        found = np.concatenate([self._kept, rows[rows[:, 1] >= KERNEL]])
        for place in np.flatnonzero(found[:, 1] == self._handler).tolist():
            if place >= len(self._kept):
                self._into.append(found[max(0, place + 1 - NEWEST) : place + 1].copy())
        self._kept = found[-NEWEST:].copy()
