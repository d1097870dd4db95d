"""The build-id of an ELF file: what tells one build of a program from another.

`recording.sampling` asks for each executable mapping; perf2bolt and perf match files by it. Source: System V gABI,
"Note Section"; NT_GNU_BUILD_ID of elf(5).
"""

from __future__ import annotations

from functools import lru_cache

from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from archlbr.profile.images import DAMAGED


@lru_cache(maxsize=1024)
def build_id(path: str) -> bytes:
    """Return the build-id's bytes, empty when the file has none or cannot be read."""
    try:
        with open(path, "rb") as file:
            for segment in ELFFile(file).iter_segments():
                if not isinstance(segment, NoteSegment):
                    continue
                for note in segment.iter_notes():
                    if note["n_type"] == "NT_GNU_BUILD_ID":
                        return bytes.fromhex(note["n_desc"])
    except (OSError, *DAMAGED):
        return b""
    return b""
