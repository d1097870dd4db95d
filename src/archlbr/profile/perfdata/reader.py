"""The perf.data reader: events in file order, samples in batches, memory flat.

It reads what `writer` writes and what perf itself records; `text`, `validate` and `edges` stand on it. A damaged file
gives an InputError with the offset and the numbers that disagree.

    with Reader("perf.data") as profile:
        for event in profile.events():
            if isinstance(event, Samples):
                ...
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from archlbr.errors import InputError
from archlbr.profile.perfdata import attr as a
from archlbr.profile.perfdata import features, records
from archlbr.profile.perfdata.attr import Attr
from archlbr.profile.perfdata.decode import decode
from archlbr.profile.perfdata.header import SIZE, Header, Section
from archlbr.profile.perfdata.walk import walk
from archlbr.profile.stack import Event, Samples, Words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from numpy.typing import NDArray

# Bytes of records taken apart at a time.
CHUNK = 1 << 21

_STRINGS = {
    features.HOSTNAME: "hostname",
    features.OSRELEASE: "osrelease",
    features.VERSION: "version",
    features.ARCH: "arch",
    features.CPUDESC: "cpudesc",
    features.CPUID: "cpuid",
}


class Reader:
    """An open perf.data file.

    attrs: the events, named where the file names them; strings: hostname, osrelease, version, arch, cpudesc, cpuid
    where present; command_line; build_ids: path to bytes; sample_span: times of the first and last sample, or zeros.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        try:
            self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
            self.size = os.fstat(self._file.fileno()).st_size
            with self._naming():
                self._open()
        except OSError as error:
            raise InputError(f"cannot read {self.name}: {error.strerror}") from error

    def _open(self) -> None:
        self.header = Header.parse(self._file.read(SIZE))
        self._data = self.header.data.check("data section", self.size)
        self.attrs, self._ids = self._read_attrs()
        self.strings: dict[str, str] = {}
        self.command_line: tuple[str, ...] = ()
        self.build_ids: dict[str, bytes] = {}
        self.sample_span = (0, 0)
        self._read_features()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _naming(self) -> _Naming:
        return _Naming(self)

    @property
    def attr(self) -> Attr:
        """The first event."""
        return self.attrs[0]

    def _section(self, name: str, section: Section) -> bytes:
        section.check(name, self.size)
        self._file.seek(section.offset)
        return self._file.read(section.size)

    def _read_attrs(self) -> tuple[tuple[Attr, ...], dict[int, int]]:
        step = self.header.attr_size
        if not a.SIZE_VER0 + 16 <= step <= a.SIZE_LIMIT:
            raise InputError(f"attribute entries of {step} bytes: {a.SIZE_VER0 + 16}..{a.SIZE_LIMIT} expected")
        where = self.header.attrs
        raw = self._section("attribute section", where)
        if not raw or len(raw) % step:
            raise InputError(f"attribute section of {len(raw)} bytes: not a positive multiple of {step}")
        attrs, ids, listed_bytes = [], {}, 0
        for at in range(0, len(raw), step):
            attrs.append(Attr.parse(raw[at : at + step - 16], where.offset + at))
            section = Section.parse(raw, at + step - 16)
            listed_bytes += section.size
            if listed_bytes > self.size:
                raise InputError(f"event ids: {listed_bytes} bytes listed in a file of {self.size}; damaged file")
            listed = self._section("event ids", section)
            for value in np.frombuffer(listed[: len(listed) // 8 * 8], dtype="<u8").tolist():
                ids[value] = len(attrs) - 1
        return tuple(attrs), ids

    def _read_features(self) -> None:
        numbers = [bit for bit in range(256) if self.header.features >> bit & 1]
        table = self._section(
            "feature table", Section(self.header.data.offset + self.header.data.size, 16 * len(numbers))
        )
        for index, number in enumerate(numbers):
            self._read_feature(number, Section.parse(table, 16 * index).check(f"feature {number}", self.size))

    def _read_feature(self, number: int, section: Section) -> None:
        if number in _STRINGS:
            self.strings[_STRINGS[number]] = features.parse_string(self._section(_STRINGS[number], section), 0)[0]
        elif number == features.CMDLINE:
            self.command_line = features.parse_strings(self._section("command line", section))
        elif number == features.EVENT_DESC:
            named = features.parse_event_desc(self._section("EVENT_DESC", section))
            if len(named) == len(self.attrs):
                self.attrs = tuple(row._replace(name=name) for row, (name, _) in zip(self.attrs, named, strict=True))
        elif number == features.BUILD_ID:
            self.build_ids = features.parse_build_ids(self._section("build-ids", section))
        elif number == features.SAMPLE_TIME:
            raw = self._section("SAMPLE_TIME", section)
            if len(raw) < 16:
                raise InputError(f"SAMPLE_TIME of {len(raw)} bytes: 16 needed")
            self.sample_span = (int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:16], "little"))

    def events(self) -> Iterator[Event]:
        """Yield what the file recorded, in file order: consecutive samples in batches, other known records one by one.

        Records of unknown type are passed over. Each call starts from the beginning.
        """
        with self._naming():
            offset, end = self._data.offset, self._data.offset + self._data.size
            while offset < end:
                self._file.seek(offset)
                raw = self._file.read(min(CHUNK, end - offset))
                at = 0
                while at < len(raw):
                    words = np.frombuffer(raw, dtype="<u8", count=(len(raw) - at) // 8, offset=at)
                    # Behind a record of odd length the words lie askew: a copy puts them right.
                    words = np.require(words, requirements="A")
                    found = walk(words, offset + at)
                    yield from self._chunk(words, found.starts, found.lengths, offset + at)
                    if not found.used:
                        break
                    at += found.used
                if not at:
                    raise InputError(
                        f"record at offset {offset:#x} reaches beyond the data's end at {end:#x}; cut short?"
                    )
                offset += at
            if offset > end:
                raise InputError(f"AUX payload ends {offset - end} bytes beyond the data's end at {end:#x}; cut short?")

    def sideband(self) -> list[Event]:
        """Return everything but the samples, in time order."""
        rows = [event for event in self.events() if not isinstance(event, Samples)]
        return sorted(rows, key=lambda row: row.time)

    def samples(self) -> Iterator[Samples]:
        """Yield the samples in batches, in file order."""
        return (event for event in self.events() if isinstance(event, Samples))

    def _chunk(
        self, words: Words, starts: NDArray[np.int64], lengths: NDArray[np.int64], offset: int
    ) -> Iterator[Event]:
        headers = words[starts]
        kinds = headers & np.uint64(0xFFFFFFFF)
        # Runs of samples, cut at every other record that is known.
        known = np.isin(kinds, list(records.BODY_SIZE))
        sample = kinds == np.uint64(records.SAMPLE_TYPE)
        cuts = [-1, *np.flatnonzero(known).tolist(), len(starts)]
        for before, here in pairwise(cuts):
            run = np.flatnonzero(sample[before + 1 : here]) + before + 1
            if len(run):
                yield from self._samples(words, starts[run], lengths[run], offset)
            if here < len(starts):
                at, length = int(starts[here]), int(lengths[here])
                yield self._sideband(words[at : at + length].tobytes(), offset + 8 * at)

    def _samples(
        self, words: Words, starts: NDArray[np.int64], lengths: NDArray[np.int64], offset: int
    ) -> Iterator[Samples]:
        layouts = {(row.sample_type, row.branch_sample_type, row.read_format) for row in self.attrs}
        if len(layouts) == 1:
            yield decode(words, starts, lengths, self.attr, offset)
            return
        # Events with different fields: perf then puts the id first in every sample.
        if not all(row.sample_type & a.IDENTIFIER for row in self.attrs):
            raise InputError("events with different sample fields and no IDENTIFIER: the samples cannot be told apart")
        if (lengths < 2).any():
            raise InputError(f"sample before offset {offset + 8 * int(starts[-1]):#x}: no room for its IDENTIFIER")
        owner = np.array([self._ids.get(value, -1) for value in words[starts + 1].tolist()])
        for index, row in enumerate(self.attrs):
            mine = owner == index
            if mine.any():
                yield decode(words, starts[mine], lengths[mine], row, offset)

    def _sideband(self, raw: bytes, offset: int) -> Event:
        kind = int.from_bytes(raw[:4], "little")
        misc = int.from_bytes(raw[4:6], "little")
        trailer = _trailer(self.attr)
        body = raw[records.HEADER_SIZE : len(raw) - 8 * len(trailer)]
        if len(body) < records.BODY_SIZE[kind]:
            raise InputError(
                f"record at offset {offset:#x}: type {kind} of {len(raw)} bytes is too short for its fields"
            )
        time = 0
        if a.TIME in trailer:
            at = len(raw) - 8 * (len(trailer) - trailer.index(a.TIME))
            time = int.from_bytes(raw[at : at + 8], "little")
        if kind == records.COMM_TYPE:
            return records.parse_comm(misc, body, time)
        if kind == records.MMAP2_TYPE:
            return records.parse_mmap2(misc, body, time)
        if kind == records.MMAP_TYPE:
            return records.parse_mmap(misc, body, time)
        return records.parse_task(kind, body)


def _trailer(attr: Attr) -> tuple[int, ...]:
    # What sample_id_all appends to every other record, in order, a word each (`struct sample_id`).
    if not attr.flags & a.SAMPLE_ID_ALL:
        return ()
    order = (a.TID, a.TIME, a.ID, a.STREAM_ID, a.CPU, a.IDENTIFIER)
    return tuple(bit for bit in order if attr.sample_type & bit)


class _Naming:
    """Puts the file's name before an InputError of its content, and closes the file."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, InputError) and not str(error).startswith(self._reader.name):
            self._reader.close()
            raise InputError(f"{self._reader.name}: {error}") from None
