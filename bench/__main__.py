"""Measure everything and print it; with --write, into docs/benchmarks.md.

python -m bench [--write] [PART...]: the parts are those of PARTS below.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bench import (
    board_access,
    check_speed,
    conform,
    engine,
    engines,
    guest,
    migrate,
    profile_writer,
    programs,
    startup,
    vpmu_step,
)

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"

PARTS: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "engine": ("What recording costs", engine.measure),
    "engines": ("Engines side by side", engines.measure),
    "programs": ("User programs", programs.measure),
    "startup": ("Start-up", startup.measure),
    "writer": ("Writing profiles", profile_writer.table),
    "vpmu": ("The vPMU's step", vpmu_step.measure),
    "access": ("Register accesses of a guest on the board", board_access.measure),
    "check": ("The explorer", check_speed.measure),
    "migrate": ("Moving a machine", migrate.measure),
    "conform": ("The conformance table", conform.measure),
    "guest": ("The whole machine", guest.measure),
}
BUSY = 0.5


def machine() -> str:
    """Return what was measured on, in a line."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    made = ", ".join(f"{name} {version(name)}" for name in ("unicorn", "numba", "numpy"))
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, Linux {os.uname().release}, "
        f"Python {platform.python_version()}, {made}"
    )


def preface() -> str:
    """Return what stands above the sections."""
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "`make bench` prints this; `python -m bench --write` writes it here, or the parts it is told. Each "
            "figure is a median, with the fastest and the slowest run in brackets; ratios are "
            "medians of the ratios of one round.",
            "",
            f"Measured on: {machine()}.",
            "",
        ]
    )


def section(part: str) -> str:
    """Measure a part and return its section, with the load of the machine meanwhile."""
    title, measure = PARTS[part]
    start = os.getloadavg()[0]
    lines = measure()
    busy = "Other jobs ran on the machine meanwhile: the" if start > BUSY else "The"
    load = f"{busy} load average was {start:.1f} at the start and {os.getloadavg()[0]:.1f} at the end."
    return "\n".join([f"## {title}", "", *lines, "", load, ""])


def written() -> dict[str, str]:
    """Return the sections that the document has, by part."""
    text = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    found = ("## " + rest for rest in text.split("\n## ")[1:])
    titles = {title: part for part, (title, _) in PARTS.items()}
    return {titles[body.splitlines()[0][3:]]: body.rstrip("\n") + "\n" for body in found}


def main() -> None:
    """Run the parts asked for, all by default."""
    words = sys.argv[1:]
    wanted = [word for word in words if word != "--write"] or list(PARTS)
    unknown = [word for word in wanted if word not in PARTS]
    if unknown:
        sys.exit(f"no such part: {' '.join(unknown)}; there are {' '.join(PARTS)}")
    head = preface()
    print(head, flush=True)
    measured = {}
    for part in wanted:
        measured[part] = section(part)
        print(measured[part], flush=True)
    if "--write" in words:
        sections = {**written(), **measured}
        beside = DOCUMENT.with_suffix(".md.new")
        beside.write_text("\n".join([head, *(sections[part] for part in PARTS if part in sections)]))
        os.replace(beside, DOCUMENT)


if __name__ == "__main__":
    main()
