"""`docs/reliability.md`, section by section: each campaign writes its own and leaves the others as they are."""

from __future__ import annotations

import os
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
TITLES = ("Fuzzing", "Mutants", "A soak", "Kills of record", "Kills of snapshot")
PREFACE = """# Reliability

What was done to break the program, the command that does it again, and what it printed. `campaigns/` has the code;
`python -m campaigns.NAME --write` puts its section here.
"""


def sections(text: str) -> dict[str, str]:
    """Return each section's body by its title."""
    found = {}
    for part in text.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        found[title] = body.strip("\n")
    return found


def write_section(title: str, lines: list[str]) -> None:
    """Put a section into the document, in the order of TITLES."""
    text = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
    bodies = {**sections(text), title: "\n".join(lines)}
    parts = [PREFACE, *(f"## {name}\n\n{bodies[name]}\n" for name in TITLES if name in bodies)]
    beside = DOCUMENT.with_suffix(".md.new")
    beside.write_text("\n".join(parts), encoding="utf-8")
    os.replace(beside, DOCUMENT)
