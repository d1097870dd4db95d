"""The files of the tree as the house rules see them: what git tracks or would track."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "archlbr"


@cache
def files() -> tuple[Path, ...]:
    """Return each file that git tracks, or would track if it were added; without git, what lies in the known places."""
    asked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode == 0:
        listed = [ROOT / name for name in asked.stdout.splitlines()]
    else:
        places = [ROOT / name for name in ("src", "tests", "docs", "bench", "campaigns", ".ci")]
        listed = [path for place in places for path in place.rglob("*")] + list(ROOT.glob("*.*"))
    return tuple(sorted(path for path in listed if path.is_file() and "__pycache__" not in path.parts))


def texts(*suffixes: str) -> list[tuple[str, str]]:
    """Return (name, text) of each text file with one of these suffixes, of each text file when none is given."""
    found = []
    for path in files():
        if suffixes and path.suffix not in suffixes:
            continue
        try:
            found.append((str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def modules() -> list[Path]:
    """Return each Python file of the package."""
    return [path for path in files() if path.suffix == ".py" and SOURCE in path.parents]
