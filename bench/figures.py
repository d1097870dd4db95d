"""Figures for a person: medians with their spread, and rows of a table."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def median(values: Sequence[float], unit: str = "s", digits: int = 2) -> str:
    """Return `median (fastest to slowest) unit`."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f}) {unit}".rstrip()


def ratio(values: Sequence[float], base: Sequence[float]) -> str:
    """Return the median of the ratios round by round, with their spread."""
    return median([value / other for value, other in zip(values, base, strict=True)], "x")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def peak() -> int:
    """Return the process's peak memory in KiB: of this program, where ru_maxrss has the parent's from before exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise LookupError("no VmHWM in /proc/self/status")
