"""Files stay readable, names are the field's, and the tree speaks of nothing but the project."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.house.tree import ROOT, SOURCE, files, modules, texts

if TYPE_CHECKING:
    from pathlib import Path

LINES = 400
VAGUE = {"util", "utils", "helper", "helpers", "manager", "misc", "common", "stuff"}

# Spelled in pieces, so that this file does not name what it looks for.
MACHINE_PATHS = re.compile(
    r"(?<![\w.])/(?:" + "|".join(("wo" + "rk", "tm" + "p", "ro" + "ot", "fa" + "rm", "ho" + "me")) + r")/"
)
OPEN_PROMISES = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")))
REGISTRIES = re.compile("|".join((r"pypi\." + "org", r"pythonhosted\." + "org", r"deb\.debian\." + "org")))
GENERATED = {"uv.lock"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_is_read_in_one_sitting(path: Path) -> None:
    count = len(path.read_text(encoding="utf-8").splitlines())
    assert count <= LINES, f"{count} lines: look for the seam"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "path", [path for path in modules() if path.name == "__init__.py"], ids=lambda path: str(path.parent.name)
)
def test_a_room_s_front_door_only_re_exports(path: Path) -> None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assignment = isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets)
        names = (
            {target.id for target in node.targets if isinstance(target, ast.Name)}
            if isinstance(node, ast.Assign)
            else set()
        )
        assert docstring or isinstance(node, ast.ImportFrom) or (assignment and names <= {"__all__", "__version__"})


def test_no_file_has_a_vague_name() -> None:
    vague = [str(path.relative_to(ROOT)) for path in files() if set(path.stem.lower().split("_")) & VAGUE]
    assert vague == []


def test_no_function_or_class_has_a_vague_name() -> None:
    vague = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.name).lower())
                if set(words) & VAGUE:
                    vague.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert vague == []


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    """Return `file:line: text` for each line of the tree that the pattern is found in."""
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts()
        if name not in GENERATED
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_path_of_one_machine_is_in_the_tree() -> None:
    assert lines_with(MACHINE_PATHS) == []


def test_no_promise_is_left_open_in_the_source() -> None:
    assert [line for line in lines_with(OPEN_PROMISES) if line.startswith("src/")] == []


def test_no_registry_is_named() -> None:
    assert lines_with(REGISTRIES) == []


def test_each_type_ignore_gives_its_reason() -> None:
    bare = re.compile(r"#\s*type:\s*ignore(?:\[[\w, -]+\])?\s*$")
    assert [line for line in lines_with(bare) if line.startswith("src/")] == []


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (MACHINE_PATHS, "see " + "/wo" + "rk/main"),
        (MACHINE_PATHS, '"' + "/tm" + 'p/x"'),
        (OPEN_PROMISES, "# TO" + "DO later"),
        (REGISTRIES, "https://pypi." + "org/simple"),
    ],
)
def test_a_pattern_finds_what_it_looks_for(pattern: re.Pattern[str], line: str) -> None:
    assert pattern.search(line)
