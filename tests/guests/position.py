"""Programs linked at fixed addresses need a position-independent Python (ET_DYN), which Debian's own is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ET_EXEC = 2


def is_fixed(program: Path) -> bool:
    """Say whether an ELF file is linked at fixed addresses (e_type at byte 16, gABI)."""
    head = program.read_bytes()[:18]
    return head[:4] == b"\x7fELF" and head[16] == ET_EXEC


def skip_where_python_lies(program: Path) -> None:
    """Skip when both this Python and the program are linked at fixed addresses, which collide."""
    python = Path(sys.executable).resolve()
    if is_fixed(python) and is_fixed(program):
        pytest.skip(f"needs a position-independent Python: {python} lies where {program.name} is linked")
