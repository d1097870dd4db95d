"""What `campaigns.fuzz` finds outlives its folder for temporary files: the input is kept, and named."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from campaigns import fuzz

if TYPE_CHECKING:
    import pytest


def test_the_input_of_a_finding_is_kept_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def libfuzzer(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        beside = Path(command[command.index("--child") + 1]).parent  # as -artifact_prefix has it
        (beside / "crash-0123").write_bytes(b"\x00input")
        (beside / "slow-unit-4567").write_bytes(b"slow")
        return subprocess.CompletedProcess(command, 77, stderr="ValueError: a finding\n")

    monkeypatch.setattr(fuzz, "FINDINGS", tmp_path / "kept")
    monkeypatch.setattr(subprocess, "run", libfuzzer)
    folder = tmp_path / "temporary"
    row, fine = fuzz.measure("words", 10, 1, folder)
    assert (row[-1], fine) == ("SEE ABOVE", False)
    kept = tmp_path / "kept" / "words" / "crash-0123"
    assert kept.read_bytes() == b"\x00input"
    assert [path.name for path in kept.parent.iterdir()] == ["crash-0123"]
    assert capsys.readouterr().err.splitlines() == ["ValueError: a finding", f"the input is kept: {kept}"]


def test_where_nothing_is_found_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    (folder / "corpus").mkdir(parents=True)
    assert fuzz.keep(folder, tmp_path / "kept") == []
    assert not (tmp_path / "kept").exists()
