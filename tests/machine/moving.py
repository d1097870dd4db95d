"""A move between two processes that are forked from here, either of which can be killed at its nth step.

A step is a call that another process can see: a line said or heard, a file synced, renamed or removed. Each process
runs its machine to the end if it has it, and writes down what the machine was then.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from archlbr.errors import InputError
from archlbr.machine import arrival, handover, migrate, snapshot
from tests.machine.mover import END, Machine, Whole, started

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOURCE, TARGET = "source", "target"
BEGIN = 5_000_000
SLICE = 400_000
# The source waits here until it is known whether the machine leaves.
HALF = 25_000_000
_DEADLINE = 60


class Plan(NamedTuple):
    """Who is killed before which of its steps (0: nobody), and what the source's host is called ("": as it is).

    flip: the byte of what the source sends in which a bit flips on the way, -1 for none.
    """

    victim: str = ""
    step: int = 0
    host: str = ""
    flip: int = -1


class Outcome(NamedTuple):
    """What became of a move: each process's signal or status, what it had at the end, how many steps it took."""

    status: dict[str, int]
    whole: dict[str, Whole]
    steps: dict[str, int]
    said: dict[str, str]


class _Steps:
    # Counts; the source's first steps, before its file is there, do not count: until then nothing has begun.
    def __init__(self, kill_at: int, counting: bool) -> None:
        self.count, self.kill_at, self.counting = 0, kill_at, counting
        for module, name in (
            (os, "replace"), (os, "unlink"), (os, "fsync"), (migrate, "say"), (migrate, "hear"), (arrival, "say"),
            (arrival, "hear"),
        ):  # fmt: skip
            setattr(module, name, self._counted(getattr(module, name), name))

    def _counted(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **words: Any) -> Any:
            if self.counting:
                self.count += 1
                if self.count == self.kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **words)
            self.counting |= name == "replace"
            return result

        return call


def move(program: Path, folder: Path, plan: Plan) -> Outcome:
    """Let a machine leave one process for another, and return what became of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as damaging:
        there = listener.getsockname()[1]
        port = damaging.getsockname()[1] if plan.flip >= 0 else there
        sides = {
            TARGET: lambda steps: _target(folder, listener, steps),
            SOURCE: lambda steps: _source(program, folder, port, steps, plan.host),
        }
        pids = {side: _forked(folder, side, act, plan) for side, act in sides.items()}
        if plan.flip >= 0:
            _relay(damaging, there, plan.flip)
    status = {side: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for side, pid in pids.items()}
    found = {
        side: pickle.loads((folder / f"{side}.end").read_bytes()) for side in sides if (folder / f"{side}.end").exists()
    }
    return Outcome(
        status,
        {side: end[0] for side, end in found.items() if end[0] is not None},
        {side: end[1] for side, end in found.items()},
        {side: end[2] for side, end in found.items()},
    )


def _relay(listener: socket.socket, port: int, flip: int) -> None:
    # Passes on what either side sends until one of them has gone, with one bit of the source's changed.
    source, _ = listener.accept()
    with contextlib.suppress(ConnectionError), source, socket.create_connection(("127.0.0.1", port)) as target:
        passed = 0
        while True:
            for side in select.select([source, target], [], [])[0]:
                raw = bytearray(side.recv(1 << 16))
                if not raw:
                    return
                if side is source:
                    if passed <= flip < passed + len(raw):
                        raw[flip - passed] ^= 4
                    passed += len(raw)
                    target.sendall(raw)
                else:
                    source.sendall(raw)


def _forked(folder: Path, side: str, act: Callable[[_Steps], Whole | None], plan: Plan) -> int:
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            signal.alarm(_DEADLINE)
            steps = _Steps(plan.step if side == plan.victim else 0, side == TARGET)
            said = ""
            try:
                whole = act(steps)
            except InputError as error:
                whole, said = None, str(error)
            (folder / f"{side}.end").write_bytes(pickle.dumps((whole, steps.count, said)))
            status = 0
        finally:
            os._exit(status)
    return pid


def _source(program: Path, folder: Path, port: int, _steps: _Steps, host: str) -> Whole | None:
    if host:
        migrate.boot_id = lambda: host
    machine = started(program)
    board = machine.board
    board.run(BEGIN)
    keep = str(folder / SOURCE)
    departure: migrate.Departure | None = migrate.Departure(
        board, lambda: bytes(machine.sent), ("127.0.0.1", port), keep, lambda _: None
    )
    try:
        departure.start()
    except InputError:
        departure = None
    while board.run(board.now() + SLICE) is None:
        while departure is not None:
            try:
                if departure.look():
                    (folder / "console").write_bytes(bytes(machine.console))
                    return None
            except InputError:
                departure = None
            if board.now() < HALF:
                break
            time.sleep(0.001)
    return machine.whole()


def _target(folder: Path, listener: socket.socket, _steps: _Steps) -> Whole:
    channel, _ = listener.accept()
    listener.close()
    console, sent = bytearray(), bytearray()
    coming = arrival.Arrival(channel, str(folder / TARGET), None)
    received = coming.receive(lambda head: snapshot.fresh(head, console.append, sent.append))
    sent[:0] = received.parts.sent
    coming.runs()
    while received.board.run(received.board.now() + SLICE) is None:
        coming.look()
    while not coming.over:
        coming.look()
    return Machine(received.board, console, sent).whole()


def left_on_disk(folder: Path) -> dict[str, Whole]:
    """Return the machines that can go on from a file, run to their ends; a target's where the source gave it away."""
    machines = {}
    incoming = folder / f"{TARGET}{handover.INCOMING}"
    if incoming.exists() and (folder / SOURCE).exists() and handover.note_of(str(folder / SOURCE)) is not None:
        incoming.rename(folder / TARGET)
    for side in (SOURCE, TARGET):
        console, sent = bytearray(), bytearray()
        try:
            received = handover.restore_file(
                str(folder / side),
                lambda head, console=console, sent=sent: snapshot.fresh(head, console.append, sent.append),
            )
        except InputError:
            continue
        sent += received.parts.sent
        board = snapshot.restore(received)
        board.run(END)
        machines[side] = Machine(board, console, sent).whole()
    return machines
