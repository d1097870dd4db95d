"""`--engine`: which engine runs, what each needs, and that a missing one is refused in one line."""

from __future__ import annotations

import importlib.util
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from archlbr.cli.engines import decide, hole
from archlbr.cpu.contents import Contents, contents
from archlbr.guest.linking import Linking, linking
from archlbr.sources import cache_folder
from tests.cli.recording import archlbr, run, stats

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests

NEEDS_QEMU = pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-x86_64 is not installed")
NEEDS_FRIDA = pytest.mark.skipif(importlib.util.find_spec("frida") is None, reason="frida is not installed")


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


@NEEDS_QEMU
def test_auto_says_which_engine_runs_and_why(guests: Guests, tmp_path: Path) -> None:
    ended = run(archlbr("trace", "--engine", "auto", "--stats", "-o", tmp_path / "out", "--", guests.hello))
    told = ended.err.splitlines(keepends=True)
    assert told[0] == b"archlbr: runs on qemu: exact for the whole program, and fast\n"
    assert stats(ended.err)["engine"] == "qemu"


def test_auto_does_without_qemu(guests: Guests, tmp_path: Path) -> None:
    extra = {"PATH": only(tmp_path / "bin")}
    ended = run(archlbr("trace", "--engine", "auto", "-o", tmp_path / "out", "--", guests.known), extra=extra)
    because = b"exact for the whole program; not qemu: qemu-x86_64 is not installed"
    assert ended.err == b"archlbr: runs on unicorn: " + because + b"\n"


@NEEDS_FRIDA
def test_auto_runs_floating_point_on_stalker(guests: Guests, tmp_path: Path) -> None:
    words = archlbr("record", "--engine", "auto", "--stats", "-o", tmp_path / "out", "--", guests.bodies, "1", "100")
    ended = run(words)
    assert ended.status == 17
    because = rb"the program computes in floating point \(\d+ % of its instructions\); recorded from main to exit"
    assert re.match(rb"archlbr: runs on stalker: " + because + rb"\n", ended.err)
    assert stats(ended.err)["engine"] == "stalker"


MAIN = Linking(False, ("libc.so.6", "libm.so.6"), frozenset({"__libc_start_main", "sqrt"}))
INTEGER, FLOATING, WIDE = Contents(1000, 39), Contents(1000, 40), Contents(1000, 0, 1)
PERCENT = "computes in floating point (4 % of its instructions)"
NOT = f"; the program {PERCENT}, and this engine is slow at that, but not stalker: "
EXACT = "exact for the whole program, and fast"


@pytest.mark.parametrize(
    ("program", "made_of", "qemu", "stalker", "choice"),
    [
        (MAIN, INTEGER, "", "", ("qemu", EXACT)),
        (MAIN, INTEGER, "gone", "", ("unicorn", "exact for the whole program; not qemu: gone")),
        (MAIN, FLOATING, "", "", ("stalker", f"the program {PERCENT}; recorded from main to exit")),
        (MAIN, WIDE, "", "", ("stalker", "the program uses AVX; recorded from main to exit")),
        (MAIN, FLOATING, "", "gone", ("qemu", f"{EXACT}{NOT}gone")),
        (MAIN, FLOATING, "gone", "lost", ("unicorn", f"exact for the whole program; not qemu: gone{NOT}lost")),
        (MAIN._replace(static=True), FLOATING, "", "", ("qemu", f"{EXACT}{NOT}it is static")),
        (
            MAIN._replace(imports=frozenset()),
            FLOATING,
            "",
            "",
            ("qemu", f"{EXACT}{NOT}it has no main that a C library calls"),
        ),
        (
            MAIN._replace(needed=("libc.so.6", "libz.so.1")),
            FLOATING,
            "",
            "",
            ("qemu", f"{EXACT}{NOT}it needs libz.so.1, which may do what Stalker cannot follow"),
        ),
        (MAIN, FLOATING._replace(barred=1), "", "", ("qemu", f"{EXACT}{NOT}it begins transactions, or moves GS or FS")),
        (MAIN, FLOATING._replace(calls=1), "", "", ("qemu", f"{EXACT}{NOT}it may call the kernel itself")),
        (
            MAIN,
            WIDE._replace(barred=1),
            "",
            "",
            (
                "qemu",
                f"{EXACT}; the program uses AVX, and this engine has no AVX, but not stalker: "
                "it begins transactions, or moves GS or FS",
            ),
        ),
    ],
)
def test_the_policy(program: Linking, made_of: Contents, qemu: str, stalker: str, choice: tuple[str, str]) -> None:
    assert decide(program, made_of, qemu, stalker) == choice


@pytest.mark.parametrize(
    ("name", "deed"),
    [
        ("fork", "fork"),
        ("execve", "execute another program"),
        ("sigaction", "handle signals"),
        ("dlopen", "load libraries"),
        ("mprotect", "make code"),
        ("pthread_cancel", "cancel threads"),
        ("setuid", "change its user"),
        ("syscall", "call the kernel itself"),
    ],
)
def test_what_a_program_imports_keeps_it_from_stalker(name: str, deed: str) -> None:
    program = MAIN._replace(imports=MAIN.imports | {name})
    assert hole(program, FLOATING) == f"it may {deed} ({name})"
    assert decide(program, FLOATING, "", "").engine == "qemu"
    assert decide(program, INTEGER, "", "").why == EXACT


def test_a_program_s_own_file_tells(guests: Guests) -> None:
    linked = linking(str(guests.steps))
    assert not linked.static
    assert linked.needed == ("libc.so.6",)
    assert {"fork", "execl", "pthread_create", "__libc_start_main"} <= linked.imports
    made_of = contents(linked.text)
    assert (made_of.barred, made_of.calls, made_of.wide) == (4, 1, 0)
    assert contents(linking(str(guests.avx)).text).wide > 0
    assert linking(str(guests.hello_static)).static
    assert linking("/dev/null") == Linking()


@pytest.mark.parametrize(("asked", "ran"), [("unicorn", "unicorn"), ("qemu", "qemu")])
def test_the_statistics_name_the_engine_that_ran(asked: str, ran: str, guests: Guests, tmp_path: Path) -> None:
    if asked == "qemu" and shutil.which("qemu-x86_64") is None:
        pytest.skip("qemu-x86_64 is not installed")
    ended = run(archlbr("record", "--engine", asked, "--stats", "-o", tmp_path / "out", "--", guests.known))
    assert ended.status == 0
    assert stats(ended.err)["engine"] == ran
    wrote, told = ended.err.splitlines()
    assert wrote.startswith(b"[ archlbr record: wrote")
    assert told.startswith(b"stats: instructions=40 branches=9 ")
