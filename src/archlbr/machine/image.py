"""The bytes of a machine's snapshot: frames, each with its checksum, and a digest of the whole at the end.

A file and a migration are the same frames; a migration may send a page more than once, and the last time counts.
`machine.snapshot` fills the frames, `machine.migrate` sends them. Everything is little-endian. The format is ours,
docs/formats.md.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from archlbr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

MAGIC: Final = b"ALBRMACH"
VERSION: Final = 2
PAGE: Final = 4096
# How many pages a frame holds at most, and what their packed form and the largest other frame may come to.
RUN: Final = 256
_MOST: Final = 1 << 26
_PREAMBLE: Final = struct.Struct("<8sII")
_FRAME: Final = struct.Struct("<4sIQ")
_PAGES: Final = struct.Struct("<II")
HEAD, PAGES, VCPU, STATE, SENT, DONE = b"HEAD", b"PAGE", b"VCPU", b"CPUS", b"SENT", b"DONE"
_KINDS: Final = (HEAD, PAGES, VCPU, STATE, SENT, DONE)


class Frame(NamedTuple):
    """One part: its kind and its content."""

    kind: bytes
    content: bytes


class Packer:
    """Makes the bytes of one image, piece by piece, and their digest."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def preamble(self) -> bytes:
        """Return what an image begins with."""
        return self._counted(_PREAMBLE.pack(MAGIC, VERSION, 0))

    def frame(self, kind: bytes, content: bytes) -> bytes:
        """Return a frame."""
        return self._counted(_FRAME.pack(kind, zlib.crc32(kind + content), len(content)) + content)

    def done(self) -> bytes:
        """Return the last frame, with the digest of everything before it."""
        return self.frame(DONE, self._digest.digest())

    def _counted(self, raw: bytes) -> bytes:
        self._digest.update(raw)
        return raw


class Unpacker:
    """Reads an image from a source of bytes; InputError with one line for anything but a whole one of this version.

    read: a function of n that returns n bytes, fewer only at the end.
    """

    def __init__(self, read: Callable[[int], bytes], what: str = "snapshot") -> None:
        self._read = read
        self._what = what
        self._digest = hashlib.sha256()
        magic, version, reserved = _PREAMBLE.unpack(self._exactly(_PREAMBLE.size))
        if magic != MAGIC:
            raise InputError(f"this is no machine {what}: it does not begin with {MAGIC.decode()}")
        if version != VERSION or reserved:
            raise InputError(f"machine {what} of version {version}: this archlbr reads version {VERSION}")

    def frames(self) -> Iterator[Frame]:
        """Return the frames up to the end; the end itself is checked and not returned."""
        while True:
            before = self._digest.digest()
            kind, check, length = _FRAME.unpack(self._exactly(_FRAME.size))
            if kind not in _KINDS or length > _MOST:
                raise self._damaged()
            content = self._exactly(length)
            if zlib.crc32(kind + content) != check:
                raise self._damaged()
            if kind == DONE:
                if content != before:
                    raise self._damaged()
                return
            yield Frame(kind, content)

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self._read(1):
            raise self._damaged()

    def _exactly(self, size: int) -> bytes:
        raw = self._read(size)
        if len(raw) != size:
            raise InputError(f"the machine {self._what} was cut off; nothing was restored: get it again")
        self._digest.update(raw)
        return raw

    def _damaged(self) -> InputError:
        return InputError(
            f"the machine {self._what} is damaged: a checksum differs; nothing was restored: get it again"
        )


def pack_json(tree: Any) -> bytes:
    """Return a tree as JSON; the same tree gives the same bytes."""
    return json.dumps(tree, separators=(",", ":"), sort_keys=True).encode()


def unpack_json(content: bytes) -> Any:
    """Return the tree of JSON; InputError when it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError("the machine snapshot contradicts itself: it holds no JSON; take a new one") from error


def as_pages(memory: memoryview) -> npt.NDArray[np.uint64]:
    """Return memory as uint64[pages, 512], without copying."""
    return np.frombuffer(memory, np.uint64).reshape(-1, PAGE // 8)


def changed(now: npt.NDArray[np.uint64], before: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the numbers of the pages that differ, in ascending order."""
    found = [
        start + np.flatnonzero((now[start : start + 4 * RUN] != before[start : start + 4 * RUN]).any(axis=1))
        for start in range(0, len(now), 4 * RUN)
    ]
    return np.concatenate(found)


def not_empty(pages: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the numbers of the pages that hold anything but zeros."""
    found = [
        start + np.flatnonzero(pages[start : start + 4 * RUN].any(axis=1)) for start in range(0, len(pages), 4 * RUN)
    ]
    return np.concatenate(found)


def packed(pages: npt.NDArray[np.uint64], numbers: npt.NDArray[np.int64]) -> Iterator[bytes]:
    """Return the contents of PAGES frames: the pages of these ascending numbers, neighbours together, compressed."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    for group in np.split(numbers, breaks):
        for at in range(0, len(group), RUN):
            run = group[at : at + RUN]
            first, count = int(run[0]), len(run)
            yield _PAGES.pack(first, count) + zlib.compress(pages[first : first + count].tobytes(), 1)


def unpacked(content: bytes, pages: npt.NDArray[np.uint64]) -> None:
    """Put the pages of a frame where they belong; InputError when they have no place there."""
    first, count = _PAGES.unpack_from(content.ljust(_PAGES.size, b"\0"))  # a count of 0 is refused below
    opener = zlib.decompressobj()
    try:
        raw = opener.decompress(content[_PAGES.size :], count * PAGE + 1)
    except zlib.error:
        raw = b""
    if not 0 < count <= RUN or first + count > len(pages) or len(raw) != count * PAGE or not opener.eof:
        raise InputError("the machine snapshot contradicts itself: pages outside of its memory; take a new one")
    pages[first : first + count] = np.frombuffer(raw, np.uint64).reshape(count, -1)
