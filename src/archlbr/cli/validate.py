"""`archlbr validate`: whether a profile's branch stacks are paths a program can take."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from archlbr.cli.formats import Format

if TYPE_CHECKING:
    from archlbr.profile.validate import Verdict

VERSION = 1
# What the text says of each count, in the order it is printed.
WORDS = {
    "samples": "samples",
    "entries": "entries in their stacks",
    "unmapped": "entries with an end in no mapping",
    "pairs": "pairs of neighbours: one entry's TO, the next newer one's FROM",
    "backwards": "pairs whose TO lies after that FROM",
    "out_of_range": "pairs that are not in one mapping",
    "disassembled": "pairs whose instructions were read",
    "mismatched": "pairs that these instructions contradict",
}


def validate(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A perf.data with branch stacks.")] = "perf.data",
    disassemble: Annotated[
        bool, typer.Option("--disassemble/--no-disassemble", help="Read the instructions between two branches, too.")
    ] = True,
    form: Annotated[Format, typer.Option("--format", help="How to print the result.")] = Format.TEXT,
) -> int:
    """Check that a profile's branch stacks are paths a program can take; exit with 1 when they are not."""
    from archlbr.profile.perfdata.reader import Reader
    from archlbr.profile.validate import validate as check

    with Reader(file) as profile:
        verdict = check(profile, disassemble)
    print(as_json(verdict) if form is Format.JSON else as_text(verdict))
    return 0 if verdict.holds else 1


def as_text(verdict: Verdict) -> str:
    """Return a count a line, and a closing line that says what they mean."""
    counts = asdict(verdict)
    width = max(len(str(counts[name])) for name in WORDS)
    lines = [f"{counts[name]:>{width}}  {words}" for name, words in WORDS.items()]
    if not verdict.complete:
        return "\n".join([*lines, "not checked: the filter leaves branches out, so that gaps are no faults"])
    return "\n".join([*lines, "holds" if verdict.holds else "violated"])


def as_json(verdict: Verdict) -> str:
    """Return the `validate` document of docs/formats.md."""
    said = "unchecked" if not verdict.complete else "holds" if verdict.holds else "violated"
    counts = asdict(verdict)
    return json.dumps({"version": VERSION, "verdict": said, **{name: counts[name] for name in WORDS}}, indent=2)
