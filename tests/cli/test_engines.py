"""`--engine`: which engine runs, what each needs, and that a missing one is refused in one line."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from archlbr.native import cache_folder
from tests.cli.recording import archlbr, run, stats

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests

NEEDS_QEMU = pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-x86_64 is not installed")


def only(folder: Path, *names: str) -> str:
    """Make a folder of links to a few programs; return it as a PATH."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(shutil.which(name) or name)
    return str(folder)


@pytest.mark.parametrize("verb", ["record", "trace"])
def test_qemu_that_is_not_installed_is_refused_in_one_line(verb: str, guests: Guests, tmp_path: Path) -> None:
    extra = {"PATH": only(tmp_path / "bin")}
    ended = run(archlbr(verb, "--engine", "qemu", "-o", tmp_path / "out", "--", guests.known), extra=extra)
    assert (ended.status, ended.out) == (2, b"")
    assert ended.err == b"archlbr: --engine qemu needs qemu-x86_64: install qemu-user, or use --engine unicorn\n"
    assert not (tmp_path / "out").exists()


@NEEDS_QEMU
def test_a_missing_compiler_is_refused_in_one_line(guests: Guests, tmp_path: Path) -> None:
    # The plugin of an earlier run would do without: look for it in an empty cache.
    extra = {
        "PATH": only(tmp_path / "bin", "qemu-x86_64"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "NUMBA_CACHE_DIR": str(cache_folder()),
    }
    ended = run(archlbr("record", "--engine", "qemu", "-o", tmp_path / "out", "--", guests.known), extra=extra)
    assert (ended.status, ended.out) == (2, b"")
    assert ended.err == b"archlbr: --engine qemu needs a C compiler: install gcc, or use --engine unicorn\n"


def test_an_engine_that_does_not_exist_is_refused(guests: Guests) -> None:
    ended = run(archlbr("record", "--engine", "bochs", "--", guests.known))
    assert ended.status == 2
    assert b"bochs" in ended.err


@pytest.mark.parametrize(("asked", "ran"), [("auto", "unicorn"), ("unicorn", "unicorn"), ("qemu", "qemu")])
def test_the_statistics_name_the_engine_that_ran(asked: str, ran: str, guests: Guests, tmp_path: Path) -> None:
    if asked == "qemu" and shutil.which("qemu-x86_64") is None:
        pytest.skip("qemu-x86_64 is not installed")
    ended = run(archlbr("record", "--engine", asked, "--stats", "-o", tmp_path / "out", "--", guests.known))
    assert ended.status == 0
    assert stats(ended.err)["engine"] == ran
    wrote, told = ended.err.splitlines()
    assert wrote.startswith(b"[ archlbr record: wrote")
    assert told.startswith(b"stats: instructions=40 branches=9 ")
