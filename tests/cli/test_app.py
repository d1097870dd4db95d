"""The command's frame: help, version, and each way to go wrong as one line with the right status."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from archlbr import __version__
from archlbr.cli import app
from archlbr.cli.record import PERIOD
from archlbr.errors import InputError
from tests.cli.shell import archlbr


def test_the_version_is_the_package_s() -> None:
    assert archlbr("--version") == (0, f"archlbr {__version__}\n", "")


def test_help_lists_each_verb_with_its_sentence() -> None:
    ran = archlbr("--help")
    assert (ran.status, ran.err) == (0, "")
    listed = ran.out.partition("Commands:\n")[2].splitlines()
    assert "  decode    Put a register, a component-15 image or CPUID leaves in words." in listed
    verbs = {command.name for command in app.app.registered_commands}
    assert {line.split()[0] for line in listed if line[2:3].strip()} == verbs


@pytest.mark.parametrize(
    ("words", "named", "command"),
    [
        ([], "", "archlbr"),
        (["valid"], "'valid'", "archlbr"),
        (["decode", "--no-such"], "--no-such", "archlbr decode"),
        (["decode", "1", "2", "3"], "(3)", "archlbr decode"),
        (["report", "-n", "0"], "'-n'", "archlbr report"),
        (["probe", "--format", "xml"], "'xml'", "archlbr probe"),
    ],
)
def test_wrong_use_is_one_line_that_names_the_word_and_status_2(words: list[str], named: str, command: str) -> None:
    ran = archlbr(*words)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith("archlbr: ")
    assert named in ran.err
    assert ran.err.endswith(f" (see '{command} --help')\n")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom archlbr.cli import main\n"
        "status = main(['--help'])\n"
        "heavy = {'numpy', 'numba', 'capstone', 'unicorn', 'rich', 'elftools', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'{status} {sorted(heavy)}')"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.stderr == "0 []\n"


@pytest.mark.parametrize(
    ("verb", "words", "option", "program"),
    [
        ("record", ["ls", "-l", "/usr"], PERIOD, ["ls", "-l", "/usr"]),
        ("record", ["-c", "7", "ls", "-c", "9"], 7, ["ls", "-c", "9"]),
        ("record", ["-c", "7", "--", "ls", "--", "-c"], 7, ["ls", "--", "-c"]),
        ("record", ["--", "-odd", "-c", "9"], PERIOD, ["-odd", "-c", "9"]),
        ("trace", ["ls", "-o", "file"], None, ["ls", "-o", "file"]),
        ("trace", ["-o", "t.txt", "ls", "-o", "file"], "t.txt", ["ls", "-o", "file"]),
    ],
)
def test_a_verb_that_takes_a_program_leaves_its_words_alone(
    verb: str, words: list[str], option: object, program: list[str]
) -> None:
    group: Any = typer.main.get_command(app.app)
    with (
        group.make_context("archlbr", [verb, *words]) as top,
        group.commands[verb].make_context(verb, words, top) as run,
    ):
        assert (run.params["period" if verb == "record" else "output"], run.params["program"]) == (option, program)


def test_a_message_of_several_lines_is_printed_as_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_words: list[str]) -> int:
        raise InputError("first\n  second")

    monkeypatch.setattr(app, "run", refuse)
    assert app.main([]) == 2
    assert capsys.readouterr() == ("", "archlbr: first second\n")


def test_an_error_of_ours_is_not_dressed_up_as_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_words: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(app, "run", fail)
    with pytest.raises(ZeroDivisionError):
        app.main([])


def test_a_reader_that_goes_away_ends_the_run_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [sys.executable, "-m", "archlbr", "decode", "14ce", "1"], stdout=writing, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (141, b"")


DISK_FULL = b"archlbr: cannot write the output: No space left on device; make room, or write elsewhere\n"


def test_a_full_disk_is_one_line() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("/dev/full is not there")
    with full.open("wb") as stream:
        ran = subprocess.run(
            [sys.executable, "-m", "archlbr", "decode", "14ce", "1"], stdout=stream, stderr=subprocess.PIPE, timeout=60
        )
    assert (ran.returncode, ran.stderr) == (2, DISK_FULL)


@pytest.mark.parametrize("refusal", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_a_host_without_memory_is_one_line(
    refusal: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_words: list[str]) -> int:
        raise refusal

    monkeypatch.setattr(app, "run", fail)
    assert app.main([]) == 2
    assert capsys.readouterr() == ("", f"archlbr: {app.NO_MEMORY}\n")


def test_a_name_that_is_no_text_is_printed_all_the_same() -> None:
    program = "from archlbr.cli import app\napp.run = lambda words: print(words[0])\napp.main([chr(0xDC80)])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "\\udc80\n", "")


def test_an_interrupt_is_status_130(tmp_path: Path) -> None:
    pipe = tmp_path / "never"
    os.mkfifo(pipe)
    run = subprocess.Popen(
        [sys.executable, "-m", "archlbr", "decode", "--xsave", str(pipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    # Opening the pipe returns once the command has opened it, too.
    with pipe.open("wb"):
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (130, b"", b"")
