"""Spin, where it is installed: compile a Promela text, search it whole, return what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import NamedTuple

import pytest

needs_spin = pytest.mark.skipif(
    not (shutil.which("spin") and shutil.which("gcc")), reason="spin or gcc is missing (Debian: apt install spin gcc)"
)


class Verdict(NamedTuple):
    states: int
    errors: int


def search(folder, text: str, *options: str, defines: tuple[str, ...] = ()) -> Verdict:
    """Search without partial-order reduction and with exact states; options are pan's."""
    (folder / "model.pml").write_text(text)
    for command in (
        ["spin", "-o3", "-a", "model.pml"],
        ["gcc", "-O2", "-w", "-DNOREDUCE", "-DSAFETY", "-DVECTORSZ=2048", *defines, "-o", "pan", "pan.c"],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    told = subprocess.run(["./pan", "-m5000000", *options], cwd=folder, capture_output=True, text=True, timeout=300)
    states = re.search(r"(\d+) states, stored", told.stdout)
    errors = re.search(r"errors: (\d+)", told.stdout)
    assert states, told.stdout + told.stderr
    assert errors
    assert "max search depth too small" not in told.stdout
    return Verdict(int(states[1]), int(errors[1]))
