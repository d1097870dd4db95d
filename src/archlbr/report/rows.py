"""What a row of a report is: apart from what makes it, so that `archlbr --help` need not import that.

Asked for by the command, shown by `terminal`. Ours.
"""

from __future__ import annotations

from enum import StrEnum


class By(StrEnum):
    """What a row of the table is."""

    BRANCH = "branch"
    FUNCTION = "function"
    EDGE = "edge"
    LINE = "line"
    KIND = "kind"
    STACK = "stack"
