"""docs/divergences.md names code that exists, and every module that says UNCONFIRMED is named there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "archlbr"
ROOMS = ("arch", "lbr")


def rows():
    text = (ROOT / "docs" / "divergences.md").read_text(encoding="utf-8")
    facility = text.split("## The facility")[1].split("\n## ")[0]
    for line in facility.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and re.match(r"[0-9]", cells[0]):
            yield cells


def test_each_row_has_a_section_a_question_a_choice_and_a_place():
    listed = list(rows())
    assert len(listed) >= 50
    for cells in listed:
        assert len(cells) == 4, cells
        assert all(cells), cells


def test_each_place_is_in_the_code():
    missing = []
    for *_, place in rows():
        for file, names in re.findall(r"`([\w/]+\.py)` ([\w, .]+)", place):
            source = (PACKAGE / file).read_text(encoding="utf-8")
            for name in re.findall(r"\w+", names):
                if not re.search(rf"\b{name}\b", source):
                    missing.append(f"{file}: {name}")
    assert missing == []


def test_every_module_that_says_unconfirmed_is_named():
    named = {file for *_, place in rows() for file in re.findall(r"`([\w/]+\.py)`", place)}
    unconfirmed = {
        str(path.relative_to(PACKAGE))
        for room in ROOMS
        for path in (PACKAGE / room).rglob("*.py")
        if "UNCONFIRMED" in path.read_text(encoding="utf-8")
    }
    assert unconfirmed <= named
