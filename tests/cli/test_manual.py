"""The manual pages: one a verb, every option in it, and nothing the formatter warns of."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from archlbr.cli.app import app
from archlbr.cli.manual import main, pages
from tests.cli.shell import archlbr

if TYPE_CHECKING:
    from pathlib import Path

PAGES = pages()
VERBS = sorted(str(command.name) for command in app.registered_commands)


def test_there_is_a_page_for_the_command_and_for_each_verb() -> None:
    assert sorted(PAGES) == sorted(["archlbr.1", *(f"archlbr-{verb}.1" for verb in VERBS)])


@pytest.mark.parametrize("verb", VERBS)
def test_a_page_has_each_option_of_the_help(verb: str) -> None:
    page = PAGES[f"archlbr-{verb}.1"].replace("\\-", "-")
    options = set(re.findall(r"--[a-z][a-z-]+", archlbr(verb, "--help").out))
    assert "--help" in options
    assert set(re.findall(r"--[a-z][a-z-]+", page)) == options


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_formatter_has_nothing_against_a_page(name: str, tmp_path: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed: apt-get install groff-base")
    file = tmp_path / name
    file.write_text(PAGES[name])
    ran = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Tutf8", file],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        check=True,
    )
    assert ran.stderr == ""


def test_the_pages_are_written_where_they_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "man")]) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "man").iterdir()} == PAGES
    assert capsys.readouterr().err == f"man -l {tmp_path / 'man' / 'archlbr.1'}\n"


def test_completion_knows_verbs_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_ARCHLBR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "archlbr re")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert archlbr().out.split() == ["record", "replay", "report", "restore"]
    monkeypatch.setenv("COMP_WORDS", "archlbr report --by ")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert archlbr().out.split() == ["branch", "function", "edge", "line", "kind", "stack"]
