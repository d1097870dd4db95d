"""`archlbr run`: the line of its help boots the Linux guest, and a trace from outside is a file."""

from __future__ import annotations

import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from archlbr.cli.run import parse_range
from archlbr.errors import InputError
from tests.cli.shell import archlbr
from tests.guests.build import Guests
from tests.guests.linux import FOLDER

ROOT = Path(__file__).parents[2]
needs_guest = pytest.mark.skipif(
    not (FOLDER / "interpreter").exists(), reason="needs build/guest: make guest fetches a kernel and busybox with apt"
)


@needs_guest
def test_the_line_of_the_help_boots_as_it_stands(tmp_path: Path) -> None:
    [line] = re.findall(r"^  (archlbr run --kernel .*)$", archlbr("run", "--help").out, re.MULTILINE)
    words = [sys.executable, "-m", *shlex.split(line), "--timeout", "300"]
    words += ["--trace", str(tmp_path / "trace"), "--trace-range", "10000000-20000000", "-o", str(tmp_path / "sent")]
    typed = b"interpreter 0\necho sent > /dev/ttyS1\npoweroff -f\n"
    done = subprocess.run(words, cwd=ROOT, input=typed, capture_output=True, timeout=320, check=False)
    assert done.returncode == 0, done.stderr
    console = done.stdout.decode(errors="replace")
    assert "[depth] 32" in console
    assert re.search(r"interpreter 0\r?\n0\r?\n", console)
    assert (tmp_path / "sent").read_bytes() == b"sent\n"
    lines = (tmp_path / "trace").read_text().splitlines()
    assert "# machine 0" in lines
    parts = [line.split() for line in lines if not line.startswith("#")]
    assert {part[0] for part in parts} == {"0"}
    assert all(0x10000000 <= int(source, 16) < 0x20000000 for _, source, _, _ in parts)
    symbols = subprocess.run(["nm", FOLDER / "interpreter"], capture_output=True, text=True, check=True).stdout
    [main] = re.findall(r"^([0-9a-f]+) T main$", symbols, re.MULTILINE)
    assert [kind for _, _, target, kind in parts if int(target, 16) == int(main, 16)] == ["IND_CALL"]


@pytest.mark.parametrize("text", ["", "400000", "500000-400000", "x-y", "-1-5", "0-10000000000000001"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_range(text)
    assert str(caught.value) == f"{text!r} is no range of addresses: give two in hexadecimal, such as 400000-500000"


@pytest.mark.parametrize(
    ("memory", "limit", "said"),
    [
        (
            "3G",
            3 << 30,
            "3072 MiB of memory cannot be had from this host: Cannot allocate memory; give less with --mem",
        ),
        ("64M", 1 << 30, "the engine's 1 GiB of address space for translated code cannot be had: Cannot allocate mem"),
    ],
)
def test_a_host_without_memory_is_one_line(tmp_path: Path, memory: str, limit: int, said: str) -> None:
    image = Guests(tmp_path).endless_board
    words = [sys.executable, "-m", "archlbr", "run", "--kernel", str(image), "--memory", memory]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"archlbr: {said}")


@pytest.mark.parametrize("memory", ["63M", "4G", "100000001", "0"])
def test_memory_that_no_machine_has_is_one_line(memory: str) -> None:
    done = archlbr("run", "--kernel", "/dev/null", "--memory", memory)
    assert (done.status, done.out) == (2, "")
    assert done.err == f"archlbr: {memory} of memory cannot be had: between 64M and 3G, in whole pages\n"


def test_a_range_is_read_in_hexadecimal() -> None:
    assert parse_range("400000-0x500000") == (0x400000, 0x500000)
