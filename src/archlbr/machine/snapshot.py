"""A whole machine's state, taken out of a stopped board and put into a new one, which goes on exactly as the first.

`cli` saves and restores files with it, `machine.migrate` sends the same frames. The LBRs and the PMU are the vCPU
snapshot of `vpmu.snapshot`, written back in its one order; beside it stand what that leaves out (clocks since the
newest record, the predictor, the block that runs) and the devices. A target that cannot have what the guest was told of
refuses before anything is built. Design: docs/decisions/024 and 026.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import unicorn

from archlbr.arch.cpuid import Leaf0A, Leaf1C
from archlbr.cpu import words as at
from archlbr.cpu.predictor import is_possible
from archlbr.cpu.unicorn import page, registers
from archlbr.errors import InputError
from archlbr.machine import image, observing
from archlbr.machine.board import Board
from archlbr.machine.models import Model
from archlbr.machine.state import captured, restored
from archlbr.machine.vcpu import Vcpu
from archlbr.vpmu import snapshot as vpmu
from archlbr.vpmu.designs.hypervisors import HYPERVISORS
from archlbr.vpmu.image import unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    import numpy.typing as npt

# The words that persist; the others are addresses, or found again. UNUSUAL: the hook has accounted for the block that
# comes next. INJECT: a vector it must deliver there.
_WORDS: Final = {
    "retired": (at.RETIRED, 1),
    "taken": (at.TAKEN, 1),
    "unusual": (at.UNUSUAL, 1),
    "ring": (observing.RING, 1),
    "inject": (observing.INJECT, 1),
    "delivering": (observing.DELIVERING, 1),
    "mode": (observing.MODE, 1),
    "passes": (observing.PASSES, 1),
    "by_ring": (observing.RETIRED_BY_RING, 16),
    "predictor": (at.PREDICTOR, at.PREDICTOR_WORDS),
}
# What compiled code takes for granted of them: it indexes by some, and adds to others.
_WORD, _NUMBER, _RINGS = range(1 << 64), range(observing.NEVER), frozenset((0, 3))
_POSSIBLE: Final[dict[str, Container[int]]] = {
    "retired": _NUMBER,
    "taken": _NUMBER,
    "unusual": range((at.UNUSUAL_REPEATED | at.UNUSUAL_STORED | at.UNUSUAL_VOLATILE) + 1),
    "ring": _RINGS,
    "inject": range(257),
    "delivering": range(3),
    "mode": range(3),
    "passes": _NUMBER,
    "by_ring": _NUMBER,
}
DEVICES: Final = ("apic", "pic", "pit", "serial", "second", "cmos", "firmware")
_LEAST, _MOST = 1 << 20, 3 << 30  # below the devices; `run --memory` goes as far


class Head(NamedTuple):
    """What a machine is: nothing of it changes while it runs."""

    model: Model
    memory: int
    design: str


class Parts(NamedTuple):
    """A machine without its memory: the frames HEAD, VCPU, STATE and SENT."""

    head: bytes
    vcpu: bytes
    state: bytes
    sent: bytes


def parts(board: Board, sent: bytes = b"") -> Parts:
    """Return a stopped machine without its memory; `sent` is what its second port has sent."""
    vcpu = board.vcpu
    vcpu.serve()
    words = board.words
    tree = {
        "words": {name: captured(words[start : start + count].tolist()) for name, (start, count) in _WORDS.items()},
        "block": captured(_running_block(words)),
        "registers": dict(
            zip(registers.Registers._fields, map(captured, registers.read(board.uc, board.engine.env)), strict=True)
        ),
        "lbr_clock": captured(vcpu.clock()),
        "vcpu": captured(vcpu),
        "devices": {name: captured(getattr(board, name)) for name in DEVICES},
        "idle": captured(board.idle),
        "halted": captured(board.halted),
    }
    return Parts(_head(board), vcpu.saved(), image.pack_json(tree), sent)


def save(board: Board, sent: bytes = b"") -> Iterator[bytes]:
    """Return a stopped machine's snapshot, piece by piece."""
    return write(parts(board, sent), image.as_pages(board.memory))


def write(machine: Parts, pages: npt.NDArray[np.uint64]) -> Iterator[bytes]:
    """Return the image of a machine whose memory is `pages`, piece by piece."""
    packer = image.Packer()
    yield packer.preamble() + packer.frame(image.HEAD, machine.head)
    for content in image.packed(pages, image.not_empty(pages)):
        yield packer.frame(image.PAGES, content)
    yield from ending(packer, machine)


def ending(packer: image.Packer, machine: Parts) -> Iterator[bytes]:
    """Return the frames after the memory."""
    yield packer.frame(image.VCPU, machine.vcpu) + packer.frame(image.STATE, machine.state)
    for start in range(0, len(machine.sent), 1 << 20):
        yield packer.frame(image.SENT, machine.sent[start : start + (1 << 20)])
    yield packer.done()


class Received(NamedTuple):
    """A machine that has arrived whole: its parts and the board that has its memory, and nothing else yet."""

    parts: Parts
    board: Board


def read(source: image.Unpacker, build: Callable[[Head], Board]) -> Received:
    """Return the machine that an image holds, its memory in the board that `build` makes; InputError unless whole."""
    frames = source.frames()
    first = next(frames, None)
    if first is None or first.kind != image.HEAD:
        raise InputError("the machine snapshot contradicts itself: it does not say what machine it is; take a new one")
    head = read_head(first.content)
    board = build(head)
    pages = image.as_pages(board.memory)
    others: dict[bytes, bytes] = {image.VCPU: b"", image.STATE: b"", image.SENT: b""}
    for kind, content in frames:
        if kind == image.PAGES:
            image.unpacked(content, pages)
        elif kind == image.HEAD:
            raise InputError("the machine snapshot contradicts itself: it holds two machines; take a new one")
        else:
            others[kind] += content
    return Received(Parts(first.content, *others.values()), board)


