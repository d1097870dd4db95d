"""Compiles the guests on demand, each once a session: `guests.zoo` is the path of the program made from zoo.S."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.guests.position import skip_where_python_lies

SOURCES = Path(__file__).parent

_BARE = ("-nostdlib", "-static")
_KERNEL = ("-O1", "-ffreestanding", "-fno-stack-protector", "-fno-tree-loop-distribute-patterns", *_BARE)
_LIBC = ("-O1", "-g", "-Wall", "-Wextra")
_OPTIMISABLE = ("-O2", "-g", "-Wall", "-Wextra", "-fno-reorder-blocks-and-partition", "-Wl,--emit-relocs", "-Wl,-z,now")

# name -> (source, the compiler's arguments after -o PROGRAM SOURCE)
RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "known": ("../oracle/known.S", _BARE),
    "endless": ("endless.S", _BARE),
    "zoo": ("zoo.S", _BARE),
    "rewrite": ("rewrite.S", _BARE),
    "far": ("far.S", _BARE),
    "wild": ("wild.S", _BARE),
    "endless_board": ("endless_board.S", (*_BARE, "-no-pie", "-Wl,-Ttext=0x200000,--build-id=none")),
    "mover": ("mover.S", (*_BARE, "-no-pie", "-Wl,-Ttext=0x200000,-Tdata=0x210000,--build-id=none")),
    "kmini": ("kmini.c", (*_KERNEL, "-fno-pie", "-no-pie")),
    "kmini_pie": ("kmini.c", ("-O2", *_KERNEL[1:-1], "-fpie", "-pie")),
    "kernel": ("kernel.c", _OPTIMISABLE),
    "kernel_fixed": ("kernel.c", (*_OPTIMISABLE, "-fno-pie", "-no-pie")),
    "hello": ("hello.c", _LIBC),
    "hello_fixed": ("hello.c", (*_LIBC, "-fno-pie", "-no-pie")),
    "hello_static": ("hello.c", (*_LIBC, "-static")),
    "hello_static_pie": ("hello.c", (*_LIBC, "-static-pie")),
    "jumps": ("jumps.c", (*_LIBC, "-Wno-clobbered")),
    "signals": ("signals.c", _LIBC),
    "frames": ("frames.c", _LIBC),
    "faults": ("faults.c", (*_LIBC, "-Wno-array-bounds")),
    "exceptions": ("exceptions.cc", _LIBC),
    "pair": ("pair.cc", (*_LIBC, "-pthread")),
    "threads": ("threads.c", (*_LIBC, "-pthread")),
    "talkers": ("talkers.c", (*_LIBC, "-pthread")),
    "forks": ("forks.c", _LIBC),
    "jit": ("jit.c", _LIBC),
    "crash": ("crash.c", (*_LIBC, "-Wno-array-bounds")),
    "signalled": ("signalled.c", _LIBC),
    "processes": ("processes.c", _LIBC),
    "timers": ("timers.c", _LIBC),
    "memory": ("memory.c", _LIBC),
    "surroundings": ("surroundings.c", _LIBC),
    "over_itself": ("over_itself.c", _LIBC),
    "avx": ("avx.c", (*_LIBC, "-mavx2")),
    "bodies": ("bodies.c", ("-O3", "-Wall", "-Wextra", "-lm")),
    "vectors_avx2": ("vectors.c", ("-O2", "-Wall", "-Wextra", "-mavx2", "-mfma")),
    "vectors_avx512": ("vectors.c", ("-O2", "-Wall", "-Wextra", "-mavx512f", "-mfma")),
    "steps": ("steps.c", (*_LIBC, "-pthread")),
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
        skip_where_python_lies(program)
        setattr(self, name, program)
        return program
