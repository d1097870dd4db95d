"""The perf.data writer: records go to disk as they come, and the file appears whole or not at all.

`spool` feeds it what the processes of a recording left, or a caller does directly; perf, BOLT and llvm-profgen read
it. The contract is reference profile-tools.md 2 ("Recommended export contract").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.profile.output import Output
from archlbr.profile.perfdata import features
from archlbr.profile.perfdata.attr import SIZE_WRITTEN, Attr
from archlbr.profile.perfdata.features import About
from archlbr.profile.perfdata.header import SIZE, Header, Section
from archlbr.profile.perfdata.records import FINISHED_ROUND, BuildId
from archlbr.profile.perfdata.stream import RecordStream

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from archlbr.profile.stack import Words

# One event, one id; samples do not carry it.
_IDS = (1,)
_ATTRS = Section(SIZE + 8 * len(_IDS), SIZE_WRITTEN + 16)
_DATA_OFFSET = _ATTRS.offset + _ATTRS.size


class Writer(RecordStream):
    """A perf.data file being written; `close` makes it appear under its name, `abort` leaves no trace.

    A context manager: closes on success, aborts on an exception. InputError when the file cannot be written, one line;
    an earlier file of that name is then untouched.
    """

    def __init__(self, path: str | os.PathLike[str], attr: Attr, about: About | None = None) -> None:
        super().__init__(attr, self._write, self.build_id)
        self.about = About() if about is None else about
        self.bytes = 0
        self._build_ids: dict[str, BuildId] = {}
        self._output = Output(path)
        self._output.write(b"\0" * _DATA_OFFSET)

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
        if self._output.closed:
            return
        self._write(FINISHED_ROUND)
        data = Section(_DATA_OFFSET, self.bytes)
        rows = features.sections(self.attr, _IDS, self.about, self._build_ids.values(), self.timeline.sample_span)
        at = data.offset + data.size + 16 * len(rows)
        table = b""
        for raw in rows.values():
            table += Section(at, len(raw)).pack()
            at += len(raw)
        self._output.write(table + b"".join(rows.values()))
        head = Header(SIZE_WRITTEN + 16, _ATTRS, data, sum(1 << number for number in rows)).pack()
        head += b"".join(number.to_bytes(8, "little") for number in _IDS)
        head += self.attr.pack() + Section(SIZE, 8 * len(_IDS)).pack()
        self._output.write(head, at=0)
        self._output.commit()

    def abort(self) -> None:
        """Drop everything written so far; an earlier file of that name stays as it was."""
        self._output.abort()

    def _write(self, raw: bytes | memoryview) -> None:
        self._output.write(raw)
        self.bytes += len(raw)
