"""The programs that are not ours: where they are, and how they are run.

BOLT's driver chooses its personality by its file name and does not know Debian's suffixed names (`perf2bolt-16` writes
an ELF file where text is asked for), so LLVM's programs are taken from their own folder, where they carry their own
names.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

LLVM = sorted(Path("/usr/lib").glob("llvm-*"), key=lambda path: int(path.name.removeprefix("llvm-")))
PACKAGE = {"perf": "linux-perf", "gcc": "gcc", "clang": "clang-16", "perf2bolt": "bolt-19", "llvm-profgen": "llvm-19"}


def need(name: str) -> str:
    """Return a program's path, or skip and name what is missing."""
    found = shutil.which(name)
    if found is None:
        found = next((str(path) for path in tools(name)), None)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {PACKAGE.get(name, name)}")
    return found


def tools(name: str) -> list[Path]:
    """Return every installed version of one of LLVM's programs, oldest first."""
    return [path / "bin" / name for path in LLVM if (path / "bin" / name).exists()]


def versions(name: str) -> list[object]:
    """Return a parameter for each installed version of one of LLVM's programs, or one that skips and says why."""
    found = tools(name)
    if not found:
        missing = pytest.mark.skip(reason=f"{name} is not installed: apt-get install {PACKAGE.get(name, name)}")
        return [pytest.param(Path(name), id="missing", marks=missing)]
    return [pytest.param(path, id=path.parent.parent.name) for path in found]


def run(
    command: Sequence[str | Path], cwd: Path, seconds: int = 120, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it said; its status must be `status`."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done
