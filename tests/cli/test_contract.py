"""`contract` from the shell: to stdout or to a file, which appears whole, and is refused before the long search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from archlbr.contract import table
from tests.cli.shell import archlbr

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Explore three scenarios where the verb asks for all; say each time whether only the small ones were asked for."""
    asked: list[bool] = []
    explored = table.explored

    def explore_few(chosen: list[object], *, small: bool) -> table.Table:
        asked.append(small)
        return explored(chosen, ["alone", "steady", "denied"])

    monkeypatch.setattr(table, "explored", explore_few)
    return asked


@pytest.mark.parametrize("form", ["rst", "html"])
def test_a_file_holds_what_stdout_would(tmp_path: Path, few: list[bool], form: str) -> None:
    file = tmp_path / "contract"
    file.write_text("an older one")
    printed = archlbr("contract", "--format", form)
    written = archlbr("contract", "--format", form, "--small", "-o", str(file))
    assert (printed.status, printed.err, written) == (0, "", (0, "", ""))
    assert file.read_text() == printed.out
    assert printed.out.startswith(".. SPDX-License-Identifier: GPL-2.0\n" if form == "rst" else "<!doctype html>")
    assert few == [False, True]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none/contract", "No such file or directory; choose another file with -o"),
        (".", "it is not a regular file; choose another name with -o"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_search(
    tmp_path: Path, few: list[bool], name: str, reason: str
) -> None:
    file = str(tmp_path / name)
    done = archlbr("contract", "-o", file)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert reason in done.err
    assert few == []
