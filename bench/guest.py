"""The whole machine: what recording costs while Linux boots, and how fast guests compute.

    python -m bench guest

Each boot is a fork of this process, in which all compiled code is loaded already, and the forms alternate. Processor
time is told beside the clock's, and ratios and limits are of it: one thread computes throughout, so that on a machine
that does nothing else the clock shows the same.
"""

from __future__ import annotations

import os
import pickle
import statistics
import struct
import time
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tests.guests.linux import FOLDER

from archlbr.arch import msrs
from archlbr.cpu import words as at
from archlbr.lbr import compiled as lbr
from archlbr.machine import board as boards
from archlbr.machine import observing
from archlbr.machine.board import Board
from archlbr.machine.models import SAPPHIRE_RAPIDS
from bench.board_access import wrmsr
from bench.figures import median, ratio, table
from bench.guest_bare import counting

if TYPE_CHECKING:
    from collections.abc import Callable

APPEND = "console=ttyS0 mitigations=off quiet"
PROMPT = b"/tmp # "
SLICE = 5_000_000
RECORDING = 0x7F0007  # IA32_LBR_CTL: enabled, both rings, all kinds
LOAD_AT = 0x200000
ITERATIONS = 200_000_000

BOOT_LIMIT, RATIO_LIMIT, SPEED_LIMIT, LOOP_LIMIT = 30.0, 1.3, 60.0, 180.0


class Boot(NamedTuple):
    """A boot up to the shell, and kernel.c in it: seconds, seconds of the processor, instructions and branches."""

    wall: float
    cpu: float
    instructions: int
    branches: int
    speed: float


def _plain(_board: Board, _rows: list[int]) -> None:
    return


def _recording(board: Board, _rows: list[int]) -> None:
    registers = board.words[observing.LBR_AT : observing.LBR_END]
    assert lbr.wrmsr(registers, np.uint64(msrs.IA32_LBR_CTL.index), np.uint64(RECORDING))


def _traced(board: Board, rows: list[int]) -> None:
    _recording(board, rows)
    board.trace(lambda found: rows.append(len(found)))


BARE, RECORDED = "no branch looked at", "LBRs recording, all rings"
FORMS: dict[str, Callable[[Board, list[int]], None]] = {
    BARE: _plain,
    "LBRs disabled": _plain,
    RECORDED: _recording,
    "and every branch written down outside": _traced,
}


class _Counting:
    # What the board takes from `observing`, with the hook that counts in place of the one that records.
    observing = counting

    def __getattr__(self, name: str) -> Any:
        return getattr(observing, name)


