"""How long a machine stands still while it moves: an idle Linux guest, or without one a machine that sleeps.

    python -m bench migrate

Source and target are processes of this host, connected over TCP. The downtime is from the last instruction in the
source to the target's word that the machine runs there; the first stop is the copy of the memory at the start.
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tests.guests.linux import FOLDER

from archlbr.cli import control
from archlbr.machine import snapshot
from archlbr.machine.board import Board
from archlbr.machine.models import SAPPHIRE_RAPIDS
from bench.figures import median, table

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = 256 << 20
APPEND = "console=ttyS0 mitigations=off rdinit=/init quiet"
_PATIENCE = 120.0


def booted() -> Board:
    """Return an idle guest of 256 MiB at its shell."""
    console = bytearray()
    board = Board(SAPPHIRE_RAPIDS, MEMORY, console.append)
    board.start_linux((FOLDER / "vmlinuz").read_bytes(), (FOLDER / "guest.cpio").read_bytes(), APPEND)
    while b"/tmp # " not in console:
        if board.run(board.now() + 20_000_000) is not None:
            raise RuntimeError(f"the guest ended: {console[-200:]!r}")
    board.run(board.now() + 1_000_000_000)
    return board


def process(*words: object, **streams: Any) -> subprocess.Popen[bytes]:
    """Start a verb."""
    return subprocess.Popen(
        [sys.executable, "-m", "archlbr", *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        **streams,
    )


def moves(folder: Path, image: Path, count: int) -> Iterator[dict[str, Any]]:
    """Let a machine move on and on, and return what each move says of itself."""
    source = process("restore", image, "--control", folder / "0.sock")
    try:
        for number in range(count):
            there = folder / f"{number + 1}.sock"
            target = process(
                "restore", folder / f"{number + 1}.machine", "--incoming", "127.0.0.1:0", "--control", there,
                stderr=subprocess.PIPE,
            )  # fmt: skip
            if target.stderr is None:
                raise RuntimeError("the target has no stderr")
            [port] = re.findall(rb":(\d+)\s*$", target.stderr.readline())
            here = folder / f"{number}.sock"
            end = time.monotonic() + _PATIENCE
            while not here.exists():
                if time.monotonic() > end:
                    raise RuntimeError(f"no machine at {here}")
                time.sleep(0.05)
            said: list[dict[str, Any]] = []
            request = {"migrate": f"127.0.0.1:{int(port)}", "keep": str(folder / "kept")}
            control.ask(str(here), request, said.append)
            source.wait(_PATIENCE)
            source = target
            yield {**said[-1], "rounds": len(said) - 1}
    finally:
        os.kill(source.pid, signal.SIGKILL)
        source.wait()


def measure(count: int = 5) -> list[str]:
    """Return the section."""
    if not (FOLDER / "guest.cpio").exists():
        return ["Not measured: needs build/guest (make guest)."]
    board = booted()
    begin = time.perf_counter()
    snapshot.parts(board)
    copy = bytearray(board.memory)
    copying = time.perf_counter() - begin
    with TemporaryDirectory() as name:
        folder = Path(name)
        image = folder / "image"
        image.write_bytes(b"".join(snapshot.save(board)))
        size = image.stat().st_size
        found = list(moves(folder, image, count))
    downtimes = [one["downtime"] for one in found]
    pages = [float(one["pages"]) for one in found]
    sent = statistics.median(one["bytes"] for one in found)
    return [
        f"An idle Linux guest of {len(copy) >> 20} MiB at its shell (a snapshot of {size / 1e6:.1f} MB) moves {count} "
        f"times from process to process, over TCP on this host; {sent / 1e6:.1f} MB are sent each time.",
        "",
        *table(
            ["", "figure"],
            [
                ["it stands still", median([1000 * value for value in downtimes], "ms", 0)],
                ["pages sent meanwhile", median(pages, "", 0)],
                ["the copy of its memory at the start, once", f"{1000 * copying:.0f} ms"],
            ],
        ),
    ]
