"""Where compiled code is kept: in the folder of these very sources, and never where somebody else could have put it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

import archlbr
from archlbr import sources


def test_the_digest_is_of_every_source_by_name() -> None:
    root = Path(archlbr.__file__).parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    assert sources.digest() == total.hexdigest()


def test_the_folder_is_the_user_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert sources.cache_folder() == tmp_path / "archlbr" / sources.digest()[:16]
    for number in range(9):  # other sources', the oldest first
        other = tmp_path / "archlbr" / f"other{number}"
        other.mkdir()
        os.utime(other, (number, number))
    sources.cache_folder().rmdir()
    assert sources.cache_folder().is_dir()
    assert sorted(path.name for path in (tmp_path / "archlbr").glob("other*")) == [f"other{n}" for n in range(3, 9)]


@pytest.mark.parametrize("found", ["nothing", "ours", "open to others", "a link"])
def test_without_a_home_it_is_a_temporary_folder_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no folder"))
    monkeypatch.setattr(sources.tempfile, "tempdir", str(tmp_path))
    usual = tmp_path / f"archlbr-{os.getuid()}-{sources.digest()[:16]}"
    if found == "a link":
        (tmp_path / "theirs").mkdir()
        usual.symlink_to(tmp_path / "theirs")
    elif found != "nothing":
        usual.mkdir(mode=0o700)
        usual.chmod(0o777 if found == "open to others" else 0o700)
    folder = sources.cache_folder()
    assert (folder == usual) is (found in ("nothing", "ours"))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.is_symlink()
