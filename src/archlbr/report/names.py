"""Names for a profile's places: function and source line of each file and offset.

`summary`, `code` and `stacks` ask it; `symbols` and `lines` read the files, each once. Ours.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from archlbr.report.binaries import locate
from archlbr.report.lines import SourceLine, SourceLines
from archlbr.report.symbols import Place, SymbolFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from archlbr.profile.stack import Words

UNMAPPED = "[unmapped]"
_LARGEST_SOURCE = 1 << 24


class Names:
    """The files of a profile, opened when they are first asked about.

    paths: as the profile has them; files: where they are read, empty where only another build is here;
    left_out: those of the latter that were asked about.
    """

    def __init__(self, paths: Sequence[str], build_ids: Mapping[str, bytes] | None = None) -> None:
        self.paths = tuple(paths)
        self.files = tuple(locate(path, (build_ids or {}).get(path, b"")) for path in self.paths)
        self.left_out: set[str] = set()
        self._symbols: dict[int, SymbolFile] = {}
        self._lines: dict[int, SourceLines] = {}

    def symbols(self, file: int) -> SymbolFile:
        """Return the functions of a file."""
        if not self.files[file]:
            self.left_out.add(self.paths[file])
        if file not in self._symbols:
            self._symbols[file] = SymbolFile(self.paths[file], self.files[file])
        return self._symbols[file]

    def place(self, file: int, offset: int) -> Place:
        """Return the name of a file's offset; that of an address where nothing was mapped (file -1)."""
        return Place(UNMAPPED, "", offset) if file < 0 else self.symbols(file).place(offset)

    def line(self, file: int, offset: int) -> SourceLine | None:
        """Return the source line of a file's offset, None where it is not known."""
        if file < 0:
            return None
        if file not in self._lines:
            self._lines[file] = SourceLines(self.files[file])
        return self._lines[file].line(self.symbols(file).address(offset))

    def functions(self, files: NDArray[np.int64], offsets: Words) -> NDArray[np.int64]:
        """Return the number of the function of each place, int64[n], -1 for none; `function` names it within a file."""
        out = np.full(len(files), -1, dtype=np.int64)
        for file in np.unique(files).tolist():
            if file >= 0:
                mine = files == file
                out[mine] = self.symbols(file).function_numbers(offsets[mine])
        return out

    def function(self, file: int, number: int) -> Place:
        """Return a function as a place: offset 0 of its symbol, or only the file where `number` is -1."""
        if file < 0:
            return Place(UNMAPPED, "", 0)
        return Place(self.paths[file], self.symbols(file).functions[number].name if number >= 0 else "", 0)

    def close(self) -> None:
        """Close the files."""
        for lines in self._lines.values():
            lines.close()
        self._lines.clear()


def source_text(line: SourceLine) -> str:
    """Return a source line's text without its indentation; empty when the source file is not here."""
    rows = _source(line.file)
    return rows[line.line - 1].strip() if line.line <= len(rows) else ""


@lru_cache(maxsize=64)
def _source(path: str) -> tuple[str, ...]:
    try:
        # Only what is certainly a file: the name comes out of somebody's debug information.
        if not Path(path).is_file() or Path(path).stat().st_size > _LARGEST_SOURCE:
            return ()
        return tuple(Path(path).read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        return ()
