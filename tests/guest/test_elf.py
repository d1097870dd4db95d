"""What execve makes of a file: the refusals, the #! lines, and the host's own kernel asked the same."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from archlbr.guest.elf import Image, Program, Refusal, Segment, find_program, read_image, resolve

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests

LOAD, INTERP, STACK = 1, 3, 0x6474E551


def elf(
    *segments: bytes, bits: int = 2, machine: int = 62, kind: int = 2, order: str = "<", phentsize: int = 56
) -> bytes:
    """Return an ELF header and program headers (System V ABI, chapter 4 and 5)."""
    ident = b"\x7fELF" + bytes([bits, 1 if order == "<" else 2, 1]) + bytes(9)
    fields = (kind, machine, 1, 0x400080, 64, 0, 0, 64, phentsize, len(segments), 64, 0, 0)
    return ident + struct.pack(order + "HHIQQQIHHHHHH", *fields) + b"".join(segments)


def segment(kind: int, flags: int, offset: int, vaddr: int, filesz: int, memsz: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, offset, vaddr, vaddr, filesz, memsz, 4096)


CODE = segment(LOAD, 5, 0, 0x400000, 200, 200)


class Case(NamedTuple):
    """A file's content and why it is refused; native: whether the kernel's errno is the same."""

    content: bytes
    errno: int
    sentence: str
    native: bool = True


CASES = {
    "empty": Case(b"", errno.ENOEXEC, "{} is not an ELF program; give an x86-64 Linux executable"),
    "text": Case(b"echo", errno.ENOEXEC, "{} is not an ELF program; give an x86-64 Linux executable"),
    "cut before the machine": Case(
        elf(CODE)[:19], errno.ENOEXEC, "{} is cut off after 19 bytes; build or fetch it again"
    ),
    "cut in the header": Case(elf(CODE)[:63], errno.ENOEXEC, "{} is cut off after 63 bytes; build or fetch it again"),
    "cut in the program headers": Case(
        elf(CODE)[:119], errno.ENOEXEC, "{} is cut off in its program headers; build or fetch it again", False
    ),
    "32-bit x86": Case(
        elf(bits=1, machine=3), errno.ENOEXEC, "{} is a program for 32-bit x86; give one built for x86-64", False
    ),
    "x32": Case(elf(bits=1), errno.ENOEXEC, "{} is a 32-bit program (x32); give a 64-bit one", False),
    "AArch64": Case(elf(machine=183), errno.ENOEXEC, "{} is a program for AArch64; give one built for x86-64", False),
    "big-endian PowerPC64": Case(
        elf(machine=21, order=">"), errno.ENOEXEC, "{} is a program for PowerPC64; give one built for x86-64", False
    ),
    "a machine without a name here": Case(
        elf(machine=2), errno.ENOEXEC, "{} is a program for machine 2; give one built for x86-64", False
    ),
    "object file": Case(
        elf(CODE, kind=1), errno.ENOEXEC, "{} is an ELF file of type 1, not an executable; link it first"
    ),
    "core": Case(elf(CODE, kind=4), errno.ENOEXEC, "{} is an ELF file of type 4, not an executable; link it first"),
    "no program headers": Case(elf(), errno.ENOEXEC, "{} has damaged program headers; build or fetch it again"),
    "program headers of another size": Case(
        elf(CODE, phentsize=32), errno.ENOEXEC, "{} has damaged program headers; build or fetch it again"
    ),
    "nothing to load": Case(
        elf(segment(STACK, 6, 0, 0, 0, 0)), errno.ENOEXEC, "{} has nothing to load; give an executable", False
    ),
    "more in the file than in memory": Case(
        elf(segment(LOAD, 5, 0, 0x400000, 200, 100)),
        errno.ENOEXEC,
        "{} has a damaged segment at 0x400000; build it again",
        False,
    ),
    "beyond the end of user space": Case(
        elf(segment(LOAD, 5, 0, 0x7FFFFFFFF000, 4096, 8192)),
        errno.ENOEXEC,
        "{} has a damaged segment at 0x7ffffffff000; build it again",
        False,
    ),
    "offset and address out of step": Case(
        elf(segment(LOAD, 5, 16, 0x400000, 100, 100)),
        errno.ENOEXEC,
        "{} has a damaged segment at 0x400000; build it again",
        False,
    ),
    "segment after the end": Case(
        elf(CODE), errno.ENOEXEC, "{} is cut off: a segment ends after the file's 120 bytes", False
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_that_is_no_program(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = write(tmp_path / "file", case.content)
    assert read_image(path) == Refusal(case.errno, case.sentence.format(path))
    assert resolve(path, (b"file",)) == Refusal(case.errno, case.sentence.format(path))


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].native])
def test_the_kernel_gives_the_same_errno(name: str, tmp_path: Path) -> None:
    assert native_errno(write(tmp_path / "file", CASES[name].content)) == CASES[name].errno


def write(path: Path, content: bytes, mode: int = 0o755) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def native_errno(path: str) -> int:
    try:
        subprocess.run([path], check=False, timeout=60, capture_output=True)
    except OSError as error:
        return error.errno or 0
    return 0


def test_files_that_may_not_be_run(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", elf(CODE), 0o644)
    missing = str(tmp_path / "missing")
    below = plain + "/file"
    for path, number, sentence in (
        (str(tmp_path), errno.EACCES, "cannot run {}: it is not a regular file; name an executable"),
        (plain, errno.EACCES, "cannot run {}: no execute permission; chmod +x it"),
        ("/dev/null", errno.EACCES, "cannot run {}: it is not a regular file; name an executable"),
        (missing, errno.ENOENT, "cannot run {}: No such file or directory"),
        (below, errno.ENOTDIR, "cannot run {}: Not a directory"),
    ):
        assert resolve(path, (b"x",)) == Refusal(number, sentence.format(path))
        assert native_errno(path) == number
    assert read_image(missing) == Refusal(errno.ENOENT, f"cannot read {missing}: No such file or directory")


def test_what_is_read_of_a_program(tmp_path: Path) -> None:
    content = elf(
        CODE,
        segment(LOAD, 6, 200, 0x6010C8, 10, 0x2000),
        segment(LOAD, 4, 0, 0x700000, 0, 0),
        segment(INTERP, 4, 400, 0x400190, 9, 9),
        segment(STACK, 6, 0, 0, 0, 0),
        kind=3,
    )
    path = write(tmp_path / "file", content.ljust(400, b"\0") + b"/lib/ld\0\0")
    image = read_image(path)
    assert image == Image(
        path,
        3,
        0x400080,
        64,
        5,
        56,
        (Segment(5, 0, 0x400000, 200, 200), Segment(6, 200, 0x6010C8, 10, 0x2000)),
        "/lib/ld",
        0,
    )
    assert (image.low, image.high) == (0x400000, 0x604000)
    assert [part.protection for part in image.segments] == [5, 3]


@pytest.mark.parametrize(
    ("header", "executable"), [((), 1), ((segment(STACK, 7, 0, 0, 0, 0),), 1), ((segment(STACK, 6, 0, 0, 0, 0),), 0)]
)
def test_a_stack_is_executable_unless_the_program_says_otherwise(
    header: tuple[bytes, ...], executable: int, tmp_path: Path
) -> None:
    path = write(tmp_path / "file", elf(segment(LOAD, 5, 0, 0x400000, 100, 100), *header))
    image = read_image(path)
    assert isinstance(image, Image)
    assert image.executable_stack == executable


INTERPRETERS = {
    "missing": (None, errno.ENOENT, "install it, or link the program statically"),
    "no ELF": (b"text" * 20, errno.ELIBBAD, "{} is not an ELF program; give an x86-64 Linux executable"),
}


@pytest.mark.parametrize("name", INTERPRETERS)
def test_a_program_whose_interpreter_cannot_be_used(name: str, tmp_path: Path) -> None:
    content, number, advice = INTERPRETERS[name]
    interpreter = tmp_path / "ld"
    if content is not None:
        write(interpreter, content)
    text = os.fsencode(interpreter) + b"\0"
    program = elf(segment(LOAD, 5, 0, 0x400000, 300, 300), segment(INTERP, 4, 200, 0x4000C8, len(text), len(text)))
    path = write(tmp_path / "file", program.ljust(200, b"\0") + text.ljust(200, b"\0"))
    assert native_errno(path) == number
    assert resolve(path, (b"file",)) == Refusal(
        number,
        f"{path} needs the interpreter {interpreter}, which cannot be used: {advice.format(interpreter)}",
    )


@pytest.mark.parametrize(
    ("offset", "size", "number"),
    [(200, 3, errno.ENOEXEC), (200, 1, errno.ENOEXEC), (200, 4097, errno.ENOEXEC), (399, 40, None), (1 << 63, 9, None)],
    ids=["no zero at the end", "one byte", "longer than a path", "beyond the file", "beyond any file"],
)
def test_an_interpreter_s_name_that_is_damaged(offset: int, size: int, number: int | None, tmp_path: Path) -> None:
    program = elf(segment(LOAD, 5, 0, 0x400000, 300, 300), segment(INTERP, 4, offset, 0x4000C8, size, size))
    path = write(tmp_path / "file", program.ljust(200, b"\0") + b"/lib/ld\0".ljust(200, b"\0"))
    # Where the kernel reads past the file's end it says so, as EIO or EINVAL, not ENOEXEC.
    assert native_errno(path) in ((number,) if number else (errno.EIO, errno.EINVAL))
    said = f"{path} has a damaged name of its interpreter; build it again"
    assert resolve(path, (b"file",)) == Refusal(errno.ENOEXEC, said)


def test_an_interpreter_s_name_ends_at_its_first_zero(tmp_path: Path) -> None:
    named = b"/no/such/ld\0-x\0"
    program = elf(segment(LOAD, 5, 0, 0x400000, 300, 300), segment(INTERP, 4, 200, 0x4000C8, len(named), len(named)))
    path = write(tmp_path / "file", program.ljust(200, b"\0") + named.ljust(200, b"\0"))
    assert native_errno(path) == errno.ENOENT
    image = read_image(path)
    assert isinstance(image, Image)
    assert image.interpreter == "/no/such/ld"


@pytest.fixture(scope="module")
def show(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a program that prints its arguments, a null byte after each."""
    folder = tmp_path_factory.mktemp("show")
    (folder / "show.c").write_text(
        "#include <stdio.h>\nint main(int c, char **v) { for (int i = 0; i < c; i++) fwrite(v[i], 1, "
        "__builtin_strlen(v[i]) + 1, stdout); }\n"
    )
    subprocess.run(["gcc", "-o", folder / "show", folder / "show.c"], check=True, timeout=60)
    return str(folder / "show")


