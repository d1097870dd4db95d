"""Guests that share a processor, for `archlbr run` with several kernels or with a host event, and what they showed."""

from __future__ import annotations

import json
import os
import select
import sys
from typing import TYPE_CHECKING, Any

from archlbr.cli.drive import holding_interrupts, open_keyboard
from archlbr.cli.formats import Format
from archlbr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from archlbr.contract.observed import Observed
    from archlbr.machine.board import Board
    from archlbr.machine.findings import Party
    from archlbr.machine.models import Model
    from archlbr.machine.pcpu import Pcpu, Timing
    from archlbr.perf.events import Opened
    from archlbr.vpmu.designs.hypervisors import Hypervisor

MOST_GUESTS = 2
_SHARE = 1_000_000
_FAMILIAR = ("opens", "every", "period")
VIOLATED = 1


def parse_host_event(text: str, share: int) -> tuple[Opened, Timing]:
    """Return how the host's event is opened and when; InputError for an unknown word.

    pinned or flexible, then any of exclude_guest, task, opens=NS, every=NS, period=N.
    """
    from archlbr.machine.pcpu import Timing
    from archlbr.perf.events import Opened

    kind, *words = text.split(",")
    if kind not in ("pinned", "flexible"):
        raise InputError(f"unknown host event {kind!r}: begin with pinned or flexible, such as flexible,exclude_guest")
    numbers: dict[str, int] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if word in ("exclude_guest", "task"):
            continue
        if name not in _FAMILIAR or not equals or not value.isdecimal():
            raise InputError(f"unknown word {word!r} of a host event: exclude_guest, task, opens=, every= or period=")
        numbers[name] = int(value)
    if numbers.get("period", 1) == 0:
        raise InputError("a period of 0 samples for ever: give a period of at least 1")
    opened = Opened(int(kind == "pinned"), int("exclude_guest" in words), int("task" in words))
    return opened, Timing(share=share, **numbers)


class Consoles:
    """The guests' serial ports on stdin and stdout.

    A line of one of several begins with its letter; what is typed goes to each, once it listens and has read all that
    came before.
    """

    def __init__(self, guests: int) -> None:
        self.received = [bytearray() for _ in range(guests)]
        self._typed = [bytearray() for _ in range(guests)]
        self._keyboard = open_keyboard()

    def type(self, guests: Sequence[Board]) -> None:
        """Pass on what has been typed."""
        if not any(self._typed) and self._keyboard >= 0 and select.select([self._keyboard], [], [], 0)[0]:
            typed = os.read(self._keyboard, 64)
            if not typed:
                self._keyboard = -1
            for waiting in self._typed:
                waiting += typed
        for board, waiting in zip(guests, self._typed, strict=True):
            if board.status is not None:
                waiting.clear()
            elif waiting and board.serial.wanted:
                board.serial.receive(bytes(waiting))
                waiting.clear()

    def flush(self, *, last: bool = False) -> None:
        """Print what has come: of several guests whole lines only, unless it is the last time."""
        out = sys.stdout.buffer
        alone = len(self.received) == 1
        for number, console in enumerate(self.received):
            end = len(console) if alone or last else console.rfind(b"\n") + 1
            for line in bytes(console[:end]).splitlines(keepends=True):
                out.write(line if alone else f"{_letter(number)}: ".encode() + line.rstrip(b"\n") + b"\n")
            del console[:end]
        out.flush()


