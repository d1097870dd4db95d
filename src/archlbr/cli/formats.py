"""The two forms a result is printed in."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """How the result is printed: for people, or for programs (docs/formats.md)."""

    TEXT = "text"
    JSON = "json"
