"""The documents: each link leads somewhere, each file and each verb they name exists."""

from __future__ import annotations

import re

import pytest

from archlbr.cli.app import app
from tests.house.tree import ROOT, SOURCE, texts

DOCUMENTS = [(name, text) for name, text in texts(".md")]
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
# `lbr/registers.py` and the like, as the documents name source files.
SOURCE_FILE = re.compile(r"`((?:[a-z_]+/)+[a-z_0-9]+\.py)`")


@pytest.mark.parametrize(("name", "text"), DOCUMENTS, ids=[name for name, _ in DOCUMENTS])
def test_each_link_leads_to_a_file(name: str, text: str) -> None:
    here = (ROOT / name).parent
    targets = [target for target in LINK.findall(text) if "://" not in target]
    assert [target for target in targets if not (here / target).exists()] == []


@pytest.mark.parametrize(("name", "text"), DOCUMENTS, ids=[name for name, _ in DOCUMENTS])
def test_each_source_file_that_is_named_exists(name: str, text: str) -> None:
    named = set(SOURCE_FILE.findall(text))
    assert {path for path in named if not (SOURCE / path).exists() and not (ROOT / path).exists()} == set()


def test_the_readme_names_each_verb_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `archlbr ([a-z]+)", readme, re.MULTILINE))
    assert named == {command.name for command in app.registered_commands}


def test_the_readme_s_two_commands_are_targets() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+) ", readme, re.MULTILINE)) == {"demo", "test"}
    assert {"demo", "test", "help", "setup", "lint", "bench"} <= targets
