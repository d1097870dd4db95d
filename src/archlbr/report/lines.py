"""Source lines: a file's own address to the source file and line it was compiled from.

Fed by the ELF files of a profile's mappings; `names` asks for the places it shows. Authority: DWARF 4 and DWARF 5,
section 6.2 (line number information) and 3.1.1 (unit entries); debug files apart from their program are found by
build-id, where Debian and Fedora put them.
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from elftools.dwarf.descriptions import describe_form_class
from elftools.elf.elffile import ELFFile

from archlbr.profile.images import DAMAGED
from archlbr.report.symbols import debug_file

if TYPE_CHECKING:
    from collections.abc import Iterator

_DWARF_5 = 5


class SourceLine(NamedTuple):
    """A line of a source file; line counts from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


class _Row(NamedTuple):
    address: int
    end: int
    where: SourceLine


class SourceLines:
    """The line table of one file; only the units that are asked about are taken apart."""

    def __init__(self, path: str) -> None:
        self._dwarf: Any = None  # pyelftools has no types
        self._stream: BinaryIO | None = None
        self._ranges: list[tuple[int, int, int]] | None = None
        self._tables: dict[int, list[_Row]] = {}
        for candidate in (path, debug_file(path)):
            if candidate and self._dwarf is None:
                self._open(candidate)

    def _open(self, path: str) -> None:
        with suppress(OSError, *DAMAGED):
            # It stays open: pyelftools reads sections when they are asked for.
            stream = open(path, "rb")  # noqa: SIM115 - closed by close()
            try:
                elf = ELFFile(stream)
                # A stub that points to a supplementary file (dwz) has sections, too; its lines are all the same here.
                if elf.has_dwarf_info(strict=True):
                    self._dwarf, self._stream = _dwarf(elf), stream
            finally:
                if self._stream is not stream:
                    stream.close()

    @property
    def known(self) -> bool:
        """Whether the file has debug information at all."""
        return self._dwarf is not None

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
            self._dwarf = self._stream = None

    def line(self, address: int) -> SourceLine | None:
        """Return the source line of a link-time address, None where the table has none."""
        if self._dwarf is None:
            return None
        unit = self._unit(address)
        if unit is None:
            return None
        if unit not in self._tables:
            self._tables[unit] = []
            # A table of a newer or damaged form leaves its unit without lines, not the report without the rest.
            with suppress(*DAMAGED):
                self._tables[unit] = sorted(self._rows(unit))
        rows = self._tables[unit]
        at = bisect_right(rows, address, key=lambda row: row.address) - 1
        return rows[at].where if at >= 0 and address < rows[at].end else None

    def _unit(self, address: int) -> int | None:
        if self._ranges is None:
            self._ranges = []
            with suppress(*DAMAGED):
                self._ranges = sorted(self._unit_ranges())
        at = bisect_right(self._ranges, address, key=lambda row: row[0]) - 1
        return self._ranges[at][2] if at >= 0 and address < self._ranges[at][1] else None

    def _unit_ranges(self) -> Iterator[tuple[int, int, int]]:
        for unit in self._dwarf.iter_CUs():
            top = unit.get_top_DIE()
            if top.tag != "DW_TAG_compile_unit":
                continue
            low = top.attributes.get("DW_AT_low_pc")
            high = top.attributes.get("DW_AT_high_pc")
            if low is not None and high is not None:
                length = describe_form_class(high.form) == "constant"
                yield low.value, low.value + high.value if length else high.value, unit.cu_offset
            elif "DW_AT_ranges" in top.attributes:
                yield from ((start, end, unit.cu_offset) for start, end in self._listed(unit, top))

    def _listed(self, unit: Any, top: Any) -> Iterator[tuple[int, int]]:
        low = top.attributes.get("DW_AT_low_pc")
        base = low.value if low is not None else 0
        lists = self._dwarf.range_lists()
        found = lists.get_range_list_at_offset(top.attributes["DW_AT_ranges"].value, cu=unit)
        if unit["version"] >= _DWARF_5:
            found = [lists.translate_v5_entry(row, unit) if not hasattr(row, "begin_offset") else row for row in found]
        for row in found:
            if hasattr(row, "base_address"):
                base = row.base_address
            else:
                offset = 0 if row.is_absolute else base
                yield row.begin_offset + offset, row.end_offset + offset

    def _rows(self, offset: int) -> Iterator[_Row]:
        unit = self._dwarf.get_CU_at(offset)
        program = self._dwarf.line_program_for_CU(unit)
        if program is None:
            return
        names = _file_names(program.header, unit.get_top_DIE())
        before = None
        for entry in program.get_entries():
            state = entry.state
            if state is None:
                continue
            if before is not None and state.address > before.address and before.line and before.file < len(names):
                yield _Row(before.address, state.address, SourceLine(names[before.file], before.line))
            before = None if state.end_sequence else state


def _dwarf(elf: ELFFile) -> Any:
    # In a linked file the linker has applied what --emit-relocs leaves there; to apply it again would be wrong.
    return elf.get_dwarf_info(relocate_dwarf_sections=False, follow_links=False)


def _file_names(header: Any, top: Any) -> list[str]:
    # DWARF 5 counts files and directories from 0, the compilation's own first; DWARF 4 counts files from 1, and
    # directory 0 is the compilation's.
    folder = top.attributes.get("DW_AT_comp_dir")
    root = folder.value.decode(errors="replace") if folder is not None else ""
    five = header["version"] >= _DWARF_5
    folders = [name.decode(errors="replace") for name in header["include_directory"]]
    if not five:
        folders.insert(0, root)
    names = [] if five else [""]
    for entry in header["file_entry"]:
        place = folders[entry["dir_index"]] if entry["dir_index"] < len(folders) else ""
        names.append(str(Path(root, place, entry["name"].decode(errors="replace"))))
    return names
