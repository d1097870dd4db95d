"""The machine of mover.S, and what it is made of: two machines with the same `Whole` are the same machine."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, NamedTuple

from archlbr.machine import image, snapshot
from archlbr.machine.board import Board
from archlbr.machine.models import SAPPHIRE_RAPIDS, Model

if TYPE_CHECKING:
    from pathlib import Path

    from archlbr.lbr.state import State
    from archlbr.vpmu.state import Pmu

MEMORY = 8 << 20
END = 1_000_000_000


class Machine:
    """A board with its two serial ports' output."""

    def __init__(self, board: Board, console: bytearray, sent: bytearray) -> None:
        self.board, self.console, self.sent = board, console, sent

    def whole(self) -> Whole:
        """Return all that the machine is."""
        parts = snapshot.parts(self.board, bytes(self.sent))
        digest = hashlib.sha256(self.board.memory).hexdigest()
        return Whole(
            self.board.status,
            bytes(self.console),
            parts,
            digest,
            (self.board.vcpu.fetched().lbr, self.board.vcpu.state.pmu),
        )

    def saved(self) -> bytes:
        """Return its snapshot."""
        return b"".join(snapshot.save(self.board, bytes(self.sent)))

    def ended(self) -> Whole:
        """Run it to its end and return what it is then."""
        self.board.run(END)
        return self.whole()


class Whole(NamedTuple):
    """Status, console, registers and devices, a digest of the memory, the processor's LBRs and the counters.

    Not compared: KVM's copy of the registers, which is dead while the guest has the LBRs.
    """

    status: int | None
    console: bytes
    parts: snapshot.Parts
    memory: str
    vcpu: tuple[State, Pmu]


def started(program: Path, model: Model = SAPPHIRE_RAPIDS) -> Machine:
    """Return the machine before its first instruction."""
    console, sent = bytearray(), bytearray()
    board = Board(model, MEMORY, console.append, sent.append)
    board.start_image(program.read_bytes(), "mover", b"", "")
    return Machine(board, console, sent)


def restored(data: bytes, console: bytes = b"", offered: Model | None = None) -> Machine:
    """Return the machine of a snapshot, its console going on from `console`."""
    lines, sent = bytearray(console), bytearray()
    source = image.Unpacker(io.BytesIO(data).read)
    received = snapshot.read(source, lambda head: snapshot.fresh(head, lines.append, sent.append))
    source.end()
    board = snapshot.restore(received, offered)
    sent += received.parts.sent
    return Machine(board, lines, sent)
