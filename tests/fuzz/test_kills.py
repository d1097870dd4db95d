"""Runs killed at random moments: `campaigns.kills`, a few times over."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from campaigns import kills

if TYPE_CHECKING:
    from pathlib import Path


def test_a_killed_run_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    if shutil.which("sort") is None or shutil.which("pgrep") is None:
        pytest.skip("sort or pgrep is not installed")
    found, seconds = kills.campaign(3, 7, tmp_path, warm=False)
    assert seconds > 0
    assert {row.name for row in found} <= {"none", "old", "new"}
    assert len(found) == 3


@pytest.mark.parametrize("cut", [1, 2])
def test_a_half_file_would_be_noticed(cut: int, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("b\na\n")
    for name in ("out", "scratch"):
        (tmp_path / name).mkdir()
    assert kills.start(tmp_path / "out", tmp_path / "scratch").wait(120) == 0
    profile = tmp_path / "out" / kills.NAME
    assert kills.whole(profile)
    assert os.listdir(tmp_path / "scratch") == []
    profile.write_bytes(profile.read_bytes()[: profile.stat().st_size // 2 * cut - 1])
    assert not kills.whole(profile)
