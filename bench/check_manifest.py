"""The manifest of the explorations: write it anew, or print each design's time.

`python -m bench.check_manifest` explores everything and prints a line each; `--write` also replaces the manifest, which
tests/contract/test_manifest.py compares. Seconds are of the machine that wrote it and are never compared.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archlbr.contract import designs, scenarios
from archlbr.contract.verdicts import Outcome, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archlbr.contract.world import Scenario
    from archlbr.vpmu.designs.sharing import Sharing

MANIFEST = Path(__file__).parent.parent / "tests" / "contract" / "manifest.json"


def pairs() -> Iterator[tuple[Sharing, Scenario]]:
    """Yield each design with each of its scenarios."""
    for design in designs.DESIGNS.values():
        for scenario in scenarios.SCENARIOS:
            if scenarios.belongs(design.family, scenario):
                yield design, scenario


def entry(outcome: Outcome) -> dict[str, Any]:
    """Return a line of the manifest without its time; violated: property -> steps to it."""
    found = outcome.exploration
    return {
        "complete": found.complete,
        "states": found.states,
        "edges": found.edges,
        "depth": found.depth,
        "deadlock": found.deadlock is not None,
        "violated": {name: len(path) for name, path in sorted(outcome.found.items())},
    }


def read() -> dict[str, dict[str, Any]]:
    """Return the manifest."""
    content: dict[str, dict[str, Any]] = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return content


def main() -> None:
    """Explore all and report."""
    lines, began = {}, time.perf_counter()
    for design, scenario in pairs():
        start = time.perf_counter()
        line = entry(judge(design, scenario))
        seconds = time.perf_counter() - start
        lines[f"{design.name}/{scenario.name}"] = {**line, "seconds": round(seconds, 3)}
        rate = line["edges"] / seconds
        print(
            f"{design.name:<13}{scenario.name:<20}{line['states']:>9,} states{line['edges']:>11,} edges {rate:>9,.0f}/s"
        )
    print(f"{time.perf_counter() - began:.1f} s in all")
    if "--write" in sys.argv:
        beside = MANIFEST.with_suffix(".new")
        rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(line)}" for name, line in lines.items())
        beside.write_text("{\n" + rows + "\n}\n", encoding="utf-8")
        os.replace(beside, MANIFEST)


if __name__ == "__main__":
    main()
