"""Who has a machine, on disk: the files that decide it while a machine moves, whoever is killed.

The source keeps the machine's image from before its first page leaves; replacing it by a note that the machine is gone
is the one moment at which the machine changes hands. The target keeps what it received under `NAME.incoming` until it
has been told so, then under NAME, and drops it when the source is gone. A process that runs a machine holds a lock on
its file, which the kernel gives back when the process dies. Ours, docs/decisions/026.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import IO, TYPE_CHECKING, Any, Final

from archlbr.errors import InputError
from archlbr.machine import image, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from archlbr.machine.board import Board

GONE: Final = b"ALBRGONE"
INCOMING: Final = ".incoming"


class Kept:
    """A file under construction that becomes a machine's image, locked by this process."""

    def __init__(self, path: str, suffix: str = ".new") -> None:
        self.path = os.path.abspath(path)
        self.beside = self.path + suffix
        try:
            self._file: IO[bytes] = open(self.beside, "wb")  # noqa: SIM115  # it stays open: the lock is on it
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"cannot keep the machine in {path}: {error.strerror}; name another file") from error

    def write(self, raw: bytes) -> None:
        """Append bytes."""
        self._file.write(raw)

    def sync(self) -> None:
        """Have the bytes on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def appear(self) -> None:
        """Give the file its name: from now on it is the machine, if this process dies."""
        self.sync()
        os.replace(self.beside, self.path)
        _sync_folder(self.path)

    def give_away(self, note: bytes) -> None:
        """Put a note in the place of the file, at once: from now on the machine is not here."""
        with open(self.beside, "wb") as file:
            file.write(GONE + note)
            file.flush()
            os.fsync(file.fileno())
        os.replace(self.beside, self.path)
        _sync_folder(self.path)

    def drop(self) -> None:
        """Leave nothing behind."""
        for path in (self.beside, self.path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self._file.close()


def note_of(path: str) -> dict[str, str] | None:
    """Return the note that a machine left when it was handed over, None when the file is no note.

    A damaged note says no more than that the machine is gone.
    """
    with open(path, "rb") as file:
        if file.read(len(GONE)) != GONE:
            return None
        note: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            note = json.loads(file.read(1 << 16))
        return note if isinstance(note, dict) else {}


@contextlib.contextmanager
def opened(path: str) -> Iterator[image.Unpacker]:
    """Open a snapshot to restore from; InputError with one line when it is not there, given away, or running."""
    if path.endswith(INCOMING):
        raise InputError(
            f"{path} was received and not handed over; if its source left neither an image nor a running machine, "
            f"rename it without {INCOMING}"
        )
    try:
        file = open(path, "rb")  # noqa: SIM115  # closed below
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name a snapshot that can be read") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"the machine in {path} is running in another process; end that first") from error
        note = note_of(path)
        if note is not None:
            raise InputError(f"the machine that was in {path} was handed over to {note.get('to', 'another process')}")
        source = image.Unpacker(file.read)
        yield source
        source.end()


def restore_file(path: str, build: Callable[[snapshot.Head], Board]) -> snapshot.Received:
    """Return the machine of a snapshot file; InputError when it is not whole."""
    with opened(path) as source:
        return snapshot.read(source, build)


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
