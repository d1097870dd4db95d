"""Compiles the guests on demand, each once a session: `guests.zoo` is the path of the program made from zoo.S."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent

# name -> (source, the compiler's arguments after -o PROGRAM SOURCE)
_BARE = ("-nostdlib", "-static", "-ffreestanding", "-fno-stack-protector")
_LIBC = ("-O1", "-g")
RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "known": ("../oracle/known.S", _BARE),
    "endless": ("endless.S", _BARE),
    "zoo": ("zoo.S", _BARE),
}


class Guests:
    """The compiled programs, by name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __getattr__(self, name: str) -> Path:
        """Compile a guest of that name; the path is remembered."""
        if name not in RECIPES:
            raise AttributeError(name)
        source, arguments = RECIPES[name]
        program = self.directory / name
        compiler = "g++" if source.endswith(".cc") else "gcc"
        command = [compiler, "-o", program, SOURCES / source, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        setattr(self, name, program)
        return program
