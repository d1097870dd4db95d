"""Run `archlbr` as its entry point does: words in, exit status and what it wrote out."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from archlbr.cli import main


class Ran(NamedTuple):
    """What a run left: its exit status and what it wrote."""

    status: int
    out: str
    err: str


def archlbr(*words: str, stdin: str = "") -> Ran:
    """Run the command with these words and text on standard input."""
    with pytest.MonkeyPatch.context() as patch, io.StringIO() as out, io.StringIO() as err:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with redirect_stdout(out), redirect_stderr(err):
            status = main(words)
        return Ran(status, out.getvalue(), err.getvalue())
