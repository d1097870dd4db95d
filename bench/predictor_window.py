"""What it costs that the predictor sees only the last branches before a sample: entries that would say otherwise.

    python -m bench.predictor_window [--write]

Each of `bench.accuracy`'s programs is recorded twice, with the window of `machine.hooks` (docs/decisions/011) and
with a predictor that sees every branch; the same branches stand in both, and their mispredicted bits are compared.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from archlbr.cpu import words as at
from archlbr.machine import hooks
from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.stack import MISPRED
from bench.accuracy import DOCUMENT
from bench.accuracy_programs import ENVIRONMENT, PERIODS, PROGRAMS, lay_out_inputs
from bench.accuracy_truth import UNRANDOMISED
from bench.figures import put, table

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARKS = ("<!-- window: begin -->", "<!-- window: end -->")
_RECORD = """
import sys
from archlbr.cli.app import main
from archlbr.cpu import words
words.LEARNT = int(sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""


def recorded(words: tuple[str, ...], out: Path, period: int, window: int) -> NDArray[np.void]:
    """Return the entries of a profile whose predictor saw so many branches before each sample."""
    subprocess.run(
        [
            *(*UNRANDOMISED, sys.executable, "-c", _RECORD, str(window)),
            *("record", "--engine", "unicorn", "-c", str(period), "-o", str(out), "--", *words),
        ],
        check=True,
        env={**ENVIRONMENT, "HOME": str(Path.home())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=600,
    )
    with Reader(out) as reader:
        return np.concatenate([batch.entries for batch in reader.samples()])


def measured() -> str:
    """Return the table."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="archlbr-window-") as name:
        folder = Path(name)
        inputs = lay_out_inputs(folder, False)
        for template in PROGRAMS:
            if shutil.which(template.words[0]) is None:
                print(f"left out: {template.words[0]} is not installed", file=sys.stderr)
                continue
            words = template.filled(inputs).words
            for period in PERIODS:
                short, long = (recorded(words, folder / "perf.data", period, n) for n in (at.LEARNT, hooks.NEVER))
                assert np.array_equal(short[["from", "to"]], long[["from", "to"]]), f"{template.name}: other branches"
                said, true = (entries["flags"] & np.uint64(MISPRED) != 0 for entries in (short, long))
                rows.append(
                    [
                        template.name,
                        str(period),
                        f"{len(true):,}",
                        f"{true.mean():.2%}",
                        f"{said.mean():.2%}",
                        f"{(said != true).mean():.2%}",
                    ]
                )
    head = [
        "program",
        "period",
        "entries",
        "mispredicted, all seen",
        f"the last {at.LEARNT:,} seen",
        "entries differ",
    ]
    return "\n".join(table(head, rows))


def main(words: list[str]) -> None:
    """Measure and print, or write the table into the document."""
    text = measured()
    if "--write" in words:
        put(DOCUMENT, MARKS, text)
    else:
        print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