def run_together(
    model: Model,
    hypervisor: Hypervisor,
    boots: Sequence[Callable[[Board], None]],
    memory: int,
    host_event: str | None,
    timing: tuple[int, int],
    going_on: Callable[[], bool],
) -> tuple[Pcpu, bool]:
    """Run guests on one processor until each has ended or `going_on` says no; return it, and whether they ended.

    timing: the slice, and which creation of a guest's event perf refuses.
    """
    from archlbr.lbr.state import ARCH
    from archlbr.machine.board import Board
    from archlbr.machine.hostcode import HostCode
    from archlbr.machine.pcpu import Pcpu, Timing
    from archlbr.machine.shared_vcpu import SharedVcpu
    from archlbr.vpmu.designs.sharing import VLBR

    if len(boots) > MOST_GUESTS:
        raise InputError(f"{len(boots)} guests: {MOST_GUESTS} can share a processor; give --kernel at most twice")
    share, refuses = timing
    if share < 1:
        raise InputError(f"a slice of {share} instructions: give --slice at least 1")
    if refuses < 0:
        raise InputError(f"--refuse {refuses}: creations are counted from 1")
    event, when = parse_host_event(host_event, share) if host_event is not None else (None, Timing(share=share))
    sharing = hypervisor.sharing
    if event is not None and sharing.family == VLBR and model.facility.format == ARCH and not sharing.architectural:
        raise InputError(
            f"--host-event under {sharing.name} is modelled on the LBRs that it knows: use --cpu skylake-server"
        )
    consoles = Consoles(len(boots))
    guests = []
    for console, boot in zip(consoles.received, boots, strict=True):
        board = Board(model, memory, console.append, hypervisor=hypervisor, vcpu=SharedVcpu)
        boot(board)
        guests.append(board)
    pcpu = Pcpu(hypervisor.sharing, guests, HostCode(model), event, when._replace(refuses=refuses))
    with holding_interrupts(lambda: None) as look:  # a turn is short
        while not pcpu.done and going_on():
            pcpu.turn()
            consoles.flush()
            look()
            consoles.type(guests)
    consoles.flush(last=True)
    return pcpu, pcpu.done


def report(pcpu: Pcpu, hypervisor: Hypervisor, form: Format) -> int:
    """Print what a run showed on stderr; return the exit status, 1 where a property was broken."""
    broken = {claim: _seen(pcpu, hypervisor, claim) for claim in pcpu.findings.broken}
    lines = _as_json(pcpu, hypervisor, broken) if form is Format.JSON else _as_text(pcpu, hypervisor, broken)
    print("\n".join(lines), file=sys.stderr)
    return VIOLATED if broken else 0


def _seen(pcpu: Pcpu, hypervisor: Hypervisor, claim: str) -> tuple[Observed, ...]:
    from archlbr.contract.observed import observed

    # A few actions more: the model judges a read or a sample where it is made, the machine a little later.
    path = pcpu.path[: pcpu.findings.first[claim] + 16]
    return observed(hypervisor.sharing, len(pcpu.guests), pcpu.event, path, claim)


def _as_text(pcpu: Pcpu, hypervisor: Hypervisor, broken: dict[str, tuple[Observed, ...]]) -> list[str]:
    from archlbr.contract.properties import BY_NAME

    lines = []
    for name, party in _parties(pcpu).items():
        more = f", {party.none} say that they have none, {party.stale} hold an old one" if name == "host" else ""
        if party.lost:
            more += f", {party.lost} of its own lost"
        lines.append(f"{name}: {party.samples} stacks, {party.entries} records, {party.foreign} foreign{more}")
    for number, board in enumerate(pcpu.guests):
        if board.cause:
            lines.append(f"{_letter(number)}: the machine ended: {board.cause}")
        why = pcpu.vcpu(number).state.rules.why
        if why:
            lines.append(f"{_letter(number)} has no LBRs: {why}")
    for claim, seen in broken.items():
        lines.append(f"{hypervisor.name} breaks {claim} ({BY_NAME[claim].says}), {pcpu.findings.broken[claim]} times")
        for one in seen:
            told = f"{one.name}: {one.says}; " if one.name else ""
            lines.append(f"  {told}{len(one.path)} steps of the run: archlbr replay {one.line}")
    if not broken:
        lines.append(f"{hypervisor.name}: no property was broken")
    return lines


def _as_json(pcpu: Pcpu, hypervisor: Hypervisor, broken: dict[str, tuple[Observed, ...]]) -> list[str]:
    document: dict[str, Any] = {
        "version": 1,
        "design": hypervisor.name,
        "parties": {name: vars(party) for name, party in _parties(pcpu).items()},
        "broken": {
            claim: {
                "times": pcpu.findings.broken[claim],
                "names": [one.name for one in seen if one.name],
                "replay": seen[0].line if seen else None,
            }
            for claim, seen in broken.items()
        },
    }
    return [json.dumps(document)]


def _parties(pcpu: Pcpu) -> dict[str, Party]:
    parties = {_letter(number): party for number, party in enumerate(pcpu.findings.guests)}
    return {**parties, "host": pcpu.findings.host}


def _letter(number: int) -> str:
    return chr(ord("A") + number)