def fresh(head: Head, transmit: Callable[[int], None], deliver: Callable[[int], None]) -> Board:
    """Return a board as a machine's head describes it, with nothing in it."""
    return Board(head.model, head.memory, transmit, deliver, HYPERVISORS[head.design])


def restore(received: Received, offered: Model | None = None) -> Board:
    """Return the board with the machine in it; InputError when the target, which offers a model, cannot have it."""
    machine, board = received
    refuse_unless_offered(read_head(machine.head), machine.vcpu, offered)
    tree = image.unpack_json(machine.state)
    words = board.words
    try:
        for name, (start, count) in _WORDS.items():
            numbers = restored([0], tree["words"][name])
            possible = _POSSIBLE.get(name, _WORD)
            if len(numbers) != count or any(number not in possible for number in numbers):
                raise ValueError(name)
            words[start : start + count] = numbers
        if not is_possible(words):
            raise ValueError("predictor")
        _put_block(words, restored([0], tree["block"]))
        empty = registers.read(board.uc, board.engine.env)
        fields = tree["registers"]
        held = (restored(old, fields[name]) for name, old in zip(empty._fields, empty, strict=True))
        registers.write(board.uc, board.engine.env, registers.Registers(*held))
        board.idle = restored(0, tree["idle"])
        board.halted = restored(0, tree["halted"])
        for name in DEVICES:
            restored(getattr(board, name), tree["devices"][name])
        restored(board.vcpu, tree["vcpu"])
        board.vcpu.restore(machine.vcpu, restored((0, 0, 0), tree["lbr_clock"]))
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise InputError("the machine snapshot contradicts itself: its state has another form") from error
    return board


# What a machine is --------------------------------------------------------------------------------------------------


def _head(board: Board) -> bytes:
    model = board.vcpu.model
    told = {
        "name": model.name,
        "signature": captured(model.signature),
        "pmu": captured(tuple(model.pmu)),
        "lbr": captured(tuple(model.lbr)),
        "lbr_format": captured(model.lbr_format),
        "hidden": sorted(model.hidden),
    }
    head = {
        "version": image.VERSION, "engine": f"unicorn {unicorn.__version__}", "model": told,
        "memory": len(board.memory), "design": board.vcpu.hypervisor.name,
    }  # fmt: skip
    return image.pack_json(head)


def read_head(content: bytes) -> Head:
    """Return what machine a HEAD frame speaks of; InputError when there can be none here."""
    tree = image.unpack_json(content)
    try:
        told = tree["model"]
        model = Model(
            str(told["name"]),
            restored(0, told["signature"]),
            Leaf0A(*(restored(0, word) for word in told["pmu"])),
            Leaf1C(*(restored(0, word) for word in told["lbr"])),
            restored(0, told["lbr_format"]),
            frozenset(told["hidden"]),
        )
        head = Head(model, int(tree["memory"]), str(tree["design"]))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            "the machine snapshot contradicts itself: its head has another form; take a new one"
        ) from error
    if head.design not in HYPERVISORS:
        raise InputError(f"the machine was made with design {head.design!r}, which this archlbr has not")
    if not _LEAST <= head.memory <= _MOST or head.memory % image.PAGE:
        raise InputError(f"no machine has {head.memory} bytes of memory; take a new snapshot")
    return head


def refuse_unless_offered(head: Head, vcpu: bytes, offered: Model | None) -> None:
    """Do nothing if a target that offers a model's features can have the machine, else raise InputError with the lack.

    Without `offered` the target offers what the machine's own model has.
    """
    model = offered or head.model
    target = Vcpu(model, np.zeros(observing.OBSERVING_WORDS, np.uint64), HYPERVISORS[head.design])
    lacking = vpmu.mismatch(target.design, target.platform, target.state, unpack(vcpu))
    if not lacking:
        for leaf, places in ((1, (2, 3)), (7, (1, 3)), (0x80000001, (2, 3))):
            theirs, ours = head.model.answer_cpuid(leaf, 0), model.answer_cpuid(leaf, 0)
            for place in places:
                bits = theirs[place] & ~ours[place]
                lacking = lacking or (f"its CPUID.{leaf:X}H:E{'ABCD'[place]}X lacks {bits:#x}" if bits else "")
    if not lacking and "xsave" in model.hidden - head.model.hidden:
        lacking = "it has no XSAVE (CPUID.1:ECX[26])"
    if lacking:
        raise InputError(f"this target cannot have the machine: {lacking}; choose another --cpu")


# The block that runs: its entry is found again in an empty table ----------------------------------------------------


def _running_block(words: npt.NDArray[np.uint64]) -> list[int]:
    entry = int(words[at.CURRENT])
    if not entry:
        return []
    key, end, last, meta = (int(word) for word in words[entry : entry + at.ENTRY])
    if not key >> 63:
        key ^= (int(words[observing.REMAPPED]) - int(words[observing.FIRST_REMAP])) << observing.KEY_SHIFT
    return [key, end, last, meta]


def _put_block(words: npt.NDArray[np.uint64], entry: list[int]) -> None:
    now = ctypes.c_uint64.from_address(page.REMAPS).value
    words[observing.REMAPPED] = words[observing.FIRST_REMAP] = now
    if not entry:
        return
    key, end, last, meta = entry
    slot = at.TABLE + at.ENTRY * observing.home(key)
    words[slot : slot + at.ENTRY] = (key, end, last, meta)
    words[at.TABLE_USED] = 1
    words[at.CURRENT] = slot
