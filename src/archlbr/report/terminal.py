"""A summary as plain lines, which fit a terminal, a pipe and a file alike.

Fed by `summary`, `code` and `stacks`, printed by the command. Ours.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from archlbr.report.rows import By

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archlbr.report.code import FunctionCode, Instruction
    from archlbr.report.stacks import Node, Stacks
    from archlbr.report.summary import Heat, Summary

# Frames of a call tree with fewer of all samples than this are left out.
_SMALLEST = 0.005


def render(summary: Summary, by: By = By.BRANCH) -> str:
    """Return the table of the hottest rows, a heading above it."""
    lines = [f"{summary.branches:,} branches in {summary.samples:,} samples"]
    if summary.command_line:
        lines.append(printable(f"recorded by: {shlex.join(summary.command_line)}"))
    if not summary.hottest:
        return "\n".join([*lines, "no branch was sampled: take a smaller period with -c"])
    heading, rows = _table(summary, by)
    if not rows:
        return "\n".join([*lines, "no source line is known: compile with -g, and keep the files where they were"])
    columns = ("branches", "mispred", *(("cycles",) if summary.timed else ()))
    whole = [(*columns, *heading), *((*_numbers(heat, summary), *words) for heat, words in rows)]
    return "\n".join([*lines, *aligned(whole, len(columns))])


def _table(summary: Summary, by: By) -> tuple[tuple[str, ...], list[tuple[Heat, tuple[str, ...]]]]:
    if by is By.FUNCTION:
        return ("calls", "function"), [(row.heat, (f"{row.calls:,}", row.place.function)) for row in summary.functions]
    if by is By.EDGE:
        return ("kind", "from", "to"), [
            (row.heat, (row.kind, row.source.function, row.target.function)) for row in summary.edges
        ]
    if by is By.LINE:
        return ("line", "function", "source"), [
            (row.heat, (str(row.line), row.function.function, row.text)) for row in summary.lines
        ]
    if by is By.KIND:
        return ("kind",), [(row.heat, (row.kind,)) for row in summary.kinds]
    lined = any(row.line for row in summary.hottest)
    return ("kind", "from", "to", *(("line",) if lined else ())), [
        (
            row.heat,
            (row.kind, row.source.with_file, row.target.with_file, *((str(row.line or "-"),) if lined else ())),
        )
        for row in summary.hottest
    ]


def aligned(rows: Sequence[tuple[str, ...]], numbers: int) -> list[str]:
    """Return rows as lines: the first `numbers` columns to the right, the others to the left, the last as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column < numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(printable("  ".join(cells).rstrip()))
    return lines


def printable(line: str) -> str:
    """Return a line with what steers a terminal spelled out: names come out of files that anybody wrote."""
    if line.isprintable():
        return line
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in line)


def _numbers(heat: Heat, summary: Summary) -> tuple[str, ...]:
    shares = f"{100 * heat.taken / summary.branches:.2f}%", f"{100 * heat.mispredicted / heat.taken:.1f}%"
    if not summary.timed:
        return shares
    return *shares, f"{heat.mean_cycles:.1f}" if heat.mean_cycles is not None else "-"


def render_tree(stacks: Stacks, tree: Sequence[Node]) -> str:
    """Return the call tree, callers above callees, each with its share of all samples and its own."""
    total = stacks.samples
    lines = [f"{total:,} samples, callers first", "  total     own  function"]

    def walk(nodes: Sequence[Node], depth: int) -> None:
        for node in nodes:
            if node.total < _SMALLEST * total:
                continue
            shares = f"{100 * node.total / total:6.2f}% {100 * node.own / total:6.2f}%"
            lines.append(printable(f"{shares}  {'  ' * depth}{node.frame.function}"))
            walk(node.callees, depth + 1)

    walk(tree, 0)
    return "\n".join(lines)


def render_code(code: FunctionCode) -> str:
    """Return a function's disassembly: how often each instruction ran, and what its branches did."""
    rows: list[tuple[str, ...]] = [("count", "mispred", "address", "instruction", "line")]
    before = None
    for number, block in enumerate(code.blocks):
        rows.append(("", "", "", f"B{number}:", ""))
        for row in block.instructions:
            line = str(row.line) if row.line is not None and row.line != before else ""
            before = row.line or before
            rows.append((f"{row.ran:,}", _mispredicted(row), f"{row.address:#x}", f"  {row.text}", line))
    return "\n".join([printable(code.place.function), *aligned(rows, 3)])


def _mispredicted(row: Instruction) -> str:
    return f"{100 * row.heat.mispredicted / row.heat.taken:.1f}%" if row.heat else ""
