"""How long the command line takes to answer, its compiled code in the cache.

python -m bench startup
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.figures import median, table
from bench.programs import run


def measure(rounds: int = 7) -> list[str]:
    """Return the section."""
    command = str(Path(sys.executable).parent / "archlbr")
    rows = []
    with TemporaryDirectory() as folder:
        out = str(Path(folder) / "perf.data")
        for name, words in (
            ("archlbr --help", ["--help"]),
            ("archlbr record -- /bin/true", ["record", "--engine", "unicorn", "-o", out, "--", "/bin/true"]),
        ):
            seconds = []
            for turn in range(rounds + 1):
                found = run([command, *words])
                assert found is not None, name
                assert found.status == 0, name
                if turn:  # the first fills the cache
                    seconds.append(found.seconds)
            rows.append([f"`{name}`", median(seconds)])
    return [f"Whole processes, {rounds} runs after one that fills the cache.", "", *table(["command", "time"], rows)]
