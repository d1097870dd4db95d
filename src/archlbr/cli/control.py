"""The control socket of a running machine: `archlbr snapshot` and `archlbr migrate` ask here.

`cli.drive` looks at it between two stretches of the guest. A request is a line of JSON, answers are lines of JSON, the
last of which says `done` or `refused`; docs/formats.md. The socket is a file that only its owner can open.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
from typing import IO, TYPE_CHECKING, Any

from archlbr.errors import InputError
from archlbr.profile.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.machine.board import Board
    from archlbr.machine.migrate import Departure

_PATIENCE = 5.0


class Control:
    """A socket at a path, and what was asked through it; a context manager that removes it."""

    def __init__(self, path: str, board: Board, sent: bytearray) -> None:
        self.path = path
        self.board = board
        self.left: Departure | None = None
        self._sent = sent
        self._departure: Departure | None = None
        self._asker: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        try:
            self._listen()
        except OSError as error:
            self._listener.close()
            raise InputError(f"cannot listen at {path}: {error.strerror or error}; name another --control") from error
        except InputError:
            self._listener.close()
            raise

    def _listen(self) -> None:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(self.path)
            raise InputError(f"another machine listens at {self.path}; name another --control")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # of a machine that was killed
        before = os.umask(0o177)
        try:
            self._listener.bind(self.path)
        finally:
            os.umask(before)
        self._listener.listen()

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def look(self) -> bool:
        """Do what was asked since the last look; say whether the machine has left."""
        if self._departure is not None:
            return self._move()
        if select.select([self._listener], [], [], 0)[0]:
            asker, _ = self._listener.accept()
            asker.settimeout(_PATIENCE)
            self._asker = asker
            self._answer(asker)
        return False

    def _answer(self, asker: socket.socket) -> None:
        try:
            with asker.makefile("rb") as lines:
                request = json.loads(lines.readline(1 << 16))
            if "snapshot" in request:
                save(self.board, bytes(self._sent), str(request["snapshot"]))
                self._report({"done": str(request["snapshot"])})
            else:
                self._depart(str(request["migrate"]), str(request["keep"]))
                return
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._report({"refused": f"this is no request: {error}"})
        except InputError as error:
            self._report({"refused": str(error)})
        asker.close()

    def _depart(self, address: str, keep: str) -> None:
        from archlbr.machine.migrate import Departure, parse_address

        departure = Departure(self.board, lambda: bytes(self._sent), parse_address(address), keep, self._report)
        departure.start()
        self._departure = departure

    def _move(self) -> bool:
        departure = self._departure
        try:
            if departure is None or not departure.look():
                return False
        except InputError as error:
            self._report({"refused": str(error)})
            self._departure = None
            if self._asker is not None:
                self._asker.close()
            return False
        self.left = departure
        self._report({"done": "moved", "downtime": departure.downtime, "confirmed": departure.confirmed})
        return True

    def _report(self, words: dict[str, Any]) -> None:
        if self._asker is not None:
            with contextlib.suppress(OSError):  # who asked has gone: the machine's life goes on
                self._asker.sendall(json.dumps(words).encode() + b"\n")


def save(board: Board, sent: bytes, path: str) -> None:
    """Write a stopped machine's snapshot, which appears whole or not at all."""
    from archlbr.machine import snapshot

    with Output(path) as out:
        for piece in snapshot.save(board, sent):
            out.write(piece)


def ask(path: str, request: dict[str, str], show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Ask a machine for something and return its last answer, giving the others to `show`; InputError if it refuses."""
    with socket.socket(socket.AF_UNIX) as channel:
        try:
            channel.connect(path)
            channel.sendall(json.dumps(request).encode() + b"\n")
            lines: IO[bytes] = channel.makefile("rb")
            for line in lines:
                words: dict[str, Any] = json.loads(line)
                if "refused" in words:
                    raise InputError(str(words["refused"]))
                if "done" in words:
                    return words
                show(words)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", error)
            raise InputError(f"no machine answers at {path}: {why}; give what `run --control` was given") from error
    print("archlbr: the machine ended before it answered", file=sys.stderr)
    return {}
