"""The `archlbr` command: names the verbs, and turns what goes wrong into one line and an exit status.

The shell feeds it, the verbs' own files do the work. Exit status: what the verb returns; 2 for wrong use or bad input;
130 after Ctrl-C; 141 when the reader of a pipe has gone, as a shell reports it. The verbs' files import what is heavy
inside their functions, so that `archlbr --help` is quick.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from archlbr import __version__
from archlbr.cli import (
    check,
    conform,
    contract,
    decode,
    diff,
    migrate,
    probe,
    record,
    replay,
    report,
    restore,
    snapshot,
    trace,
    validate,
)
from archlbr.cli import run as machine
from archlbr.cli.arguments import spell_out_branch_flag
from archlbr.cli.isolation import ISOLATED, divide
from archlbr.cli.messages import complain
from archlbr.errors import InputError

INTERRUPTED = 128 + 2  # SIGINT
PIPE_CLOSED = 128 + 13  # SIGPIPE
WRONG_USE = 2
# The shell's completion asks through this variable (`archlbr --show-completion`).
COMPLETE = "_ARCHLBR_COMPLETE"
NO_MEMORY = "this host has too little memory for that, or a limit is set; end other programs, or raise it (ulimit -v)"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

ENDS_AT_ONCE = ("record", "trace")

# A program and its arguments follow: options end at the first word that is none, as in `perf record ls -l`.
TAKES_A_PROGRAM = {"allow_interspersed_args": False}

app = typer.Typer(
    name="archlbr",
    help="Architectural LBR for virtual machines: record the branches of real x86-64 code on any computer.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def print_version(wanted: bool) -> None:
    """Print the version and end, when `--version` was given."""
    if wanted:
        typer.echo(f"archlbr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Record the branches of real x86-64 code, and look at Architectural LBR state, on any computer."""


# One line a verb. A verb that runs a program is registered with `context_settings=TAKES_A_PROGRAM`.
app.command("record", context_settings=TAKES_A_PROGRAM)(record.record)
app.command("trace", context_settings=TAKES_A_PROGRAM)(trace.trace)
app.command("check")(check.check)
app.command("conform")(conform.conform)
app.command("contract")(contract.contract)
app.command("decode")(decode.decode)
app.command("diff")(diff.diff)
app.command("migrate")(migrate.migrate)
app.command("probe")(probe.probe)
app.command("replay")(replay.replay)
app.command("report")(report.report)
app.command("restore")(restore.restore)
app.command("run")(machine.run)
app.command("snapshot")(snapshot.snapshot)
app.command("validate")(validate.validate)


def wrong_use(error: typer.TyperException) -> str:
    """Return what the parser has against the command line, and where the options are listed."""
    # The parser's errors have format_message() and ctx; the public root class promises neither.
    text = getattr(error, "format_message", error.__str__)()
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "archlbr"
    return f"{text} (see '{path} --help')"


def silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush cannot fail again."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.close(devnull)


def run(arguments: list[str]) -> int:
    """Run one verb and return its exit status; what goes wrong is raised."""
    command = typer.main.get_command(app)
    if asked := os.environ.get(COMPLETE):
        from typer.completion import shell_complete

        return shell_complete(command, {}, "archlbr", COMPLETE, asked)
    try:
        with command.make_context("archlbr", arguments) as context:
            result = command.invoke(context)
    except typer.Exit as leave:
        result = leave.exit_code
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `archlbr` with the given arguments (the process's own when None) and return the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name may hold bytes that are no text; a profile shows it all the same.
        sys.stdout.reconfigure(errors="backslashreplace")
    words = spell_out_branch_flag(list(sys.argv[1:] if arguments is None else arguments))
    if arguments is None and words[:1] and words[0] in ISOLATED:
        status = divide(words)
        if status is not None:
            return status
    try:
        return run(words)
    except InputError as error:
        complain(str(error))
        return WRONG_USE
    except typer.TyperException as error:
        complain(wrong_use(error))
        return WRONG_USE
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        silence_stdout()
        return PIPE_CLOSED
    except MemoryError:
        complain(NO_MEMORY)
        return WRONG_USE
    except OSError as refusal:
        if refusal.errno == errno.ENOMEM:
            complain(NO_MEMORY)
            return WRONG_USE
        if refusal.errno not in DISK_FULL:
            raise
        silence_stdout()
        complain(f"cannot write {refusal.filename or 'the output'}: {refusal.strerror}; make room, or write elsewhere")
        return WRONG_USE


def command() -> NoReturn:
    """Run `archlbr` as the shell's command, and end the process with its exit status.

    After a recording the process ends at once: to take compiled code and its memory apart would cost a tenth of a
    second, and the kernel does it anyway. Files are whole by then, and temporary folders gone.
    """
    status = main()
    if sys.argv[1:2] and sys.argv[1] in ENDS_AT_ONCE:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    raise SystemExit(status)
