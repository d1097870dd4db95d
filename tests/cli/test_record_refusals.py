"""What cannot be recorded: one line that names the cause and the way out, status 2, and every file as it was."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.recording import archlbr, record, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests

BEFORE = b"an older profile"


def header(bits: int, machine: int, kind: int = 2) -> bytes:
    """Return an ELF header without anything behind it (System V ABI, ELF header)."""
    ident = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    if bits == 32:
        return ident + struct.pack("<HHIIIIIHHHHHH", kind, machine, 1, 0x8048000, 52, 0, 0, 52, 32, 0, 40, 0, 0)
    return ident + struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0x400000, 64, 0, 0, 64, 56, 0, 64, 0, 0)


def refused(words: list[str | os.PathLike[str]], output: Path, *named: str) -> None:
    """Assert that a command is refused in one line that has these words in it, the output left alone."""
    before = output.read_bytes() if output.exists() else None
    ended = run(words)
    lines = ended.err.decode().splitlines()
    assert (ended.status, ended.out, len(lines)) == (2, b"", 1), ended
    assert lines[0].startswith("archlbr: ")
    for word in named:
        assert word in lines[0]
    assert (output.read_bytes() if output.exists() else None) == before
    assert [path.name for path in output.parent.iterdir() if path.name.startswith((".", output.name + "."))] == []


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "perf.data").write_bytes(BEFORE)
    return folder / "perf.data"


CONTENTS = {
    "text": (b"just words, no program\n", "ELF"),
    "empty": (b"", "ELF"),
    "cut": (b"\x7fELF\x02\x01", "cut off"),
    "i386": (header(32, 3), "32-bit"),
    "x32": (header(32, 62), "32-bit"),
    "aarch64": (header(64, 183), "AArch64"),
    "riscv": (header(64, 243), "RISC-V"),
    "object": (header(64, 62, kind=1), "ELF"),
    "nothing to load": (header(64, 62), "program headers"),
}


@pytest.mark.parametrize("verb", ["record", "trace"])
@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_that_is_no_x86_64_program(verb: str, name: str, output: Path, tmp_path: Path) -> None:
    content, cause = CONTENTS[name]
    program = tmp_path / "program"
    program.write_bytes(content)
    program.chmod(0o755)
    refused(archlbr(verb, "-o", output, "--", program), output, str(program), cause)


def test_a_real_32_bit_program(output: Path, tmp_path: Path) -> None:
    source = tmp_path / "tiny.S"
    source.write_text(".globl _start\n_start: mov $1, %eax\nint $0x80\n")
    done = subprocess.run(
        ["gcc", "-m32", "-nostdlib", "-static", "-o", tmp_path / "tiny", source], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("gcc -m32 cannot link: apt-get install gcc-multilib")
    refused(archlbr("record", "-o", output, "--", tmp_path / "tiny"), output, "32-bit")


def test_a_missing_interpreter(guests: Guests, output: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    content = guests.hello.read_bytes()
    found = content.count(b"/lib64/ld-linux-x86-64.so.2\0")
    assert found == 1
    program.write_bytes(content.replace(b"/lib64/ld-linux-x86-64.so.2\0", b"/lib64/ld-missing-x86-64.so\0"))
    program.chmod(0o755)
    refused(archlbr("record", "-o", output, "--", program), output, "/lib64/ld-missing-x86-64.so", "interpreter")


def test_a_script_whose_interpreter_is_missing(output: Path, tmp_path: Path) -> None:
    program = tmp_path / "script"
    program.write_text("#!/no/such/shell\n")
    program.chmod(0o755)
    refused(archlbr("record", "-o", output, "--", program), output, "/no/such/shell")


def test_no_execute_right(guests: Guests, output: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copyfile(guests.hello, program)
    program.chmod(0o644)
    refused(archlbr("record", "-o", output, "--", program), output, str(program), "chmod +x")


def test_a_directory(output: Path, tmp_path: Path) -> None:
    refused(archlbr("record", "-o", output, "--", tmp_path), output, str(tmp_path))


@pytest.mark.parametrize("name", ["no-such-program-anywhere", "./no-such-program"])
def test_no_such_program(name: str, output: Path) -> None:
    refused(archlbr("record", "-o", output, "--", name), output, name)


def test_no_program_at_all(output: Path) -> None:
    refused(archlbr("record", "-o", output), output)


@pytest.mark.parametrize("period", ["0", "-5", "many", "1.5"])
def test_a_period_that_is_none(period: str, output: Path) -> None:
    refused(archlbr("record", "-c", period, "-o", output, "--", "true"), output)


def test_an_unknown_filter(output: Path) -> None:
    refused(archlbr("record", "-j", "any_branch", "-o", output, "--", "true"), output, "any_branch", "any_call")


def test_an_unknown_format(output: Path) -> None:
    refused(archlbr("record", "--format", "gprof", "-o", output, "--", "true"), output, "gprof", "preagg")


@pytest.mark.parametrize("verb", ["record", "trace"])
def test_an_output_in_no_folder(verb: str, tmp_path: Path) -> None:
    output = tmp_path / "missing" / "perf.data"
    ended = run(archlbr(verb, "-o", output, "--", "echo", "ran"))
    assert (ended.status, ended.out, ended.err.count(b"\n")) == (2, b"", 1), ended
    assert str(output).encode() in ended.err
    assert not output.parent.exists()


@pytest.mark.parametrize("verb", ["record", "trace"])
def test_an_output_that_is_a_folder(verb: str, tmp_path: Path) -> None:
    ended = run(archlbr(verb, "-o", tmp_path, "--", "echo", "ran"))
    assert (ended.status, ended.out, ended.err.count(b"\n")) == (2, b"", 1), ended
    assert str(tmp_path).encode() in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["record", "trace"])
def test_a_disk_that_is_full(verb: str, guests: Guests) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    ended = run(archlbr(verb, "-o", "/dev/full", "--", guests.kmini))
    lines = ended.err.decode().splitlines()
    assert ended.status == 2
    assert len(lines) == 1, ended
    assert "/dev/full" in lines[0]
    assert os.path.exists("/dev/full")


def test_a_program_that_needs_avx(guests: Guests, output: Path) -> None:
    ended = record("-o", output, "--", guests.avx)
    assert (ended.status, ended.out) == (128 + 4, b""), ended  # SIGILL, as from a processor without AVX
    (line,) = ended.err.decode().splitlines()
    assert line.startswith(f"archlbr: {guests.avx} uses AVX")
