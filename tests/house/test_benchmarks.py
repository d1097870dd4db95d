"""What `bench/` and `campaigns/` take from archlbr is there: no test runs them, and numba compiles only what runs."""

from __future__ import annotations

import ast
import importlib
from types import ModuleType

import pytest

from tests.house.tree import texts

FILES = dict(row for row in texts(".py") if row[0].startswith(("bench/", "campaigns/")))


def missing(text: str) -> list[str]:
    """Return what a source file takes from archlbr's modules and does not find there."""
    tree = ast.parse(text)
    modules: dict[str, ModuleType] = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "archlbr":
            parent = importlib.import_module(node.module or "")
            for name in node.names:
                if not hasattr(parent, name.name):
                    try:
                        importlib.import_module(f"{node.module}.{name.name}")
                    except ModuleNotFoundError:
                        found.append(f"{node.module}.{name.name}")
                        continue
                taken = getattr(parent, name.name)
                if isinstance(taken, ModuleType):
                    modules[name.asname or name.name] = taken
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            module = modules[node.value.id]
            if not hasattr(module, node.attr):
                found.append(f"{module.__name__}.{node.attr}")
    return found


@pytest.mark.parametrize("name", FILES)
def test_what_is_taken_is_there(name: str) -> None:
    assert missing(FILES[name]) == []


def test_what_is_not_there_is_found() -> None:
    text = "from archlbr.cpu.unicorn import longmode, shortmode\nlongmode.REMAPS\nlongmode.HFLAGS\n"
    assert missing(text) == ["archlbr.cpu.unicorn.shortmode", "archlbr.cpu.unicorn.longmode.REMAPS"]
