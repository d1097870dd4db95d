"""A profile of another build, or from another machine: no wrong names, and the right ones from perf's cache."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from archlbr.profile import images
from archlbr.profile.build_id import build_id
from archlbr.report.binaries import locate
from tests.cli.shell import archlbr
from tests.foreign.tools import need, run
from tests.report.turn import TURN, compiled, profile

if TYPE_CHECKING:
    from pathlib import Path

if shutil.which("gcc") is None:
    pytest.skip("gcc is not installed: no ELF file to build twice", allow_module_level=True)

RAN, HERE = "11" * 20, "22" * 20


def built(folder: Path, identity: str) -> Path:
    """Build the program with a build-id and forget what is known of its path."""
    program = compiled(folder, f"-Wl,--build-id=0x{identity}")
    forget()
    return program


def forget() -> None:
    for cached in (build_id, images.segments, images.functions):
        cached.cache_clear()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A profile whose program has been built anew since; the home folder is empty."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    name = profile(tmp_path, built(tmp_path, RAN), [TURN] * 3, build_id=bytes.fromhex(RAN))
    shutil.copy(tmp_path / "turn", tmp_path / "ran")
    built(tmp_path, HERE)
    return name


WARNING = (
    "archlbr: another build is here than the one that ran, so its names are left out: {}; perf archive brings it\n"
)


def test_the_build_that_ran_has_its_names(tmp_path: Path) -> None:
    name = profile(tmp_path, built(tmp_path, RAN), [TURN], build_id=bytes.fromhex(RAN))
    ran = archlbr("report", name)
    assert (ran.status, ran.err) == (0, "")
    assert "inner+0x2 (turn)" in ran.out


@pytest.mark.parametrize("by", ["branch", "function", "edge"])
def test_another_build_lends_no_names_and_is_told(elsewhere: str, tmp_path: Path, by: str) -> None:
    ran = archlbr("report", "--by", by, elsewhere)
    assert (ran.status, ran.err) == (0, WARNING.format(tmp_path / "turn"))
    assert ran.out.startswith("15 branches in 3 samples\n")
    assert "inner" not in ran.out
    assert "turn" in ran.out


def test_diff_tells_it_too(elsewhere: str, tmp_path: Path) -> None:
    # No edge differs, so that by branches no place is named.
    assert archlbr("diff", elsewhere, elsewhere).err == ""
    ran = archlbr("diff", "--by", "function", elsewhere, elsewhere)
    assert ran.out.startswith("overlap 1.0000\n")
    assert ran.err == WARNING.format(tmp_path / "turn")


@pytest.mark.parametrize("layout", ["a folder", "a link"])
def test_perf_s_cache_has_the_build_that_ran(elsewhere: str, tmp_path: Path, layout: str) -> None:
    place = tmp_path / "home" / ".debug" / ".build-id" / RAN[:2] / RAN[2:]
    place.parent.mkdir(parents=True)
    if layout == "a folder":
        place.mkdir()
        shutil.copy(tmp_path / "ran", place / "elf")
    else:
        place.symlink_to(tmp_path / "ran")
    ran = archlbr("report", elsewhere)
    assert (ran.status, ran.err) == (0, "")
    assert "inner+0x2 (turn)" in ran.out
    assert "jne" in archlbr("report", "--annotate", "inner", elsewhere).out


def test_a_cached_file_of_a_third_build_is_not_taken(elsewhere: str, tmp_path: Path) -> None:
    place = tmp_path / "home" / ".debug" / ".build-id" / RAN[:2] / RAN[2:]
    place.mkdir(parents=True)
    shutil.copy(tmp_path / "turn", place / "elf")
    assert archlbr("report", elsewhere).err == WARNING.format(tmp_path / "turn")


def test_perf_buildid_cache_itself(elsewhere: str, tmp_path: Path) -> None:
    perf = need("perf")
    run([perf, "buildid-cache", "-a", tmp_path / "ran"], tmp_path)
    ran = archlbr("report", elsewhere)
    assert (ran.err, "inner+0x2 (turn)" in ran.out) == ("", True)


@pytest.mark.parametrize("padding", [b"", b"\0" * 4])
def test_a_file_is_located_by_what_is_known(padding: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = str(built(tmp_path, RAN))
    assert locate(path, b"") == path
    assert locate(path, bytes.fromhex(RAN) + padding) == path
    assert locate(path, bytes.fromhex(HERE)) == ""
    # What is not here is shown by its addresses, as before; what has no build-id may be what ran.
    assert locate(str(tmp_path / "gone"), bytes.fromhex(RAN)) == str(tmp_path / "gone")
    subprocess.run(["objcopy", "--remove-section=.note.gnu.build-id", path], check=True)
    forget()
    assert locate(path, bytes.fromhex(HERE)) == path


def test_a_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    program = compiled(tmp_path)
    renamed = tmp_path / "a\x1b[2Jb"
    program.rename(renamed)
    name = profile(tmp_path, renamed, [TURN])
    for words in ((), ("--by", "function"), ("--annotate", "inner")):
        ran = archlbr("report", *words, name)
        assert (ran.status, "\x1b" in ran.out, "a\\x1b[2Jb" in ran.out) == (0, False, True)
    assert "\x1b" not in archlbr("diff", name, name).out