LINES = {
    "alone": b"#!SHOW\n",
    "an argument": b"#!SHOW -x\n",
    "the rest of the line is one argument": b"#!SHOW -x  -y z\t\n",
    "blanks all round": b"#! \t SHOW \t -x y \t \n",
    "no newline": b"#!SHOW -x",
    "no newline and no argument": b"#!SHOW",
    "carriage return in the argument": b"#!SHOW -x\r\n",
    "form feed in the argument": b"#!SHOW a\x0cb\n",
    "a zero behind the name": b"#!SHOW\0a b\n",
    "a zero in the argument": b"#!SHOW a \0b \n",
}


@pytest.mark.parametrize("name", LINES)
def test_a_script_s_arguments_are_the_kernel_s(name: str, show: str, tmp_path: Path) -> None:
    path = write(tmp_path / "script", LINES[name].replace(b"SHOW", show.encode()))
    argv = (b"called", b"one", b"two words", b"")
    done = subprocess.run(argv, executable=path, capture_output=True, check=True, timeout=60)
    program = resolve(path, argv)
    assert isinstance(program, Program)
    assert b"".join(word + b"\0" for word in program.argv) == done.stdout
    assert program.image.path == show


@pytest.mark.parametrize(
    ("line", "number", "sentence"),
    [
        (b"#!\n", errno.ENOEXEC, "{} names no interpreter after #!; write one there"),
        (b"#!  \t \n/bin/sh", errno.ENOEXEC, "{} names no interpreter after #!; write one there"),
        (b"#!/no/such/shell\n", errno.ENOENT, "cannot run /no/such/shell: No such file or directory"),
        (b"#!/bin/sh\r\n", errno.ENOENT, "{} ends its #! line with a carriage return; save it with Unix line ends"),
        (b"#!/dev/null\n", errno.EACCES, "cannot run /dev/null: it is not a regular file; name an executable"),
    ],
)
def test_a_script_that_cannot_be_run(line: bytes, number: int, sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path / "script", line)
    assert resolve(path, (b"x",)) == Refusal(number, sentence.format(path))
    assert native_errno(path) == number


@pytest.mark.parametrize("scripts", range(1, 9))
def test_scripts_that_run_scripts(scripts: int, show: str, tmp_path: Path) -> None:
    before = show
    for level in range(scripts):
        before = write(tmp_path / f"script{level}", f"#!{before}\n".encode())
    program = resolve(before, (b"x", b"last"))
    native = native_errno(before)
    if native:
        assert native == errno.ELOOP
        assert program == Refusal(errno.ELOOP, f"{before}: too many scripts that run scripts; name the program itself")
        return
    assert isinstance(program, Program)
    done = subprocess.run([b"x", b"last"], executable=before, capture_output=True, check=True, timeout=60)
    assert b"".join(word + b"\0" for word in program.argv) == done.stdout


def test_finding_a_program_as_a_shell_does(guests: Guests, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    write(first / "tool", b"", 0o644)
    write(second / "tool", b"")
    (first / "folder").mkdir()
    search = f"{first}:{second}"
    assert find_program("tool", search) == str(second / "tool")
    assert find_program("folder", search) is None
    assert find_program("./tool", search) == "./tool"
    assert find_program(str(first / "tool"), search) == str(first / "tool")
    assert find_program("absent", search) is None
