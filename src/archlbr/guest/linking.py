"""How a program is linked: what it takes from which libraries, and its own text.

`cli.engines` asks before it chooses an engine: what a program can do shows in what it imports. Authority: the gABI's
dynamic section, and glibc's names.
"""

from __future__ import annotations

from typing import NamedTuple

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile


class Linking(NamedTuple):
    """static: it has no loader. needed: its libraries. imports: names that others define. text: its code."""

    static: bool = True
    needed: tuple[str, ...] = ()
    imports: frozenset[str] = frozenset()
    text: bytes = b""


def linking(path: str) -> Linking:
    """Return how an ELF program is linked; what cannot be read counts as static and without code."""
    try:
        with open(path, "rb") as file:
            image = ELFFile(file)
            static = not any(segment["p_type"] == "PT_INTERP" for segment in image.iter_segments())
            dynamic = image.get_section_by_name(".dynamic")
            needed: tuple[str, ...] = ()
            if isinstance(dynamic, DynamicSection):
                needed = tuple(tag.needed for tag in dynamic.iter_tags("DT_NEEDED"))
            symbols = image.get_section_by_name(".dynsym")
            imports: frozenset[str] = frozenset()
            if symbols is not None:
                imports = frozenset(
                    symbol.name for symbol in symbols.iter_symbols() if symbol["st_shndx"] == "SHN_UNDEF"
                )
            text = image.get_section_by_name(".text")
            return Linking(static, needed, imports - {""}, text.data() if text is not None else b"")
    except (ELFError, OSError, ValueError, KeyError, UnicodeDecodeError):
        return Linking()
