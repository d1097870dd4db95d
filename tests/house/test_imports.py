"""Imports go one way: the picture of docs/architecture.md, read from the source text, apart from import-linter."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.house.tree import SOURCE, modules

if TYPE_CHECKING:
    from pathlib import Path

# room -> the rooms it may import, besides itself; `errors`, `native`, `sources` and the package's name are open to all.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "native": set(),
    "sources": set(),
    "arch": set(),
    "lbr": {"arch"},
    "guest": {"arch"},
    "cpu": {"arch"},
    "vpmu": {"arch", "lbr"},
    "perf": {"arch", "lbr"},
    "host": {"arch", "lbr", "vpmu", "perf"},
    "machine": {"arch", "lbr", "vpmu", "perf", "host", "cpu", "guest"},
    "check": set(),
    "contract": {"arch", "lbr", "vpmu", "perf", "host", "check"},
    "profile": {"arch"},
    "recording": {"arch", "lbr", "cpu", "machine", "profile"},
    "report": {"arch", "profile"},
    "decode": {"arch"},
    "probe": {"arch", "decode"},
    # The questions know the protocol; only the targets know what they talk to.
    "conformance": {"arch"},
    "conformance.targets": {"arch", "conformance", "lbr", "vpmu", "cpu", "machine"},
    "pytest_plugin": {"conformance", "conformance.targets"},
    "cli": {
        "arch",
        "check",
        "contract",
        "conformance",
        "conformance.targets",
        "decode",
        "host",
        "machine",
        "perf",
        "probe",
        "profile",
        "recording",
        "report",
        "guest",
        "cpu",
        "lbr",
        "vpmu",
    },
    "__main__": {"cli"},
}


def room_named(words: tuple[str, ...]) -> str:
    """Return the room of a module's name, split at the dots and without the package: its first word, or two."""
    return ".".join(words[:2]) if words[:2] == ("conformance", "targets") else words[0]


def room_of(path: Path) -> str:
    """Return the room a source file belongs to: its folder, or its own name at the top."""
    inside = path.relative_to(SOURCE)
    return room_named(inside.parts) if len(inside.parts) > 1 else inside.stem


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms of ours that a file names in an import, wherever in the file the import stands."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room they name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {room_named(tuple(name.split(".")[1:])) for name in names if name.startswith("archlbr.")}
    return rooms - {"__version__"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_only_the_rooms_before_it(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        assert imported_rooms(path) == set()
        return
    assert room in MAY_IMPORT, f"a new room: say in MAY_IMPORT what {room} may import, and draw it in the picture"
    assert imported_rooms(path) - {room, "errors", "native", "sources"} <= MAY_IMPORT[room]


def test_the_rule_is_not_vacuous() -> None:
    assert imported_rooms(SOURCE / "decode" / "names.py") == {"arch", "errors"}
    assert imported_rooms(SOURCE / "cli" / "probe.py") == {"cli", "decode", "errors", "probe"}
