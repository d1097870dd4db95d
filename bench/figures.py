"""Figures for a person: medians with their spread, and rows of a table."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def median(values: Sequence[float], unit: str = "s", digits: int = 2) -> str:
    """Return `median (least to greatest) unit`."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f}) {unit}".rstrip()


def ratio(values: Sequence[float], base: Sequence[float]) -> str:
    """Return the median of the ratios round by round, with their spread."""
    return median([value / other for value, other in zip(values, base, strict=True)], "x")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def put(document: Path, marks: tuple[str, str], text: str) -> None:
    """Write text between two marks of a document, which stay, and leave the rest as it is."""
    before, _, rest = document.read_text(encoding="utf-8").partition(marks[0])
    _, _, after = rest.partition(marks[1])
    beside = document.with_suffix(".md.new")
    beside.write_text(f"{before}{marks[0]}\n\n{text}\n\n{marks[1]}{after}", encoding="utf-8")
    os.replace(beside, document)


def peak() -> int:
    """Return the process's peak memory in KiB: of this program, where ru_maxrss has the parent's from before exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise LookupError("no VmHWM in /proc/self/status")
