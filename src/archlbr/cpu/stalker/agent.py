"""What runs in the recorded program: agent.js and transform.c, and what they say of a program they refuse.

The ring is the QEMU plugin's (`cpu.qemu.stream`): the same descriptions of blocks, the same streams of words, a few
events more. `machine.stalker` attaches an `Agent` to a program that waits at its entry. Design: docs/decisions/044.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import threading
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from archlbr.cpu.qemu import stream
from archlbr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Events that the plugin has no use for; 0 is nothing.
BEGUN: Final = stream.EVENTS + 16  # the next block is the first of main, or of a thread's function
LEFT: Final = stream.EVENTS + 17  # address low, high: a function that ends the process is entered
NAMED: Final = stream.EVENTS + 18  # four words: the thread's new name
LENGTH: Final = {**stream.LENGTH, BEGUN: 1, LEFT: 3, NAMED: 5}

# Words of the ring's first page.
THREADS_AT, REASON_AT, BELL_AT, WHERE_AT = 1, 2, 3, 4
TID_AT: Final = 3  # in a stream

_PLAIN: Final = 2048  # mappings of code
_CHANGED: Final = 1024
_LOOPS_MADE: Final = 4096  # LOOP instructions, each for every thread that comes to it
_LOOP_BYTES: Final = 64
_STATE_BYTES: Final = 256 + 16 * (_PLAIN + _CHANGED + stream.THREADS)
_FOLDER: Final = Path(__file__).parent
_PATIENCE: Final = 60.0  # seconds
# What Frida raises when it cannot take hold of a program, or that ends meanwhile.
_FAILURES: Final = (
    "InvalidOperationError",
    "NotSupportedError",
    "PermissionDeniedError",
    "ProcessNotFoundError",
    "ProcessNotRespondingError",
    "ProtocolError",
    "TimedOutError",
    "TransportError",
)


class Reason(IntEnum):
    """Why a program is not run any further, told before what cannot be recorded happens."""

    NONE = 0
    FORKS = 1
    EXECUTES = 2
    HANDLER = 3
    MAKES_CODE = 4
    UNLOADS = 5
    USES_GS = 6
    LOOPS = 7
    TRANSACTS = 8
    FAR = 9
    BARE_THREAD = 10
    CHANGED_CODE = 11
    UNKNOWN_CODE = 12
    MANY_BLOCKS = 13
    MANY_THREADS = 14
    MANY_MAPPINGS = 15
    EARLY_THREAD = 16
    BROADCASTS = 17
    LOADS = 18
    MOVES_FS = 19
    CONFINES = 20


WORDS_OF: Final = {
    Reason.FORKS: "the program forks, and Stalker does not live in the child",
    Reason.EXECUTES: "the program executes another, which Stalker does not follow",
    Reason.HANDLER: "the program has a signal handler, which Stalker does not see",
    Reason.MAKES_CODE: "the program makes code as it runs, or changes it",
    Reason.LOADS: "the program loads a library as it runs, which Frida takes part in",
    Reason.UNLOADS: "the program unloads code",
    Reason.USES_GS: "the program uses GS, which the recorder needs",
    Reason.MOVES_FS: "the program moves FS, which Frida needs",
    Reason.LOOPS: "the program has a LOOP instruction with a prefix, no branch to Stalker",
    Reason.TRANSACTS: "the program begins a hardware transaction",
    Reason.FAR: "the program has a far transfer or a software interrupt",
    Reason.BARE_THREAD: "the program starts a thread without pthread_create",
    Reason.CHANGED_CODE: "the program calls a function that Frida has changed",
    Reason.UNKNOWN_CODE: "the program runs code outside its files, or code that can be written",
    Reason.MANY_BLOCKS: f"the program has more than {stream.BLOCKS - 1:,} blocks of code",
    Reason.MANY_THREADS: f"the program has more than {stream.THREADS} threads",
    Reason.MANY_MAPPINGS: "the program has too many mappings of code",
    Reason.BROADCASTS: "the program cancels a thread or changes its user, by a signal that Stalker does not see",
    Reason.CONFINES: "the program confines itself to some system calls, and the recorder makes others",
    Reason.EARLY_THREAD: "the program starts a thread before main",
}


def macros() -> Iterator[str]:
    """Yield `NAME value` for each constant that transform.c is compiled with."""
    sizes = {"CHUNK": stream.CHUNK, "CHUNKS": stream.CHUNKS, "BLOCKS": stream.BLOCKS, "THREADS": stream.THREADS}
    sizes |= {"PLAIN": _PLAIN, "CHANGED": _CHANGED, "LOOPS_MADE": _LOOPS_MADE, "LOOP_BYTES": _LOOP_BYTES}
    events = {"SYSCALL": stream.SYSCALL, "RETURNED": stream.RETURNED}
    events |= {"BEGUN": BEGUN, "LEFT": LEFT, "NAMED": NAMED}
    for name, value in (*sizes.items(), *events.items(), *((reason.name, reason.value) for reason in Reason)):
        yield f"{name} {value}u"


def installed() -> bool:
    """Return whether Frida is here."""
    return importlib.util.find_spec("frida") is not None


def find_frida() -> None:
    """Raise InputError when Frida is not here."""
    if not installed():
        raise InputError(
            "--engine stalker needs Frida: pip install 'archlbr[fast]', or use --engine qemu or --engine unicorn"
        )


class Agent:
    """The session with a program; `changed` names the functions that Frida has changed in it."""

    def __init__(self, pid: int, ring: str, entry: int, code: int) -> None:
        import frida

        self.lost = ""
        self.ended = False
        self.changed: dict[int, str] = {}
        self._errors: list[str] = []
        self._heard = threading.Event()
        source = "".join(f"#define {macro}\n" for macro in macros())
        source += "".join((_FOLDER / name).read_text() for name in ("ring.c", "program.c", "transform.c"))
        config = {
            "ring": ring,
            "size": stream.RING_BYTES,
            "state": _STATE_BYTES,
            "source": source,
            "entry": hex(entry),
            "bytes": hex(code),
            "loops": _LOOPS_MADE * _LOOP_BYTES,
            "early": int(Reason.EARLY_THREAD),
            "wide": _wide(),
        }
        text = f"const config = {json.dumps(config)};\n{(_FOLDER / 'agent.js').read_text()}"
        try:
            with _temporary_files_in(os.path.dirname(ring)):
                self._session = frida.attach(pid)
            self._session.on("detached", self._detached)
            self._script = self._session.create_script(text)
            self._script.on("message", self._told)
            self._script.load()
            # What the script says comes by another thread, and may come later.
            if not self._heard.wait(_PATIENCE):
                raise InputError("--engine stalker: Frida's script says nothing; use --engine qemu or --engine unicorn")
            if self._errors:
                raise InputError(f"--engine stalker: Frida does not run our script ({self._errors[0]})")
            self._script.post({"type": "run"})
        except tuple(getattr(frida, name) for name in _FAILURES) as error:
            raise InputError(f"--engine stalker: Frida cannot take hold of the program ({error})") from None

    def named(self, address: int) -> str:
        """Return the name of the changed function at an address, its number where it has none."""
        before = [start for start in self.changed if start <= address]
        return self.changed[max(before)] if before else hex(address)

    def _told(self, message: Any, _data: bytes | None) -> None:
        if message["type"] == "send":
            self.changed.update((int(start, 16), name) for start, name in message["payload"]["changed"])
        else:
            self._errors.append(str(message.get("description", message)))
        self._heard.set()

    def _detached(self, reason: str, *_crash: object) -> None:
        if reason != "process-terminated" and not self.ended:
            self.lost = reason
        self._heard.set()


@contextlib.contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    # Frida leaves its helper in the folder for temporary files: let that be the recording's own, which goes. It asks
    # for the folder once, when it first takes hold of a program (g_get_tmp_dir() keeps the answer).
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        del os.environ["TMPDIR"]
        if before is not None:
            os.environ["TMPDIR"] = before


def _wide() -> bool:
    flags = next(
        (line.split() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), []
    )
    if ("avx" in flags) != ("avx2" in flags) or ("avx512f" in flags) != ("avx512bw" in flags):
        raise InputError("--engine stalker: Frida does not keep this processor's vector registers; use --engine qemu")
    return "avx512f" in flags


def end_injector(folder: str) -> None:
    """End the process by which Frida takes hold of programs; its file lies in the recording's folder.

    It would wait half a minute for another program, and frida.shutdown() leaves it running.
    """
    inside = os.path.realpath(folder) + os.sep
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # gone, or another user's
                if os.readlink(entry / "exe").startswith(inside):
                    os.kill(int(entry.name), signal.SIGKILL)


def make_ring(folder: str, pid: int) -> str:
    """Make the file of a process's ring, as `stream.Ring` expects it; return its path."""
    path = os.path.join(folder, f"ring.{pid}.0")
    with open(path, "xb") as file:
        file.truncate(stream.RING_BYTES)
    return path
