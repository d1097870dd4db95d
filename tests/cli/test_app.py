"""The command's frame: help, version, and each way to go wrong as one line with the right status."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer

from archlbr import __version__
from archlbr.cli import app
from archlbr.errors import InputError
from tests.cli.shell import archlbr


def test_the_version_is_the_package_s() -> None:
    assert archlbr("--version") == (0, f"archlbr {__version__}\n", "")


def test_help_lists_each_verb_with_its_sentence() -> None:
    ran = archlbr("--help")
    assert (ran.status, ran.err) == (0, "")
    listed = ran.out.partition("Commands:\n")[2].splitlines()
    assert "  decode    Put a register, a component-15 image or CPUID leaves in words." in listed
    assert {line.split()[0] for line in listed if line[2:3].strip()} >= {"decode", "probe", "report", "validate"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing command. (see 'archlbr --help')"),
        (["valid"], "No such command 'valid'. Did you mean 'validate'? (see 'archlbr --help')"),
        (["decode", "--no-such"], "No such option: --no-such (see 'archlbr decode --help')"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(words: list[str], said: str) -> None:
    assert archlbr(*words) == (2, "", f"archlbr: {said}\n")


@pytest.mark.parametrize("words", [["report", "-n", "0"], ["decode", "1", "2", "3"], ["probe", "--format", "xml"]])
def test_what_the_parser_refuses_in_its_own_words_is_one_line_too(words: list[str]) -> None:
    ran = archlbr(*words)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith("archlbr: ")
    assert ran.err.endswith(f" (see 'archlbr {words[0]} --help')\n")


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
    ("words", "period", "program"),
    [
        (["ls", "-l", "/usr"], 1, ["ls", "-l", "/usr"]),
        (["-c", "7", "ls", "-c", "9"], 7, ["ls", "-c", "9"]),
        (["-c", "7", "--", "ls", "--", "-c"], 7, ["ls", "--", "-c"]),
        (["--", "-odd", "-c", "9"], 1, ["-odd", "-c", "9"]),
    ],
)
def test_a_verb_that_takes_a_program_leaves_its_words_alone(words: list[str], period: int, program: list[str]) -> None:
    seen: list[object] = []
    taking = typer.Typer()

    @taking.callback()
    def nothing() -> None:
        """Make the other one a verb."""

    @taking.command("run", context_settings=app.TAKES_A_PROGRAM)
    def run(command: list[str], count: Annotated[int, typer.Option("-c")] = 1) -> None:
        seen.append((count, command))

    parser = typer.main.get_command(taking)
    with parser.make_context("taking", ["run", *words]) as context:
        parser.invoke(context)
    assert seen == [(period, program)]


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
    said = capsys.readouterr().err
    assert (said[:61], said.count("\n")) == ("archlbr: this host has too little memory for that, or a limit", 1)


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
