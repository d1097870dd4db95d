"""Spools: what each guest process recorded, on its own, and the merge into one file.

`recording.sampling` has one for every guest process; `cli.record` merges them when all have ended. A spool holds the
same record bytes as the file's data section, with a HEADER_BUILD_ID record (perf's own, from its pipe format) before a
mapping that has a build-id. A process may be killed at any moment: what it wrote before counts, a torn last record
does not.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from archlbr.errors import InputError
from archlbr.profile.output import append
from archlbr.profile.perfdata import records
from archlbr.profile.perfdata.samples import TIME_WORD
from archlbr.profile.perfdata.stream import RecordStream
from archlbr.profile.perfdata.walk import walk

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from archlbr.profile.perfdata.attr import Attr
    from archlbr.profile.perfdata.writer import Writer
    from archlbr.profile.stack import Words

# Bytes loaded from a spool at a time; a spool that overlaps no other in time is never in memory beside it.
CHUNK = 1 << 20

_KIND = np.uint64(0xFFFFFFFF)
_SAMPLE = np.uint64(records.SAMPLE_TYPE)
_BUILD_ID = np.uint64(records.BUILD_ID_TYPE)
_TASKS = (np.uint64(records.FORK_TYPE), np.uint64(records.EXIT_TYPE))


class Spool(RecordStream):
    """One process's records, appended to its own file; every call reaches the kernel before it returns.

    `after` is a time (ns) that all records must follow, for a process that takes up another's recording after exec.
    """

    def __init__(self, path: str | os.PathLike[str], attr: Attr, after: int = 0) -> None:
        super().__init__(attr, self._append, self._build_id)
        self.timeline.follow(after)
        self.path = os.fspath(path)
        self._append(b"")

    def forked(self, path: str | os.PathLike[str], pid: int, tid: int, ppid: int, ptid: int, time: int) -> Spool:
        """Return the spool of a new process, which begins with its FORK record; called in the child.

        The child goes on with the parent's timeline, so that its records follow every mapping the parent had noted.
        """
        spool = Spool(path, self.attr, self.timeline.last)
        spool.fork(pid, tid, ppid, ptid, time)
        return spool

    def _append(self, raw: bytes | memoryview) -> None:
        append(self.path, raw)

    def _build_id(self, row: records.BuildId) -> None:
        self._append(row.pack())


class _Chunk(NamedTuple):
    """Whole records of one spool, in time order; starts and lengths in words."""

    words: Words
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    times: NDArray[np.int64]

    def split(self, horizon: int) -> tuple[_Chunk, _Chunk]:
        """Return the records up to the horizon, and those after it."""
        cut = int(np.searchsorted(self.times, horizon, side="right"))
        return self._part(slice(None, cut)), self._part(slice(cut, None))

    def trimmed(self) -> _Chunk:
        """Return the same records with words of their own and no others; there is at least one record."""
        first, last = int(self.starts[0]), int(self.starts[-1] + self.lengths[-1])
        return _Chunk(self.words[first:last].copy(), self.starts - first, self.lengths, self.times)

    def _part(self, part: slice) -> _Chunk:
        return _Chunk(self.words, self.starts[part], self.lengths[part], self.times[part])


class _Source:
    """A spool being read: the chunk in memory, and how far the file has been read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.ended = False
        self._at = 0
        self.chunk = self._load(0)
        stamped = self.chunk.times[self.chunk.times > 0]
        self.first = int(stamped[0]) if len(stamped) else None
        # Only looked at: it is loaded when its time comes.
        self.chunk, self.ended, self._at = self.chunk.split(-1)[0], False, 0

    def refill(self) -> None:
        """Load the next chunk when nothing of the last is left."""
        if not len(self.chunk.times) and not self.ended:
            self.chunk = self._load(CHUNK)

    def _load(self, size: int) -> _Chunk:
        # No descriptor stays open: a build may leave thousands of spools.
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self._at)
            raw = file.read(max(size, records.MAX_SIZE + 8))
        words = np.frombuffer(raw[: len(raw) // 8 * 8], dtype="<u8")
        try:
            found = walk(words, self._at)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error
        # Whatever is left behind the last whole record at the end of the file is torn, and nobody will complete it.
        self.ended = not found.used or self._at + found.used == os.path.getsize(self.path)
        self._at += found.used
        return _Chunk(words, found.starts, found.lengths, _times(words, found.starts, found.lengths))


def _times(words: Words, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    # Each record's time; a build-id has none and goes with the record behind it.
    kinds = words[starts] & _KIND
    place = np.where(kinds == _SAMPLE, starts + TIME_WORD, starts + lengths - 1)
    times = words[place].astype(np.int64)
    times[kinds == _BUILD_ID] = 0
    return np.maximum.accumulate(times) if len(times) else times


def merge(paths: Iterable[str | os.PathLike[str]], writer: Writer) -> None:
    """Write the records of all spools into one file, by time; equal times keep the order of `paths`.

    Memory is bounded by the number of spools that overlap in time, times a chunk. InputError when a spool cannot be
    read.
    """
    try:
        found = [_Source(os.fspath(path)) for path in paths]
        waiting = [(source.first, index, source) for index, source in enumerate(found) if source.first is not None]
        waiting.sort(key=lambda row: row[:2], reverse=True)
        active: list[tuple[int, _Source]] = []
        while waiting or active:
            for _, source in active:
                source.refill()
            active = [row for row in active if len(row[1].chunk.times)]
            # Nothing may be written beyond the last record loaded from a spool that has more, nor from where the next
            # begins.
            horizon = min([int(source.chunk.times[-1]) for _, source in active if not source.ended], default=1 << 62)
            if waiting:
                horizon = min(horizon, waiting[-1][0] - 1)
            if not any(int(source.chunk.times[0]) <= horizon for _, source in active):
                if waiting:
                    _, index, source = waiting.pop()
                    active.append((index, source))
                    active.sort(key=lambda row: row[0])
                continue
            parts = []
            for _, source in active:
                part, source.chunk = source.chunk.split(horizon)
                parts.append(part)
            _emit(writer, _interleave(parts))
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error


def _interleave(parts: list[_Chunk]) -> _Chunk:
    """Return one stretch of records, by time, from stretches that are each in order; its words may be written to."""
    parts = [part.trimmed() for part in parts if len(part.times)]
    if len(parts) == 1:
        return parts[0]
    base = np.cumsum([0] + [len(part.words) for part in parts[:-1]])
    pool = np.concatenate([part.words for part in parts])
    starts = np.concatenate([part.starts + shift for part, shift in zip(parts, base, strict=True)])
    lengths = np.concatenate([part.lengths for part in parts])
    times = np.concatenate([part.times for part in parts])
    order = np.argsort(times, kind="stable")
    starts, lengths = starts[order], lengths[order]
    placed = np.cumsum(lengths) - lengths
    words = pool[np.repeat(starts - placed, lengths) + np.arange(int(lengths.sum()))]
    return _Chunk(words, placed, lengths, times[order])


def _emit(writer: Writer, chunk: _Chunk) -> None:
    """Give the records their final times and append them to the file."""
    words, starts, lengths, _ = chunk
    kinds = words[starts] & _KIND
    cuts = np.flatnonzero(kinds != _SAMPLE).tolist()
    keep = np.ones(len(starts), dtype=np.bool_)
    done = 0
    for cut in [*cuts, len(starts)]:
        place = starts[done:cut] + TIME_WORD
        words[place] = writer.timeline.samples(words[place])
        writer.written += len(place)
        done = cut + 1
        if cut == len(starts):
            break
        at, last = int(starts[cut]), int(starts[cut] + lengths[cut]) - 1
        if kinds[cut] == _BUILD_ID:
            misc = int(words[at]) >> 32 & 0xFFFF
            writer.build_id(records.BuildId.parse(misc, words[at + 1 : last + 1].tobytes()))
            keep[cut] = False
            continue
        words[last] = writer.timeline.sideband(int(words[last]))
        if kinds[cut] in _TASKS:
            words[at + TIME_WORD] = words[last]
    if not keep.all():
        words = words[np.repeat(keep, lengths)]
    writer.append(words)
