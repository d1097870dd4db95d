"""Building the plugin, and the command line that runs a program under it.

The C files beside this module are compiled on first use with the machine's compiler and kept by their digest in the
cache of native code. `machine.qemu` asks for the command.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from archlbr.cpu.qemu import stream
from archlbr.errors import InputError
from archlbr.sources import cache_folder

QEMU: Final = "qemu-x86_64"
_SOURCES: Final = Path(__file__).parent
# What CPUID shows is what machine.processor shows to a program on Unicorn, as far as QEMU's TCG has it: a C library
# takes the same paths. No XSAVE, so no AVX.
_FEATURES: Final = (
    "qemu64,vendor=GenuineIntel,family=6,model=143,stepping=8,level=0x1c,"
    "+pclmulqdq,+ssse3,+cx16,+sse4.1,+sse4.2,+movbe,+popcnt,+aes,+erms,+bmi1,+bmi2,+adx,+lahf-lm,+abm,+rdtscp,"
    "-svm,-hypervisor,-xsave"
)
# The host's loader, or QEMU, would take these for itself, though they are meant for the program (processes.c).
_TAKEN: Final = ("LD_", "QEMU_")
COMPILERS: Final = ("cc", "gcc", "clang")


def find_qemu() -> str:
    """Return QEMU's user mode emulator; InputError when it is not installed."""
    found = shutil.which(QEMU)
    if found is None:
        raise InputError(f"--engine qemu needs {QEMU}: install qemu-user, or use --engine unicorn")
    return found


def _definitions() -> list[str]:
    return [f"-D{macro}" for macro in stream.macros()]


def _place() -> Path:
    total = hashlib.sha256(" ".join(_definitions()).encode())
    for path in sorted(_SOURCES.glob("*.[ch]")):
        total.update(path.name.encode() + path.read_bytes())
    digest = total.hexdigest()[:16]
    return cache_folder() / f"branches-{digest}.so"


def built() -> bool:
    """Return whether the plugin was compiled before."""
    return _place().exists()


def build_plugin() -> Path:
    """Return the compiled plugin; InputError when there is no C compiler, or it fails."""
    definitions, plugin = _definitions(), _place()
    if plugin.exists():
        return plugin
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise InputError("--engine qemu needs a C compiler: install gcc, or use --engine unicorn")
    made = plugin.with_suffix(f".{os.getpid()}")
    flags = ["-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-fomit-frame-pointer", "-pthread"]
    done = subprocess.run(
        [compiler, *flags, *definitions, "-o", made, *sorted(_SOURCES.glob("*.c"))],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise InputError(f"--engine qemu: {compiler} cannot build the plugin ({first}); install gcc and libc6-dev")
    os.replace(made, plugin)
    return plugin


def command(folder: str, path: str, argv: list[str], period: int = 0) -> list[str]:
    """Return the command line that runs a program with its messages going to `folder`; argv[0] is the program's own.

    period: taken branches a sample, where those that no sample will show are only counted; 0: all blocks are written.
    """
    words = [find_qemu(), "-cpu", _FEATURES, "-plugin"]
    words.append(f"{build_plugin()},folder={folder},period={period},words={len(words) + 1}")
    return [*words, "-0", argv[0], path, *argv[1:]]


def environment() -> dict[str, str]:
    """Return the variables that QEMU itself runs with, last first: it hands them on the other way round.

    What only the program is to take has HIDDEN for its first letter; the plugin puts that back.
    """
    return {
        chr(stream.HIDDEN) + name[1:] if name.startswith(_TAKEN) else name: value
        for name, value in reversed(list(os.environ.items()))
    }
