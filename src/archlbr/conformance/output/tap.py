"""Results as TAP, version 14: a line a case and target; a known difference is ok, with its reason in a YAML block."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from archlbr.conformance.run import Result, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence


def tap(results: Sequence[Result]) -> str:
    """Return the whole stream."""
    lines = ["TAP version 14", f"1..{len(results)}"]
    for number, result in enumerate(results, 1):
        status = "not ok" if result.verdict is Verdict.FAIL else "ok"
        line = f"{status} {number} - {_plain(f'{result.target} {result.case.name}')}"
        if result.verdict is Verdict.SKIP:
            line += f" # SKIP {_plain(result.why)}"
        lines.append(line)
        if result.verdict is Verdict.DIFFERS:
            lines += _block({"known": result.why})
        elif result.verdict is Verdict.FAIL:
            lines += _block({"message": result.why, "requirement": result.case.requirement, "cite": result.case.cite})
    return "\n".join(lines) + "\n"


def _plain(words: str) -> str:
    return words.replace("\\", "\\\\").replace("#", "\\#")


def _block(content: dict[str, str]) -> list[str]:
    # A JSON string is a YAML string too.
    return ["  ---", *(f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()), "  ..."]
