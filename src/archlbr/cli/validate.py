"""`archlbr validate`: whether a profile's stacks are paths a program can take, and what other tools will say of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from archlbr.cli.formats import Format

if TYPE_CHECKING:
    from archlbr.profile.complaints import Complaint
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
    """Check that a profile's branch stacks are paths a program can take; exit with 1 when they are not.

    Also says what BOLT, llvm-profgen, AutoFDO or perf will complain of, or pass over in silence, and what to do.
    """
    from archlbr.profile.complaints import complaints
    from archlbr.profile.perfdata.reader import Reader
    from archlbr.profile.validate import validate as check

    with Reader(file) as profile:
        verdict = check(profile, disassemble)
        said = complaints(profile)
    print(as_json(verdict, said) if form is Format.JSON else as_text(verdict, said))
    return 0 if verdict.holds else 1


def as_text(verdict: Verdict, said: list[Complaint]) -> str:
    """Return a count a line, a complaint a line, and a closing line that says what the counts mean."""
    counts = asdict(verdict)
    width = max(len(str(counts[name])) for name in WORDS)
    lines = [f"{counts[name]:>{width}}  {words}" for name, words in WORDS.items()]
    lines += [str(complaint) for complaint in said]
    if not verdict.complete:
        return "\n".join([*lines, "not checked: the filter leaves branches out, so that gaps are no faults"])
    return "\n".join([*lines, "holds" if verdict.holds else "violated"])


def as_json(verdict: Verdict, said: list[Complaint]) -> str:
    """Return the `validate` document of docs/formats.md."""
    word = "unchecked" if not verdict.complete else "holds" if verdict.holds else "violated"
    counts = asdict(verdict)
    document = {
        "version": VERSION,
        "verdict": word,
        **{name: counts[name] for name in WORDS},
        "complaints": [complaint._asdict() for complaint in said],
    }
    return json.dumps(document, indent=2)