def boot(form: str) -> Boot:
    """Boot to the shell and run kernel.c at it, in a fork of this process."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, pickle.dumps(_boot(form)))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert content, f"{form}: the machine ended with wait status {status:#x}"
    found: Boot = pickle.loads(content)
    return found


def _boot(form: str) -> Boot:
    if form == BARE:
        boards.observing = _Counting()  # type: ignore[assignment]  # this process runs one board
    console, rows = bytearray(), list[int]()
    wall, cpu = time.perf_counter(), time.process_time()
    board = Board(SAPPHIRE_RAPIDS, 256 << 20, console.append)
    board.start_linux((FOLDER / "vmlinuz").read_bytes(), (FOLDER / "guest.cpio").read_bytes(), APPEND)
    FORMS[form](board, rows)
    _until(board, console, PROMPT)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    instructions = int(board.words[at.RETIRED])
    if form == RECORDED:
        registers = board.words[observing.LBR_AT : observing.LBR_END]
        assert lbr.rdmsr(registers, np.uint64(msrs.IA32_LBR_CTL.index))[1] == RECORDING, "the guest turned its LBRs off"
    branches = sum(rows) if rows else int(board.words[at.TAKEN])
    board.serial.receive(b"echo [go]; program 8; echo [gone]\n")
    _until(board, console, b"\n[go]")
    begun, before = time.process_time(), int(board.words[at.RETIRED])
    _until(board, console, b"\n[gone]")
    speed = (int(board.words[at.RETIRED]) - before) / (time.process_time() - begun) / 1e6
    return Boot(wall, cpu, instructions, branches, speed)


def _until(board: Board, console: bytearray, text: bytes) -> None:
    while text not in console:
        assert board.run(board.now() + SLICE) is None, console.decode(errors="replace")


def boots(rounds: int) -> tuple[list[str], list[str]]:
    """Return the section on the Linux guest, and what is above its limit."""
    if not (FOLDER / "program").exists():
        return ["The Linux guest is not there: `make guest` packs it."], []
    found: dict[str, list[Boot]] = {form: [] for form in FORMS}
    boot(RECORDED)  # fills the caches
    for _ in range(rounds):
        for form in FORMS:
            found[form].append(boot(form))
    (instructions,) = {run.instructions for form, runs in found.items() for run in runs if form != BARE}
    base = [run.cpu for run in found[BARE]]
    rows, late = [], []
    for form, runs in found.items():
        cpu, speed = [run.cpu for run in runs], [run.speed for run in runs]
        rows.append([form, median([run.wall for run in runs]), median(cpu), ratio(cpu, base), median(speed, "M/s", 0)])
        late += [f"the boot with {form}"] if statistics.median(cpu) > BOOT_LIMIT else []
        ratios = [one / other for one, other in zip(cpu, base, strict=True)]
        late += [f"the ratio with {form}"] if statistics.median(ratios) > RATIO_LIMIT else []
        late += [f"the speed with {form}"] if statistics.median(speed) < SPEED_LIMIT else []
    return [
        f"Debian's kernel up to the shell, {instructions / 1e6:,.0f} M instructions and "
        f"{found[RECORDED][0].branches / 1e6:,.0f} M near branches taken, {rounds} alternating rounds; then "
        "`tests/guests/kernel.c` in it, its instructions a second of processor time.",
        "",
        *table(["form", "boot to the shell", "processor time", "ratio of it", "kernel.c"], rows),
        "",
    ], late


def loops(rounds: int) -> tuple[list[str], list[str]]:
    """Return the lines on a long loop of guest code, and what is above its limit."""
    enable = wrmsr(msrs.IA32_LBR_CTL.index, RECORDING)
    count = b"\xbe" + struct.pack("<I", ITERATIONS)  # mov esi, ITERATIONS
    code = enable + count + b"\xff\xce\x75\xfc\xe6\xf4\xeb\xfe"  # dec esi; jnz to it; out 0f4h, al
    costs, rates = [], []
    for _ in range(rounds):
        board = Board(SAPPHIRE_RAPIDS, 64 << 20, lambda byte: None)
        board.memory[LOAD_AT : LOAD_AT + len(code)] = code
        board.start(LOAD_AT)
        begun = time.process_time()
        assert board.run() is not None
        costs.append(time.process_time() - begun)
        rates.append(int(board.words[at.RETIRED]) / costs[-1] / 1e6)
    late = ["the loop"] if statistics.median(costs) > LOOP_LIMIT else []
    late += ["the loop's speed"] if statistics.median(rates) < SPEED_LIMIT else []
    return [
        f"A loop of {ITERATIONS:,} iterations in ring 0, recorded, takes {median(costs)} of the processor: "
        f"{median(rates, 'M instructions/s', 0)}.",
        "",
    ], late


def measure(rounds: int = 3) -> list[str]:
    """Return the section."""
    lines, late = boots(rounds)
    more, others = loops(rounds)
    late += others
    verdict = f"Beyond its limit: {', '.join(late)}." if late else "Each is within its limit."
    limits = (
        f"Limits, of processor time: a boot takes {BOOT_LIMIT:g} s, with recording {RATIO_LIMIT:g} times what it takes "
        f"without, {SPEED_LIMIT:g} M instructions a second, the loop {LOOP_LIMIT:g} s. {verdict}"
    )
    return [*lines, *more, limits]
