"""A summary as plain lines, which fit a terminal, a pipe and a file alike.

Fed by `summary`, printed by the command. Ours.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from archlbr.report.summary import short_file

if TYPE_CHECKING:
    from archlbr.report.summary import HotBranch, Summary
    from archlbr.report.symbols import Place

HEADING = ("branches", "mispred", "kind", "from", "to")


def render(summary: Summary) -> str:
    """Return the table of the hottest branches, a heading above it."""
    lines = [f"{summary.branches:,} branches in {summary.samples:,} samples"]
    if summary.command_line:
        lines.append(f"recorded by: {shlex.join(summary.command_line)}")
    if not summary.hottest:
        return "\n".join([*lines, "no branch was sampled: take a smaller period with -c"])
    rows = [HEADING, *(_cells(branch, summary.branches) for branch in summary.hottest)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADING) - 1)]
    for row in rows:
        numbers = (cell.rjust(width) for cell, width in zip(row[:2], widths[:2], strict=True))
        words = (cell.ljust(width) for cell, width in zip(row[2:4], widths[2:], strict=True))
        lines.append("  ".join([*numbers, *words, row[4]]))
    return "\n".join(lines)


def _cells(branch: HotBranch, total: int) -> tuple[str, str, str, str, str]:
    return (
        f"{100 * branch.taken / total:.2f}%",
        f"{100 * branch.mispredicted / branch.taken:.1f}%",
        branch.kind,
        _place(branch.source),
        _place(branch.target),
    )


def _place(place: Place) -> str:
    return f"{place} ({short_file(place)})"
