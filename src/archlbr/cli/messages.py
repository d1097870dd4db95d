"""What is said on stderr: one line, whatever it holds.

`app` says why a verb failed, `report` and `diff` what they left out.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

# How many files of another build are named.
_TOLD = 3


def complain(message: str) -> None:
    """Print one line on stderr, whatever the message holds: what steers a terminal is spelled out."""
    line = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in " ".join(message.split()))
    try:
        sys.stderr.write(f"archlbr: {line}\n")
        sys.stderr.flush()
    except OSError:
        return  # nobody listens


def tell_other_builds(paths: Collection[str]) -> None:
    """Say on stderr, in a line, whose names are left out since the file here is not the one that ran."""
    first = ", ".join(sorted(paths)[:_TOLD]) + (f" and {len(paths) - _TOLD} more" if len(paths) > _TOLD else "")
    complain(f"another build is here than the one that ran, so its names are left out: {first}; perf archive brings it")
