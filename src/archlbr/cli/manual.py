"""Manual pages made from the help: one for the command, one a verb.

`make man` runs `python -m archlbr.cli.manual FOLDER`; the text is what `--help` has, so that the two cannot differ.
Authority: man(7).
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import typer

from archlbr import __version__
from archlbr.cli.app import app

STATUS = (
    ("0", "Done, or what was checked holds. record and trace exit as the program did, 128 + N when signal N ended it."),
    ("1", "What was checked is violated, or has failed."),
    ("2", "Wrong use or bad input: one line on stderr says what to do."),
)


def pages() -> dict[str, str]:
    """Return each page's file name and its text."""
    group: Any = typer.main.get_command(app)  # typer's parser has no public types
    out = {}
    with group.make_context("archlbr", [], resilient_parsing=True) as top:
        verbs = {name: group.get_command(top, name) for name in group.list_commands(top)}
        listed = [(name, _first_sentence(verb)) for name, verb in verbs.items()]
        out["archlbr.1"] = _page("archlbr", str(group.help), group, top, verbs=listed)
        for name, verb in verbs.items():
            with verb.make_context(name, [], parent=top, resilient_parsing=True) as context:
                out[f"archlbr-{name}.1"] = _page(f"archlbr {name}", inspect.cleandoc(verb.help or ""), verb, context)
    return out


def _page(name: str, text: str, command: Any, context: Any, verbs: list[tuple[str, str]] | None = None) -> str:
    file = name.replace(" ", "-")
    first, *rest = text.split("\n\n")
    lines = [
        f'.TH {_quoted(file.upper())} 1 "" {_quoted(f"archlbr {__version__}")} "User Commands"',
        ".SH NAME",
        f"{_escaped(file)} \\- {_escaped(_sentence(first))}",
        ".SH SYNOPSIS",
        f".B {_escaped(name)}",
        _escaped(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        _escaped(" ".join(first.split())),
    ]
    for paragraph in rest:
        lines += [".PP", _escaped(" ".join(paragraph.split()))]
    arguments = [row for row in command.params if row.param_type_name == "argument"]
    options = [row for row in command.get_params(context) if row.param_type_name == "option"]
    if arguments:
        lines.append(".SH ARGUMENTS")
        lines += _items(arguments, context)
    lines += [".SH OPTIONS", *_items(options, context)]
    if verbs is not None:
        lines.append(".SH VERBS")
        for verb, said in verbs:
            lines += _item(f"archlbr {verb}", said)
    lines.append(".SH EXIT STATUS")
    for number, meaning in STATUS:
        lines += _item(number, meaning)
    lines.append(".SH SEE ALSO")
    others = [f"archlbr-{verb}" for verb, _ in verbs] if verbs is not None else ["archlbr"]
    lines.append(", ".join(f"\\fB{_escaped(other)}\\fP(1)" for other in [*others, "perf-record", "perf-report"]))
    return "\n".join([*lines, ""])


def _items(parameters: list[Any], context: Any) -> list[str]:
    # A hidden parameter has no record.
    records = [row.get_help_record(context) for row in parameters]
    return [line for record in records if record is not None for line in _item(*record)]


def _item(term: str, text: str) -> list[str]:
    return [".TP", f".B {_escaped(term)}", _escaped(" ".join(text.split())) or "\\&"]


def _first_sentence(command: Any) -> str:
    return _sentence(inspect.cleandoc(command.help or "").split("\n\n")[0])


def _sentence(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _escaped(text: str) -> str:
    # A backslash and a minus mean something in roff, and so do a dot and a quote at a line's start.
    out = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{out}" if out.startswith((".", "'")) else out


def _quoted(text: str) -> str:
    return '"' + _escaped(text).replace('"', "\\(dq") + '"'


def main(words: list[str]) -> int:
    """Write the pages into a folder and return the exit status."""
    folder = Path(words[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
    print(f"man -l {folder / 'archlbr.1'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
