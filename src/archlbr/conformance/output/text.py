"""Results as a table, case by target, with the reasons below it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from archlbr.conformance.run import Result, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence


def text(results: Sequence[Result]) -> str:
    """Return the table, then each failure, difference and missing thing, then a line of sums a target."""
    targets = list(dict.fromkeys(result.target for result in results))
    names = list(dict.fromkeys(result.case.name for result in results))
    cells = {(result.case.name, result.target): str(result.verdict) for result in results}
    width = max((len(name) for name in names), default=4)
    columns = [max(len(target), len(Verdict.DIFFERS)) for target in targets]
    lines = [_row("case", targets, width, columns)]
    lines += [_row(name, [cells.get((name, target), "") for target in targets], width, columns) for name in names]
    lines += _failures(results)
    lines += _reasons(results, Verdict.DIFFERS, "differs, as known")
    lines += _reasons(results, Verdict.SKIP, "skipped, for lack of")
    lines += ["", *(_sums(target, results) for target in targets)]
    return "\n".join(lines) + "\n"


def _row(name: str, cells: Sequence[str], width: int, columns: Sequence[int]) -> str:
    parts = [name.ljust(width), *(cell.ljust(column) for cell, column in zip(cells, columns, strict=True))]
    return "  ".join(parts).rstrip()


def _failures(results: Sequence[Result]) -> list[str]:
    failed = [result for result in results if result.verdict is Verdict.FAIL]
    lines = [""] if failed else []
    for result in failed:
        case = result.case
        lines += [
            f"FAIL {result.target}: {case.name}: {result.why}",
            f"     must hold: {case.requirement} ({case.cite})",
        ]
    return lines


def _reasons(results: Sequence[Result], verdict: Verdict, title: str) -> list[str]:
    counted = Counter((result.target, result.why) for result in results if result.verdict is verdict)
    if not counted:
        return []
    return ["", f"{title}:", *(f"  {target}  {count:4}  {why}" for (target, why), count in counted.items())]


def _sums(target: str, results: Sequence[Result]) -> str:
    counted = Counter(result.verdict for result in results if result.target == target)
    return f"{target}: " + ", ".join(f"{counted[verdict]} {verdict}" for verdict in Verdict)
