"""The perf.data writer: records go to disk as they come, and the file appears whole or not at all.

`machine` feeds it directly, or `spool` does after a recording of several processes; perf, BOLT and llvm-profgen read
it. The contract is reference profile-tools.md 2 ("Recommended export contract").
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from archlbr.errors import InputError
from archlbr.profile.perfdata import features
from archlbr.profile.perfdata.attr import SIZE_WRITTEN, Attr
from archlbr.profile.perfdata.features import About
from archlbr.profile.perfdata.header import SIZE, Header, Section
from archlbr.profile.perfdata.records import FINISHED_ROUND, BuildId
from archlbr.profile.perfdata.stream import RecordStream

if TYPE_CHECKING:
    from types import TracebackType

    from archlbr.profile.stack import Words

# One event, one id; samples do not carry it.
_IDS = (1,)
_DATA_OFFSET = SIZE + 8 * len(_IDS) + SIZE_WRITTEN + 16
_BUFFER = 1 << 20


class Writer(RecordStream):
    """A perf.data file being written; `close` makes it appear under its name, `abort` leaves no trace.

    A context manager: closes on success, aborts on an exception. InputError when the file cannot be written, one line;
    an earlier file of that name is then untouched.
    """

    def __init__(self, path: str | os.PathLike[str], attr: Attr, about: About | None = None) -> None:
        super().__init__(attr, self._write, self.build_id)
        self.about = About() if about is None else about
        # A link keeps pointing where it did: the file behind it is replaced.
        self.path = Path(os.path.realpath(path))
        self.bytes = 0
        self._name = os.fspath(path)
        self._build_ids: dict[str, BuildId] = {}
        self._temporary = self.path.parent / f".{self.path.name}.{os.getpid()}.tmp"
        if self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode):
            raise InputError(f"cannot write {self._name}: it is not a regular file; choose another name with -o")
        try:
            with contextlib.suppress(FileNotFoundError):
                self._temporary.unlink()
            number = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise InputError(f"cannot write {self._name}: {error.strerror}; choose another file with -o") from error
        self._file = os.fdopen(number, "wb", buffering=_BUFFER)
        self._write(b"\0" * _DATA_OFFSET)
        self.bytes = 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def build_id(self, row: BuildId) -> None:
        """Note the build-id of a file: the first of a path stays."""
        self._build_ids.setdefault(row.path, row)

    def append(self, words: Words) -> None:
        """Append whole records whose times this writer's timeline has already given; `spool` merges through it."""
        self._write(words.data.cast("B"))

    def close(self) -> None:
        """Write the features and the header, and let the file appear under its name."""
        if self._file.closed:
            return
        self._write(FINISHED_ROUND)
        attrs = Section(SIZE + 8 * len(_IDS), SIZE_WRITTEN + 16)
        data = Section(_DATA_OFFSET, self.bytes)
        rows = features.sections(self.attr, _IDS, self.about, self._build_ids.values(), self.timeline.sample_span)
        if not self._build_ids:
            del rows[features.BUILD_ID]
        at = data.offset + data.size + 16 * len(rows)
        table = b""
        for raw in rows.values():
            table += Section(at, len(raw)).pack()
            at += len(raw)
        head = Header(SIZE_WRITTEN + 16, attrs, data, sum(1 << number for number in rows)).pack()
        head += b"".join(number.to_bytes(8, "little") for number in _IDS)
        head += self.attr.pack() + Section(SIZE, 8 * len(_IDS)).pack()
        self._write(table + b"".join(rows.values()))
        try:
            self._file.seek(0)
            self._file.write(head)
            self._file.close()
            os.replace(self._temporary, self.path)
        except OSError as error:
            raise self._failed(error) from error

    def abort(self) -> None:
        """Drop everything written so far; an earlier file of that name stays as it was."""
        # A full disk makes the last flush fail again: the descriptor is closed all the same.
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._temporary.unlink()

    def _write(self, raw: bytes | memoryview) -> None:
        try:
            self._file.write(raw)
        except OSError as error:
            raise self._failed(error) from error
        self.bytes += len(raw)

    def _failed(self, error: OSError) -> InputError:
        self.abort()
        return InputError(
            f"cannot write {self._name}: {error.strerror}; free some space or choose another file with -o"
        )
