"""Every taken branch: the spool a tracer appends to, and the text and Parquet files made from it.

`recording.tracing` appends to spools; `cli.trace` turns them into the format of docs/formats.md: `TID 0xFROM 0xTO KIND`
a line, comments behind `#`. A spool is a run of chunks, each whole or absent, so that a killed process leaves a
readable one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from archlbr.arch.branches import KIND_NAMES
from archlbr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_CHUNK: Final = struct.Struct("<4sIII")  # magic, kind, thread, bytes that follow
_MAGIC: Final = b"ALTr"
_BRANCHES, _NOTE, _SUMMARY = 1, 2, 3
_SUMMARY_BODY: Final = struct.Struct("<QQ")

Rows = npt.NDArray[np.uint64]


class Branches(NamedTuple):
    """Branches of one thread in program order: uint64[n, 3] of FROM, TO, kind."""

    tid: int
    rows: Rows


class Note(NamedTuple):
    """A comment in its place between the branches."""

    tid: int
    text: str


class Summary(NamedTuple):
    """What a process retired: instructions and taken near branches."""

    instructions: int
    branches: int


def branches(tid: int, words: Rows) -> bytes:
    """Return the chunk of a run of branches, three words each."""
    body = words.tobytes()
    return _CHUNK.pack(_MAGIC, _BRANCHES, tid, len(body)) + body


def note(tid: int, text: str) -> bytes:
    """Return the chunk of a comment."""
    body = text.encode(errors="surrogateescape")
    return _CHUNK.pack(_MAGIC, _NOTE, tid, len(body)) + body


def summary(instructions: int, taken: int) -> bytes:
    """Return the chunk that ends a process."""
    body = _SUMMARY_BODY.pack(instructions, taken)
    return _CHUNK.pack(_MAGIC, _SUMMARY, 0, len(body)) + body


def read(path: Path) -> Iterator[Branches | Note | Summary]:
    """Yield a spool's content in order; a torn last chunk is left out."""
    with path.open("rb") as file:
        while True:
            head = file.read(_CHUNK.size)
            if len(head) < _CHUNK.size:
                return
            magic, kind, tid, size = _CHUNK.unpack(head)
            body = file.read(size)
            if magic != _MAGIC or len(body) < size:
                return
            if kind == _BRANCHES:
                yield Branches(tid, np.frombuffer(body, np.uint64).reshape(-1, 3))
            elif kind == _NOTE:
                yield Note(tid, body.decode(errors="surrogateescape"))
            else:
                yield Summary(*_SUMMARY_BODY.unpack(body))


_DIGITS: Final = np.frombuffer(b"0123456789abcdef", np.uint8)
_NAMES: Final = np.zeros((len(KIND_NAMES), 9), np.uint8)
for _kind, _name in enumerate(KIND_NAMES):
    _NAMES[_kind, : len(_name) + 1] = np.frombuffer(_name.encode() + b"\n", np.uint8)


def _hexadecimal(values: Rows) -> npt.NDArray[np.uint8]:
    # Sixteen digits a value, leading zeros as NUL, which the caller drops; the last digit always stays.
    shifts = np.arange(60, -4, -4, dtype=np.uint64)
    nibbles = (values[:, None] >> shifts[None, :] & np.uint64(15)).astype(np.uint8)
    seen = np.maximum.accumulate(nibbles != 0, axis=1)
    seen[:, -1] = True
    return np.where(seen, _DIGITS[nibbles], 0).astype(np.uint8)


def text_of(chunk: Branches) -> bytes:
    """Return the lines of a run of branches."""
    rows = chunk.rows
    count = len(rows)
    prefix = np.frombuffer(f"{chunk.tid} 0x".encode(), np.uint8)
    middle = np.frombuffer(b" 0x", np.uint8)
    table = np.hstack(
        [
            np.broadcast_to(prefix, (count, len(prefix))),
            _hexadecimal(rows[:, 0]),
            np.broadcast_to(middle, (count, len(middle))),
            _hexadecimal(rows[:, 1]),
            np.full((count, 1), ord(" "), np.uint8),
            _NAMES[rows[:, 2].astype(np.intp)],
        ]
    )
    lines: bytes = table[table != 0].tobytes()
    return lines


def write_text(spools: list[Path], write: Callable[[bytes], object]) -> Summary:
    """Write spools as text, one after the other; return what they add up to."""
    instructions = taken = 0
    write(b"# archlbr trace: TID 0xFROM 0xTO KIND\n")
    for spool in spools:
        for item in read(spool):
            match item:
                case Branches():
                    write(text_of(item))
                case Note():
                    write(f"# {item.text}\n".encode(errors="surrogateescape"))
                case Summary():
                    instructions += item.instructions
                    taken += item.branches
    return Summary(instructions, taken)


def write_parquet(spools: list[Path], path: Path) -> Summary:
    """Write spools as a Parquet file of columns tid, from, to, kind; notes go into its metadata."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'archlbr[parquet]', or choose a text file") from None
    instructions = taken = 0
    schema = pa.schema([("tid", pa.int32()), ("from", pa.uint64()), ("to", pa.uint64()), ("kind", pa.string())])
    notes = [item.text for spool in spools for item in read(spool) if isinstance(item, Note)]
    schema = schema.with_metadata({"archlbr.trace": "\n".join(notes)})
    names = np.array(KIND_NAMES, dtype=object)
    with parquet.ParquetWriter(path, schema) as writer:
        for spool in spools:
            for item in read(spool):
                if isinstance(item, Branches):
                    tids = np.full(len(item.rows), item.tid, np.int32)
                    kinds = names[item.rows[:, 2].astype(np.intp)]
                    columns = [pa.array(tids), pa.array(item.rows[:, 0]), pa.array(item.rows[:, 1]), pa.array(kinds)]
                    writer.write_batch(pa.record_batch(columns, schema=schema))
                elif isinstance(item, Summary):
                    instructions += item.instructions
                    taken += item.branches
    return Summary(instructions, taken)
