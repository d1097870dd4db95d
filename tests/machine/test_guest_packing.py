"""Packing the Linux guest: what stands in the way is said in one line."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.guests import linux

if TYPE_CHECKING:
    from pathlib import Path


def test_missing_programs_are_named_by_their_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("gcc", "dpkg") else name)
    assert linux.main([str(tmp_path / "guest")]) == (
        "the Linux guest is not made: install dpkg, gcc and libc6-dev; it is packed from Debian's packages"
    )
    assert not (tmp_path / "guest").exists()


def test_a_command_that_fails_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc: apt-get install gcc libc6-dev")
    for name in ("apt-cache", "apt-get", "dpkg"):
        (tmp_path / name).write_text("#!/bin/sh\necho no network >&2\nexit 100\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    said = linux.main([str(tmp_path / "guest")])
    assert said == "the Linux guest is not made: apt-cache depends linux-image-cloud-amd64 failed: no network"
    assert not (tmp_path / "guest" / "guest.cpio").exists()
