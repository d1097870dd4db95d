"""The documents: each link leads somewhere, each file and each verb they name exists."""

from __future__ import annotations

import ast
import re

import pytest

from archlbr.cli.app import app
from tests.house.tree import ROOT, SOURCE, texts

DOCUMENTS = [(name, text) for name, text in texts(".md")]
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
# `lbr/registers.py` and the like, as the documents name source files.
SOURCE_FILE = re.compile(r"`((?:[a-z_]+/)+[a-z_0-9]+\.py)`")
# `lbr.registers` and the like, as docstrings do.
DOTTED = re.compile(r"`([a-z_]+(?:\.[A-Za-z_]+)+)`")


@pytest.mark.parametrize(("name", "text"), DOCUMENTS, ids=[name for name, _ in DOCUMENTS])
def test_each_link_leads_to_a_file(name: str, text: str) -> None:
    here = (ROOT / name).parent
    targets = [target for target in LINK.findall(text) if "://" not in target]
    assert [target for target in targets if not (here / target).exists()] == []


@pytest.mark.parametrize(("name", "text"), DOCUMENTS, ids=[name for name, _ in DOCUMENTS])
def test_each_source_file_that_is_named_exists(name: str, text: str) -> None:
    named = set(SOURCE_FILE.findall(text))
    assert {path for path in named if not (SOURCE / path).exists() and not (ROOT / path).exists()} == set()


def _exists(dotted: str) -> bool:
    """Return whether a dotted name is a module, or a name that stands in one."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        path = SOURCE.joinpath(*parts[:count])
        module = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if module.exists():
            return count == len(parts) or re.search(rf"\b{parts[count]}\b", module.read_text()) is not None
    return False


def test_each_module_that_a_module_s_docstring_names_exists() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    dangling = []
    for name, text in texts(".py"):
        head = (ast.get_docstring(ast.parse(text)) or "") if (ROOT / name).is_relative_to(SOURCE) else ""
        fields = set(re.findall(r"^    ([a-z_]+): ", text, re.MULTILINE))  # `lbr.ctl` of a state that has an lbr
        named = [dotted for dotted in DOTTED.findall(head) if dotted.split(".")[0] in rooms - fields]
        dangling += [(name, dotted) for dotted in named if not _exists(dotted)]
    assert dangling == []


def test_the_readme_names_each_verb_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `archlbr ([a-z]+)", readme, re.MULTILINE))
    assert named == {command.name for command in app.registered_commands}


def test_the_readme_s_two_commands_are_targets() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+) ", readme, re.MULTILINE)) == {"demo", "test"}
    assert {"demo", "test", "help", "setup", "lint", "bench"} <= targets
