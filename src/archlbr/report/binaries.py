"""The file behind a recorded path: itself when it is the build that ran, perf's own copy of that build, or none.

`names` asks for each file of a profile. A profile may come from another machine, or from before a rebuild: then the
path is here and its content is another, and each name taken from it would be wrong. perf keeps what it recorded in its
build-id cache, and `perf archive` carries that to another machine (perf-buildid-cache(1), perf-archive(1)).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from archlbr.profile.build_id import build_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archlbr.profile.perfdata.reader import Reader
    from archlbr.profile.stack import Mapping

# Where perf keeps files, below the home folder (tools/perf/util/build-id.c, build_id_cache__basename).
CACHE = "~/.debug/.build-id"


def recorded(reader: Reader, mappings: Sequence[Mapping]) -> dict[str, bytes]:
    """Return the build-id of each path that a profile has one of: of its mappings, or of its list of build-ids."""
    return {**reader.build_ids, **{row.path: row.build_id for row in mappings if row.build_id}}


def same_build(one: bytes, other: bytes) -> bool:
    """Say whether two build-ids are one; a shorter one may have been filled up with zeros."""
    return one.rstrip(b"\0") == other.rstrip(b"\0")


def locate(path: str, identity: bytes) -> str:
    """Return the file to read for a recorded path, empty where only another build is here.

    A path without a recorded build-id, or a file that has none, is taken as it is: nothing says that it is another.
    """
    if not identity or not os.path.isfile(path):
        here = b""
    else:
        here = build_id(path)
        if here and same_build(here, identity):
            return path
    cached = _cached(identity)
    return cached or ("" if here else path)


def _cached(identity: bytes) -> str:
    digits = identity.rstrip(b"\0").hex()
    if not digits:
        return ""
    folder = os.path.join(os.path.expanduser(CACHE), digits[:2], digits[2:])
    # A folder with the file `elf` in it; before Linux 4.13 a link to a folder, or to the file itself.
    for name in (os.path.join(folder, "elf"), folder):
        if os.path.isfile(name) and same_build(build_id(name), identity):
            return name
    return ""
