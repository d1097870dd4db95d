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
    found, seconds = kills.campaign(kills.Record(tmp_path), 3, 7, warm=False)
    assert seconds > 0
    assert {row.name for row in found} <= {"none", "old", "new"}
    assert sum(not row.ended for row in found) == 3


@pytest.mark.parametrize("cut", [1, 2])
def test_a_half_file_would_be_noticed(cut: int, tmp_path: Path) -> None:
    record = kills.Record(tmp_path)
    for name in ("out", "scratch"):
        (tmp_path / name).mkdir()
    assert record.start()[0].wait(120) == 0
    profile = tmp_path / "out" / kills.NAME
    assert record.whole(profile)
    assert os.listdir(tmp_path / "scratch") == []
    profile.write_bytes(profile.read_bytes()[: profile.stat().st_size // 2 * cut - 1])
    assert not record.whole(profile)


def test_a_machine_killed_while_it_is_written_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    if shutil.which("gcc") is None or shutil.which("pgrep") is None:
        pytest.skip("gcc or pgrep is not installed")
    subject = kills.Snapshot(tmp_path)
    found, seconds = kills.campaign(subject, 2, 7, warm=False)
    assert seconds > 0
    assert {row.name for row in found} <= {"none", "old", "new"}
    assert sum(not row.ended for row in found) == 2
    whole = tmp_path / "whole"
    whole.write_bytes(b"")
    assert not subject.whole(whole)
