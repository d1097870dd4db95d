"""A machine arrives from another process: it is refused, or received whole, kept on disk, and then goes on.

`cli.restore --incoming` waits here; `machine.migrate` is the other end. Nothing runs before the source has said so;
when the source dies without a word, its file decides, if this host can see it (`machine.handover`). Ours,
docs/decisions/026.
"""

from __future__ import annotations

import os
import select
import socket
from typing import IO, TYPE_CHECKING, Any, Final

from archlbr.cpu.unicorn import registers
from archlbr.errors import InputError
from archlbr.machine import image, snapshot
from archlbr.machine.board import Board
from archlbr.machine.handover import INCOMING, Kept, note_of
from archlbr.machine.migrate import KEY, VERSION, boot_id, hear, say
from archlbr.machine.models import SAPPHIRE_RAPIDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.machine.models import Model

# After so many bytes what was received is put on disk, so that little is left to wait for at the end.
_SYNC: Final = 1 << 24


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that waits for a machine; InputError when the address cannot be had."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise InputError(f"cannot wait at {host}:{port}: {error.strerror}; give another address") from error


def warm_up(offered: Model | None) -> None:
    """Load what a machine needs before one comes: compiled code is loaded with the first board."""
    board = Board(offered or SAPPHIRE_RAPIDS, 1 << 20, lambda _: None)
    board.memory[:1] = b"\xf4"  # HLT
    board.start(0)
    board.run()
    registers.read(board.uc, board.engine.env)


class Arrival:
    """One machine's coming: `receive` returns its board, `look` drops the file when the source is gone.

    keep: where the machine stays until then. offered: the model whose features this target has, None for whatever the
    machine has. over: the source has gone. A channel's own timeout bounds each wait until the machine is here.
    """

    def __init__(self, channel: socket.socket, keep: str, offered: Model | None) -> None:
        self._channel = channel
        self._lines: IO[bytes] = channel.makefile("rb")
        self._offered = offered
        self._keep = keep
        self._file: Kept | None = None
        self._unsynced = 0
        self.over = False

    def receive(self, build: Callable[[snapshot.Head], Board]) -> snapshot.Received:
        """Return the machine once it is this process's; InputError when it is refused or stays where it was."""
        try:
            words = self._introduced()
            self._file = Kept(self._keep, INCOMING)
            say(self._channel, take=True)
            received = snapshot.read(image.Unpacker(self._read, "migration"), build)
            snapshot.restore(received, self._offered)
            self._file.sync()
            say(self._channel, have=True)
        except InputError as error:
            self._refuse(str(error))
            raise
        except OSError as error:
            self._drop()
            self._close()
            raise InputError(f"the source ended before the machine was here: {error.strerror or error}") from error
        # From here on it may be this process's, and only the source or its file can say: there is no time for that.
        self._channel.settimeout(None)
        self._decided(words)
        self._file.appear()
        return received

    def runs(self) -> None:
        """Tell the source that the machine goes on here."""
        try:
            say(self._channel, runs=True)
        except OSError:
            return  # it is gone: nobody asks

    def look(self) -> bool:
        """Drop the file once the source is gone; the machine never leaves by this."""
        if not self.over and select.select([self._channel], [], [], 0)[0]:
            self._drop()
            self._close()
            self.over = True
        return False

    def _introduced(self) -> dict[str, Any]:
        words = hear(self._lines)
        if words.get(KEY) != VERSION:
            said = f"version {words[KEY]}" if KEY in words else "another protocol"
            raise InputError(
                f"this is no machine's migration of version {VERSION} but {said}; connect `archlbr migrate`"
            )
        try:
            head, vcpu = snapshot.read_head(str(words["head"]).encode()), bytes.fromhex(words["vcpu"])
        except (KeyError, ValueError, TypeError) as error:
            raise InputError("the migration contradicts itself: it does not say what machine it is") from error
        snapshot.refuse_unless_offered(head, vcpu, self._offered)
        return words

    def _read(self, size: int) -> bytes:
        raw = self._lines.read(size)
        if self._file is not None:
            self._file.write(raw)
            self._unsynced += len(raw)
            if self._unsynced > _SYNC:
                self._file.sync()
                self._unsynced = 0
        return raw

    # The whole machine is here, and the source was told: now it must say who goes on.
    def _decided(self, words: dict[str, Any]) -> None:
        try:
            answer = hear(self._lines)
        except (OSError, InputError):
            answer = {}
        if answer.get("go"):
            return
        if answer.get("stay"):
            self._drop()
            self._close()
            raise InputError("the source keeps its machine: it goes on there")
        verdict = _left_on_disk(words)
        if verdict == "gone":
            return
        if verdict == "here":
            self._drop()
            self._close()
            raise InputError(f"the source ended and kept its machine: archlbr restore {words.get('note')}")
        self._close()
        raise InputError(
            f"the source ended without a word, and its file {words.get('note')} cannot be seen from here: if it holds "
            f"a machine restore that, if it says that it is gone rename {self._keep}{INCOMING} to {self._keep}"
        )

    def _refuse(self, reason: str) -> None:
        try:
            say(self._channel, refuse=reason)
        except OSError:
            pass  # it is gone already
        finally:
            self._drop()
            self._close()

    def _close(self) -> None:
        self._lines.close()
        self._channel.close()

    def _drop(self) -> None:
        if self._file is not None:
            self._file.drop()
            self._file = None


def _left_on_disk(words: dict[str, Any]) -> str:
    """Return what the source's file says: "here", "gone", or "" when it cannot be seen."""
    if not words.get("host") or words.get("host") != boot_id():
        return ""
    path = str(words.get("note"))
    try:
        note = note_of(path)
        if note is not None:
            return "gone" if note.get("nonce") == words.get("nonce") else ""
        return "here" if os.path.getsize(path) else ""
    except (OSError, ValueError):
        return ""
