"""An output file that appears whole or not at all, and what a recording gathers for it meanwhile.

Every format of this room writes through it: bytes go to a file without a name in the target's folder, which takes the
target's name when all of it is written. Until then an earlier file of that name stays as it was, and a process that is
killed leaves nothing behind. Where a file system has no such files (open(2), O_TMPFILE), a temporary one stands beside
the target. Until there is an output, each recorded process appends to spools of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from archlbr.errors import InputError

if TYPE_CHECKING:
    from types import TracebackType

_BUFFER = 1 << 20
_DESCRIPTORS = "/proc/self/fd"
# What open(2) says of a file system, or a kernel, that has no files without a name.
_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


def _nameless(folder: Path) -> int | None:
    """Return a descriptor of a file without a name in a folder, None where there are none or none could get a name."""
    if not os.path.isdir(_DESCRIPTORS):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in _NO_NAMELESS:
            return None
        raise


def append(path: str, raw: bytes | memoryview) -> None:
    """Append bytes to a spool; they are the kernel's when this returns. InputError when the disk takes no more."""
    # Opened each time: a recorded program may close, or take, any descriptor that it does not know.
    view = memoryview(raw)
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            while len(view):
                view = view[os.write(number, view) :]
        finally:
            os.close(number)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; free some space, or set TMPDIR elsewhere") from error


class Output:
    """A file being written; `commit` lets it appear, `abort` leaves no trace.

    A context manager: commits on success, aborts on an exception. Every failure of the system is an InputError of one
    line.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        # A link keeps pointing where it did: the file behind it is replaced.
        self.path = Path(os.path.realpath(path))
        self._temporary = self.path.parent / f".{self.path.name}.{os.getpid()}.tmp"
        try:
            if self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode):
                raise InputError(f"cannot write {self.name}: it is not a regular file; choose another name with -o")
            with contextlib.suppress(FileNotFoundError):
                self._temporary.unlink()
            number = _nameless(self.path.parent)
            self._named = number is None
            if number is None:
                number = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise InputError(f"cannot write {self.name}: {error.strerror}; choose another file with -o") from error
        self._file = os.fdopen(number, "wb", buffering=_BUFFER)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.commit()
        else:
            self.abort()

    @property
    def closed(self) -> bool:
        """Whether the file has appeared or has been dropped."""
        return self._file.closed

    def write(self, raw: bytes | memoryview, at: int | None = None) -> None:
        """Append bytes, or put them at byte `at`; InputError (and nothing left behind) when the system refuses."""
        try:
            if at is not None:
                self._file.seek(at)
            self._file.write(raw)
        except OSError as error:
            raise self._failed(error) from error

    def copy(self, path: str | os.PathLike[str]) -> None:
        """Append what a file holds, without a look at it; InputError (and nothing left behind) as `write`."""
        try:
            self._file.flush()
            with open(path, "rb") as source:
                at, size = 0, os.fstat(source.fileno()).st_size
                while at < size:
                    at += os.sendfile(self._file.fileno(), source.fileno(), at, size - at)
        except OSError as error:
            raise self._failed(error) from error

    def commit(self) -> None:
        """Let the file appear under its name."""
        if self.closed:
            return
        try:
            if not self._named:
                self._file.flush()
                # linkat(2) follows the link to what the descriptor holds; os.link asks it only with a folder given.
                os.link(f"{_DESCRIPTORS}/{self._file.fileno()}", self._temporary, src_dir_fd=self._file.fileno())
                self._named = True
            self._file.close()
            os.replace(self._temporary, self.path)
        except OSError as error:
            raise self._failed(error) from error

    def abort(self) -> None:
        """Drop everything written so far."""
        # A full disk makes the last flush fail again; the descriptor is closed all the same.
        with contextlib.suppress(OSError):
            self._file.close()
        if self._named:
            with contextlib.suppress(FileNotFoundError):
                self._temporary.unlink()

    def _failed(self, error: OSError) -> InputError:
        self.abort()
        return InputError(f"cannot write {self.name}: {error.strerror}; free some space or choose another file with -o")
