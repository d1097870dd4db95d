"""A running machine leaves for another process: rounds of pages while it runs, then the rest while it is stopped.

`cli` starts a `Departure` and asks it at each look whether it is time; `machine.arrival` is the other end. A page is
dirty when it differs from what was last sent, which a copy of the memory tells without help of engine or kernel. The
words before, between and after the image are lines of JSON; who has the machine, whoever is killed, is decided by the
files of `machine.handover`. Ours, docs/decisions/026.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
import zlib
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from archlbr.errors import InputError
from archlbr.machine import image, snapshot
from archlbr.machine.handover import Kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.machine.board import Board

VERSION: Final = 1
KEY: Final = "archlbr migration"
# Rounds end when so few pages are dirty, when they do not get fewer, or after so many rounds.
FEW: Final = 512
_ROUNDS: Final = 10
_PATIENCE: Final = 60.0
_LINE: Final = 1 << 18


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `PORT`; InputError when it is neither."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise InputError(f"{text!r} is no address: give HOST:PORT, such as 127.0.0.1:4444")
    return host.strip("[]") or "127.0.0.1", int(port)


def boot_id() -> str:
    """Return what names this host until it boots again, "" where nothing does."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def say(channel: socket.socket, **words: object) -> None:
    """Send a line."""
    channel.sendall(line_of(words))


def line_of(words: dict[str, object]) -> bytes:
    """Return a line: the CRC-32 of the JSON that follows it."""
    text = json.dumps(words).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def hear(lines: IO[bytes]) -> dict[str, Any]:
    """Return the next line; empty at the end, and InputError when it is none of ours, or damaged."""
    line = lines.readline(_LINE)
    if not line:
        return {}
    check, _, text = line.removesuffix(b"\n").partition(b" ")
    words: Any = None
    if check == b"%08x" % zlib.crc32(text) and line.endswith(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):
            words = json.loads(text)
    if not isinstance(words, dict):
        raise InputError("this is no machine's migration, or it is damaged; connect `archlbr migrate`")
    return words


