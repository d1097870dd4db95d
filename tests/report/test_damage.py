"""Damaged ELF files: names are left out, and no file makes a report fail."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

import pytest

from archlbr.profile import images
from archlbr.profile.complaints import complaints
from archlbr.profile.perfdata.reader import Reader
from tests.cli.shell import archlbr
from tests.report.turn import TURN, compiled, profile

if TYPE_CHECKING:
    from pathlib import Path

if shutil.which("gcc") is None:
    pytest.skip("gcc is not installed: no ELF file to damage", allow_module_level=True)


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_file_loses_names_and_nothing_else(seed: int, tmp_path: Path) -> None:
    program = compiled(tmp_path, "-g", f"-gdwarf-{4 + seed % 2}")
    name = profile(tmp_path, program, [TURN] * 3)
    sound = program.read_bytes()
    draw = random.Random(seed)
    losses = 0
    for _ in range(25):
        damaged = bytearray(sound)
        for _ in range(draw.randint(1, 12)):
            # Headers stand at both ends of a file, the debug information before the last.
            at = draw.choice([draw.randrange(64), draw.randrange(len(damaged)), -draw.randrange(1, 3000)])
            damaged[at] = draw.choice([0, 255, draw.randrange(256)])
        program.write_bytes(damaged)
        images.segments.cache_clear()
        for by in ("branch", "line"):
            ran = archlbr("report", "--by", by, name)
            assert (ran.status, ran.err) == (0, "")
            assert ran.out.startswith("15 branches in 3 samples\n")
            losses += "inner+0x2" not in ran.out if by == "branch" else 0
        with Reader(name) as reader:
            assert {"no-build-id", "no-file"} & {row.name for row in complaints(reader)}
    assert 0 < losses < 25
    images.segments.cache_clear()


def test_a_source_s_name_cannot_leave_the_page(tmp_path: Path) -> None:
    program = compiled(tmp_path)
    renamed = tmp_path / "a<script>alert(1)<script>b"
    program.rename(renamed)
    ran = archlbr("report", "--format", "html", profile(tmp_path, renamed, [TURN]))
    assert ran.status == 0
    assert "<script>alert" not in ran.out
    assert "script&gt;b" in ran.out
