"""Read the files a command line names; `-` is standard input. What cannot be read is an InputError."""

from __future__ import annotations

import sys
from pathlib import Path

from archlbr.errors import InputError


def read_bytes(name: str) -> bytes:
    """Return a file's bytes, those of standard input for `-`; InputError when it cannot be read."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as refusal:
        raise InputError(f"{name}: {refusal.strerror}; name a file that can be read") from refusal


def read_text(name: str) -> str:
    """Return a file's text; InputError when it cannot be read or is not text."""
    try:
        return read_bytes(name).decode("utf-8")
    except UnicodeDecodeError as refusal:
        raise InputError(f"{name}: not text (byte {refusal.start}); name a text file") from refusal
