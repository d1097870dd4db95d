"""Imports go one way: the picture of docs/architecture.md, read from the source text, apart from import-linter."""

from __future__ import annotations

import ast
import re
import tomllib
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from tests.house.tree import ROOT, SOURCE, modules, texts

if TYPE_CHECKING:
    from pathlib import Path

# What every room may import; the package's name, too.
OPEN = {"errors", "native", "sources"}
# room -> the rooms it imports, besides itself and these.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "native": set(),
    "sources": set(),
    "arch": set(),
    "lbr": {"arch"},
    "guest": set(),
    "cpu": {"arch"},
    "vpmu": {"arch", "lbr"},
    "perf": {"arch", "lbr"},
    "host": {"arch", "lbr", "vpmu", "perf"},
    "machine": {"arch", "lbr", "vpmu", "perf", "host", "cpu", "guest"},
    "check": set(),
    "contract": {"lbr", "vpmu", "perf", "host", "check"},
    "profile": {"arch"},
    "recording": {"arch", "lbr", "cpu", "machine", "profile"},
    "report": {"arch", "profile"},
    "decode": {"arch"},
    "probe": {"arch", "decode"},
    # The questions know the protocol; only the targets know what they talk to.
    "conformance": {"arch"},
    "conformance.targets": {"arch", "conformance", "lbr", "vpmu", "machine"},
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


def reached(room: str) -> set[str]:
    """Return the rooms that a room imports, and the rooms that those import."""
    rooms, ahead = set(), {room}
    while ahead:
        rooms |= ahead
        ahead = set().union(*(MAY_IMPORT[one] for one in ahead)) - rooms
    return rooms


def units() -> set[tuple[str, ...]]:
    """Return what a contract can name: each room, and of the room that contracts divide each part."""
    inside = [path.relative_to(SOURCE).with_suffix("").parts for path in modules()]
    named = {parts[:2] if parts[0] == "conformance" else parts[:1] for parts in inside}
    return {parts for parts in named if parts[-1] != "__init__"}


def forbidden(contract: dict[str, Any]) -> set[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return each (importer, imported) that a contract of pyproject.toml forbids."""

    def within(names: list[str]) -> set[tuple[str, ...]]:
        prefixes = [tuple(name.removeprefix("archlbr.").split(".")) for name in names]
        return {unit for unit in units() for prefix in prefixes if unit[: len(prefix)] == prefix}

    match contract["type"]:
        case "layers":
            layers = [[within([name]) for name in layer.split(" | ")] for layer in contract["layers"]]
            pairs = set()
            for number, layer in enumerate(layers):
                for room in layer:
                    above = [other for higher in layers[:number] for other in higher]
                    for other in above + [beside for beside in layer if beside != room]:
                        pairs |= set(product(room, other))
            return pairs
        case "forbidden":
            return set(product(within(contract["source_modules"]), within(contract["forbidden_modules"])))
        case "protected":
            protected = within(contract["protected_modules"])
            return set(product(units() - protected - within(contract["allowed_importers"]), protected))
    raise AssertionError(f"say what a contract of the type {contract['type']} forbids")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_only_the_rooms_before_it(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        assert imported_rooms(path) == set()
        return
    assert room in MAY_IMPORT, f"a new room: say in MAY_IMPORT what {room} may import, and draw it in the picture"
    assert imported_rooms(path) - OPEN - {room} <= MAY_IMPORT[room]


def test_each_room_of_the_table_is_there_and_uses_what_it_may_import() -> None:
    used: dict[str, set[str]] = {}
    for path in modules():
        used.setdefault(room_of(path), set()).update(imported_rooms(path) - OPEN - {room_of(path)})
    del used["__init__"]
    assert used == MAY_IMPORT


def test_the_contracts_of_pyproject_forbid_what_the_table_does_not_allow_and_no_more() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    forbids = set().union(*(forbidden(contract) for contract in project["tool"]["importlinter"]["contracts"]))
    beyond = {
        (importer, imported)
        for importer, imported in product(units(), units())
        if room_named(imported) not in reached(room_named(importer))
    }
    assert {pair for pair in forbids if pair[1][0] not in OPEN} == {pair for pair in beyond if pair[1][0] not in OPEN}


def test_no_test_imports_another_s_file() -> None:
    imported = re.compile(
        r"^\s*(?:from|import) tests\.(?:[\w.]*\.)?test_|^\s*from tests[\w.]* import .*\btest_", re.MULTILINE
    )
    assert [name for name, text in texts(".py") if imported.search(text)] == []


def test_the_rule_is_not_vacuous() -> None:
    assert imported_rooms(SOURCE / "decode" / "names.py") == {"arch", "errors"}
    assert imported_rooms(SOURCE / "cli" / "probe.py") == {"cli", "decode", "errors", "probe"}
