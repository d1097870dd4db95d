"""An output appears whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from archlbr.errors import InputError
from archlbr.profile import output
from archlbr.profile.output import Output, append
from archlbr.profile.perfdata.writer import Writer
from tests.profile.examples import ATTR, record

if TYPE_CHECKING:
    from pathlib import Path

UMASK = os.umask(0o022)
os.umask(UMASK)


@pytest.fixture(autouse=True, params=["without a name", "beside"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of temporary files; processes that a test starts have the first, where the file system has it."""
    if request.param == "beside":
        monkeypatch.setattr(output, "_nameless", lambda _folder: None)
    return str(request.param)


def test_until_it_is_whole_a_file_has_no_name_where_that_can_be(kind: str, tmp_path: Path) -> None:
    out = Output(tmp_path / "perf.data")
    out.write(b"x" * 10)
    beside = [] if kind == "without a name" else [f".perf.data.{os.getpid()}.tmp"]
    if kind == "without a name" and (number := output._nameless(tmp_path)) is not None:
        os.close(number)
    elif kind == "without a name":
        pytest.skip("this file system has no files without a name")
    assert os.listdir(tmp_path) == beside
    out.commit()
    assert os.listdir(tmp_path) == ["perf.data"]
    assert (tmp_path / "perf.data").read_bytes() == b"x" * 10
    assert (tmp_path / "perf.data").stat().st_mode & 0o777 == 0o666 & ~UMASK


def test_nothing_appears_before_close(tmp_path: Path) -> None:
    target = tmp_path / "perf.data"
    profile = Writer(target, ATTR)
    record(profile)
    assert not target.exists()
    profile.close()
    assert [path.name for path in tmp_path.iterdir()] == ["perf.data"]


def test_abort_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "perf.data"
    target.write_bytes(b"earlier")
    profile = Writer(target, ATTR)
    record(profile)
    profile.abort()
    assert target.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["perf.data"]


def test_a_file_is_copied_behind_what_was_written(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 5000)
    with Output(tmp_path / "perf.data") as out:
        out.write(b"head")
        out.copy(source)
        out.write(b"tail")
    assert (tmp_path / "perf.data").read_bytes() == b"head" + source.read_bytes() + b"tail"
    with pytest.raises(InputError, match="cannot write"), Output(tmp_path / "perf.data") as out:
        out.copy(tmp_path / "none")
    assert (tmp_path / "perf.data").read_bytes().startswith(b"head")


def test_an_exception_aborts(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Writer(tmp_path / "perf.data", ATTR):
        _ = 1 // 0
    assert list(tmp_path.iterdir()) == []


def test_a_finished_file_replaces_the_earlier_one(tmp_path: Path) -> None:
    target = tmp_path / "perf.data"
    target.write_bytes(b"earlier")
    with Writer(target, ATTR) as profile:
        record(profile)
    assert target.read_bytes().startswith(b"PERFILE2")


def test_a_link_keeps_pointing_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"earlier")
    (tmp_path / "link").symlink_to("real")
    with Output(tmp_path / "link") as out:
        out.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize("limit", [0, 100, 4096, 100_000])
def test_a_full_disk_is_one_line_and_the_earlier_file_stays(tmp_path: Path, limit: int) -> None:
    """A limit on file size stands for the full disk: the write fails in the middle, at the flush, or at once."""
    target = tmp_path / "perf.data"
    target.write_bytes(b"earlier")
    code = """if True:
        import sys, numpy as np
        from archlbr.errors import InputError
        from archlbr.profile.perfdata.attr import branch_attr
        from archlbr.profile.perfdata.writer import Writer
        read = np.ones((500, 32, 3), dtype=np.uint64)
        try:
            with Writer(sys.argv[1], branch_attr("branches:u", 1)) as profile:
                for at in range(0, 5000, 500):
                    profile.samples(1, 1, np.arange(at, at + 500, dtype=np.uint64), read[:, 0, 0], 1, read,
                    np.full(500, 32))
        except InputError as error:
            print(error)
            sys.exit(2)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, target],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout == f"cannot write {target}: File too large; free some space or choose another file with -o\n"
    assert target.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["perf.data"]


def test_a_disk_without_space_says_so(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk: {mounted.stderr.strip()}")
    try:
        target = disk / "perf.data"
        target.write_bytes(b"earlier")
        out = Output(target)
        with pytest.raises(InputError, match=r"^cannot write .*: No space left on device; free some space[^\n]*$"):
            out.write(b"x" * (1 << 22))
        assert target.read_bytes() == b"earlier"
        assert [path.name for path in disk.iterdir()] == ["perf.data"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_killed_writer_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    target = tmp_path / "perf.data"
    target.write_bytes(b"earlier")
    code = """if True:
        import os, signal, sys
        from archlbr.profile.output import Output, append
        out = Output(sys.argv[1])
        out.write(b"x" * (1 << 22))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", code, target], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"earlier"
    if (number := output._nameless(tmp_path)) is not None:
        os.close(number)
        assert os.listdir(tmp_path) == ["perf.data"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("missing/perf.data", "No such file or directory"), (".", "it is not a regular file")],
)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(InputError, match=rf"^cannot write .*: {says}; choose another [^\n]*$"):
        Writer(tmp_path / name, ATTR)


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        Output(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_a_spool_grows_and_says_in_one_line_why_it_cannot(tmp_path: Path) -> None:
    spool = str(tmp_path / "0.trace")
    for raw in (b"", b"one", memoryview(b"two")):
        append(spool, raw)
    assert (tmp_path / "0.trace").read_bytes() == b"onetwo"
    name = str(tmp_path / "none" / "0.trace")
    with pytest.raises(InputError) as refused:
        append(name, b"one")
    assert str(refused.value) == (
        f"cannot write {name}: No such file or directory; free some space, or set TMPDIR elsewhere"
    )
