"""Which engine runs a program, chosen in one place.

`record` and `trace` ask. What is installed, how the program is linked and what its code is made of decide; the choice
and its reason go to stderr. Design: docs/decisions/045.
"""

from __future__ import annotations

import os
import shutil
import sys
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeAlias

    from archlbr.cpu.contents import Contents
    from archlbr.guest.linking import Linking
    from archlbr.machine.progress import Counted
    from archlbr.machine.streams import StreamRecorder

    MakeRecorder: TypeAlias = Callable[[int], StreamRecorder]
    Runner: TypeAlias = Callable[[str, list[str], Path, MakeRecorder, Callable[[Counted], None] | None], int]


class Engine(StrEnum):
    """`--engine`: auto picks the fastest engine that is exact for the program."""

    AUTO = "auto"
    UNICORN = "unicorn"
    QEMU = "qemu"
    STALKER = "stalker"


class Choice(NamedTuple):
    """An engine, and why it is that one."""

    engine: Engine
    why: str


# Of a hundred instructions of a program's own text, so many in floating point make QEMU's arithmetic what it waits for:
# of Debian's integer programs none has 2, and a small numerical kernel in C has 8 (bench/engines.py).
FLOATING_PERCENT: Final = 4
# Libraries that call nothing of the list below on their own account.
_FAMILY: Final = {f"lib{name}" for name in ("c.so.6", "m.so.6", "pthread.so.0", "dl.so.2", "rt.so.1", "mvec.so.1")} | {
    "libstdc++.so.6",
    "libgcc_s.so.1",
}
# What a program imports to do what Stalker cannot follow (docs/decisions/044).
_HOLES: Final = {
    "fork": "fork vfork _Fork daemon forkpty posix_spawn posix_spawnp system popen wordexp clone",
    "execute another program": "execl execle execlp execv execve execvp execvpe fexecve",
    "handle signals": "signal bsd_signal ssignal sysv_signal __sysv_signal sigset sigaction sigvec timer_create",
    "load libraries": "dlopen dlmopen iconv_open getaddrinfo gethostbyname getpwnam getpwuid getgrnam getgrgid",
    "make code": "mprotect pkey_mprotect memfd_create",
    "cancel threads": "pthread_cancel",
    "change its user": "setuid setgid seteuid setegid setreuid setregid setresuid setresgid setgroups",
    "call the kernel itself": "syscall",
}


def hole(program: Linking, made_of: Contents) -> str:
    """Return what keeps Stalker from recording a program exactly, as far as its file tells; "" when nothing does."""
    if program.static:
        return "it is static"
    if "__libc_start_main" not in program.imports:
        return "it has no main that a C library calls"
    unknown = [name for name in program.needed if name not in _FAMILY and not name.startswith("ld-linux")]
    if unknown:
        return f"it needs {unknown[0]}, which may do what Stalker cannot follow"
    for deed, names in _HOLES.items():
        found = program.imports.intersection(names.split())
        if found:
            return f"it may {deed} ({min(found)})"
    if made_of.barred:
        return "it begins transactions, or moves GS or FS"
    if made_of.calls:
        return "it may call the kernel itself"
    return ""


def decide(program: Linking, made_of: Contents, qemu: str, stalker: str) -> Choice:
    """Return the fastest engine that is exact; qemu, stalker: what each lacks here, "" when nothing."""
    share = 100 * made_of.floating / max(1, made_of.instructions)
    why_not = ""
    if made_of.wide or share >= FLOATING_PERCENT:
        what = "uses AVX" if made_of.wide else f"computes in floating point ({share:.0f} % of its instructions)"
        lacking = stalker or hole(program, made_of)
        if not lacking:
            return Choice(Engine.STALKER, f"the program {what}; recorded from main to exit")
        slow = "has no AVX" if made_of.wide else "is slow at that"
        why_not = f"; the program {what}, and this engine {slow}, but not stalker: {lacking}"
    if not qemu:
        return Choice(Engine.QEMU, f"exact for the whole program, and fast{why_not}")
    return Choice(Engine.UNICORN, f"exact for the whole program; not qemu: {qemu}{why_not}")


def choose(wanted: Engine, path: str, program: list[str]) -> Engine:
    """Return the engine that runs a program, and say which and why on stderr when the choice was ours.

    InputError when an engine that was asked for by name lacks something.
    """
    if wanted is Engine.AUTO:
        choice = _chosen(path, program)
        print(f"archlbr: runs on {choice.engine}: {choice.why}", file=sys.stderr)
        return choice.engine
    if wanted is Engine.QEMU:
        from archlbr.cpu.qemu.plugin import build_plugin, find_qemu

        find_qemu()
        build_plugin()
    elif wanted is Engine.STALKER:
        from archlbr.cpu.stalker.agent import find_frida

        find_frida()
    return wanted


def streamed(engine: Engine, period: int = 0) -> Runner:
    """Return what runs a program on an engine that writes streams; period: of `recording.sampling.period_alone`."""
    if engine is Engine.QEMU:
        from archlbr.machine.qemu import run_on_qemu

        return partial(run_on_qemu, period=period)
    from archlbr.machine.stalker import run_on_stalker

    return run_on_stalker


def _chosen(path: str, program: list[str]) -> Choice:
    from archlbr.cpu.contents import contents
    from archlbr.cpu.stalker.agent import installed
    from archlbr.guest.linking import linking
    from archlbr.machine.supervise import resolve

    image = resolve(path, program).image
    linked = linking(image.path)
    stalker = "" if installed() else "Frida is not installed (the extra `fast`)"
    if not stalker and os.stat(image.path).st_mode & 0o6000:
        stalker = "it runs as another user"
    return decide(linked, contents(linked.text), _lack_of_qemu(), stalker)


def _lack_of_qemu() -> str:
    from archlbr.cpu.qemu.plugin import COMPILERS, QEMU, built

    if shutil.which(QEMU) is None:
        return f"{QEMU} is not installed"
    if not built() and not any(shutil.which(name) for name in COMPILERS):
        return "there is no C compiler for its plugin"
    return ""
