"""Run `archlbr` as a shell does."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple


class Ran(NamedTuple):
    """What a run left: its exit status and what it wrote."""

    status: int
    out: str
    err: str


def archlbr(*words: str, stdin: str = "") -> Ran:
    """Run the command with these words and text on standard input."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "archlbr", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)