class Departure:
    """One machine's leave. `start` and `look` are called between two runs of the board.

    keep: where the machine's image stays until it is handed over. sent: what the second port has sent. report gets
    progress: round, pages, bytes, left. confirmed: the target said that it runs. downtime: seconds, until it said so.
    """

    def __init__(
        self,
        board: Board,
        sent: Callable[[], bytes],
        address: tuple[str, int],
        keep: str,
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        self.board = board
        self.downtime = 0.0
        self.confirmed = False
        self._sent = sent
        self._address = address
        self._report = report
        self._nonce = secrets.token_hex(16)
        self._file: Kept | None = None
        self._keep = keep
        self._packer = image.Packer()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._channel: socket.socket | None = None
        self._lines: IO[bytes] | None = None
        self._bytes = 0

    def start(self) -> None:
        """Ask the target, keep the machine's image, begin to send; InputError, and nothing changed, if it refuses."""
        machine = snapshot.parts(self.board, self._sent())
        try:
            self._channel = socket.create_connection(self._address, timeout=_PATIENCE)
            self._channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._lines = self._channel.makefile("rb")
            words = {KEY: VERSION, "nonce": self._nonce, "note": os.path.abspath(self._keep), "host": boot_id()}
            say(self._channel, **words, head=machine.head.decode(), vcpu=machine.vcpu.hex())
            self._expect("take")
        except OSError as error:
            self._close()
            raise InputError(f"cannot reach {self._address[0]}:{self._address[1]}: {_why(error)}") from error
        except InputError:
            self._close()
            raise
        self._live = image.as_pages(self.board.memory)
        self._shadow = self._live.copy()
        self._machine = machine
        self._thread = threading.Thread(target=self._precopy, daemon=True)
        self._thread.start()

    def look(self) -> bool:
        """Say whether the machine has left; InputError, and it goes on here, when the attempt has failed."""
        if not self._ready.is_set():
            return False
        self._thread.join()
        try:
            if self._failure is not None:
                raise self._failure
            self._hand_over()
        except (OSError, InputError) as error:
            self._stay()
            reason = str(error) if isinstance(error, InputError) else _why(error)
            raise InputError(f"the machine stays here: {reason}") from error
        self._finish()
        return True

    # While the machine runs: in a thread, on the copy.
    def _precopy(self) -> None:
        try:
            self._file = Kept(self._keep)
            for piece in snapshot.write(self._machine, self._shadow):
                self._file.write(piece)
            self._file.appear()
            self._send(self._packer.preamble() + self._packer.frame(image.HEAD, self._machine.head))
            numbers = image.not_empty(self._shadow)
            for count in range(1, _ROUNDS + 1):
                before = len(numbers)
                self._send_pages(numbers)
                numbers = self._copy_changed()
                self._report({"round": count, "pages": before, "bytes": self._bytes, "left": len(numbers)})
                if len(numbers) <= FEW or (count > 1 and len(numbers) >= before):
                    break
                # What is not sent at once is found again: the copy says that it is, so it must be.
            self._send_pages(numbers)
        except BaseException as error:  # raised at the next look, in the machine's own thread
            self._failure = error
        self._ready.set()

    def _copy_changed(self) -> Any:
        numbers = image.changed(self._live, self._shadow)
        self._shadow[numbers] = self._live[numbers]
        return numbers

    # While it is stopped.
    def _hand_over(self) -> None:
        begin = time.perf_counter()
        if self._channel is None or self._file is None:
            raise InputError("the migration has not begun")
        numbers = self._copy_changed()
        self._send_pages(numbers)
        for piece in snapshot.ending(self._packer, snapshot.parts(self.board, self._sent())):
            self._send(piece)
        self._expect("have")
        note = {"nonce": self._nonce, "to": ":".join(map(str, self._address))}
        self._file.give_away(json.dumps(note).encode())  # from here on the machine is the target's
        self._begin = begin
        self._last = len(numbers)

    def _finish(self) -> None:
        channel, file = self._channel, self._file
        runs: dict[str, Any] = {}
        if channel is not None and file is not None:
            try:
                say(channel, go=True)
                runs = self._hear()
            except (OSError, InputError) as error:
                self._report({"note": _why(error)})
            self.downtime = time.perf_counter() - self._begin
            if runs.get("runs"):
                file.drop()
        self.confirmed = bool(runs.get("runs"))
        if not self.confirmed:
            self._report({"note": "the target was told to go on and did not answer: the machine is in its file there"})
        figures = {"pages": self._last, "bytes": self._bytes, "downtime": self.downtime}
        self._report({"moved": ":".join(map(str, self._address)), **figures})
        self._close()

    def _stay(self) -> None:
        if self._channel is not None:
            try:
                say(self._channel, stay=True)
            except OSError as error:
                self._report({"note": _why(error)})
        if self._file is not None:
            self._file.drop()
        self._close()

    def _hear(self) -> dict[str, Any]:
        return hear(self._lines) if self._lines is not None else {}

    def _expect(self, word: str) -> None:
        answer = self._hear()
        if not answer.get(word):
            reason = answer.get("refuse") or "it ended, or its answer is no migration's"
            raise InputError(f"the target refuses: {reason}")

    def _send_pages(self, numbers: Any) -> None:
        for content in image.packed(self._shadow, np.asarray(numbers)):
            self._send(self._packer.frame(image.PAGES, content))

    def _send(self, raw: bytes) -> None:
        if self._channel is None:
            raise InputError("the migration has ended")
        self._channel.sendall(raw)
        self._bytes += len(raw)

    def _close(self) -> None:
        if self._channel is not None:
            if self._lines is not None:
                self._lines.close()
            self._channel.close()
            self._channel = None


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
