"""A machine's snapshot: what comes out of it goes on as if nothing had happened; nothing damaged comes out of it."""

from __future__ import annotations

import io
import random
import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from archlbr.arch.cpuid import GOLDEN_COVE
from archlbr.cpu import words as at
from archlbr.errors import InputError
from archlbr.machine import image, snapshot
from archlbr.machine.models import SAPPHIRE_RAPIDS, SKYLAKE_SERVER, without
from archlbr.machine.state import captured
from archlbr.machine.state import restored as rebuilt
from tests.guests.build import Guests
from tests.machine.mover import Whole, restored, started

if TYPE_CHECKING:
    from pathlib import Path

    from archlbr.machine.board import Board
    from archlbr.machine.models import Model

LINES, STATUS = 24, 0x83  # of mover.S: 'A' << 1 | 1


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Guests(tmp_path_factory.mktemp("mover")).mover


@pytest.fixture(scope="module")
def undisturbed(program: Path) -> Whole:
    return started(program).ended()


@pytest.fixture(scope="module")
def half(program: Path) -> bytes:
    machine = started(program)
    machine.board.run(30_000_123)
    return machine.saved()


def test_two_runs_are_the_same_and_use_what_a_snapshot_carries(program: Path, undisturbed: Whole) -> None:
    assert started(program).ended() == undisturbed
    lines = undisturbed.console.split()
    assert (undisturbed.status, len(lines), len(set(lines))) == (STATUS, LINES, LINES)
    assert undisturbed.parts.sent == bytes(range(1, LINES + 1))


def test_stops_in_between_change_nothing(program: Path, undisturbed: Whole) -> None:
    machine, draw = started(program), random.Random(5)
    halted = before_a_block = 0
    while machine.board.run(machine.board.now() + draw.randrange(1, 100_000)) is None:
        halted += machine.board.halted
        before_a_block += int(machine.board.words[at.UNUSUAL] != 0)
    assert machine.whole() == undisturbed
    assert halted > 20
    assert before_a_block > 20


def test_a_restored_machine_goes_on_exactly(program: Path, undisturbed: Whole) -> None:
    machine, draw = started(program), random.Random(24)
    halted = 0
    for turn in range(12):
        machine.board.run(machine.board.now() + draw.randrange(1, 2_000_000))
        if turn % 3:  # most of the time it sleeps
            machine.board.run(machine.board.pit.due + draw.randrange(1, 9_000))
        copy = restored(machine.saved(), bytes(machine.console))
        assert copy.whole() == machine.whole()
        assert copy.ended() == undisturbed
        halted += machine.board.halted
    assert machine.ended() == undisturbed  # being saved changes nothing either
    assert 0 < halted < 9


def test_a_machine_without_lbrs_is_restored_too(program: Path) -> None:
    for model in (SKYLAKE_SERVER, without(SAPPHIRE_RAPIDS, "pmu")):
        machine = started(program, model)
        machine.board.run(20)
        assert machine.board.status is None
        copy = restored(machine.saved(), bytes(machine.console))
        assert copy.whole() == machine.whole()


def looked_at(data: bytes) -> None:
    """Read a snapshot to its end, into memory without a machine."""
    source = image.Unpacker(io.BytesIO(data).read)
    snapshot.read(source, lambda head: cast("Board", SimpleNamespace(memory=memoryview(bytearray(head.memory)))))
    source.end()


def test_each_bit_that_flips_is_refused(half: bytes) -> None:
    looked_at(half)
    draw = random.Random(7)
    places = [*range(200), *range(len(half) - 100, len(half)), *(draw.randrange(len(half)) for _ in range(300))]
    for place in places:
        damaged = bytearray(half)
        damaged[place] ^= 1 << draw.randrange(8)
        with pytest.raises(InputError):
            looked_at(bytes(damaged))


def frames_of(data: bytes) -> list[image.Frame]:
    """Read an image's frames to its end, without a machine."""
    source = image.Unpacker(io.BytesIO(data).read)
    found = list(source.frames())
    source.end()
    return found


def small() -> list[bytes]:
    """Return the pieces of an image with a frame of each kind, and two of one: preamble, frames, end."""
    packer = image.Packer()
    contents = [(image.HEAD, b"{}"), (image.PAGES, bytes(range(40))), (image.PAGES, b""), (image.VCPU, b"\xff" * 9),
                (image.STATE, b'{"a":"0x1"}'), (image.SENT, b"sent")]  # fmt: skip
    return [packer.preamble(), *(packer.frame(*content) for content in contents), packer.done()]


def test_every_bit_of_every_field_of_every_kind_of_frame_is_checked() -> None:
    whole = b"".join(small())
    assert [frame.kind for frame in frames_of(whole)] == [b"HEAD", b"PAGE", b"PAGE", b"VCPU", b"CPUS", b"SENT"]
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InputError):
            frames_of(bytes(damaged))
    for length in range(len(whole)):
        with pytest.raises(InputError):
            frames_of(whole[:length])


def test_frames_that_are_lost_repeated_or_in_another_order_are_refused() -> None:
    # Each frame's own checksum is right: the digest of the whole says it.
    pieces = small()
    last = len(pieces) - 1
    for at_frame in range(1, last):
        for wrong in (
            pieces[:at_frame] + pieces[at_frame + 1 :],
            pieces[: at_frame + 1] + pieces[at_frame:],
            [*pieces[:at_frame], *pieces[at_frame : at_frame + 2][::-1], *pieces[at_frame + 2 :]],
        ):
            with pytest.raises(InputError):
                frames_of(b"".join(wrong))


def test_every_byte_of_a_machine_s_snapshot_is_checked(half: bytes) -> None:
    assert len(half) > 10_000
    for place in range(len(half)):
        damaged = bytearray(half)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(InputError):
            frames_of(bytes(damaged))


def test_what_is_cut_off_or_added_to_is_refused(half: bytes) -> None:
    draw = random.Random(8)
    for length in [*range(40), *range(len(half) - 60, len(half)), *(draw.randrange(len(half)) for _ in range(100))]:
        with pytest.raises(InputError):
            looked_at(half[:length])
    with pytest.raises(InputError, match="damaged"):
        looked_at(half + b"\0")


def test_what_is_no_snapshot_or_of_another_version_is_refused(half: bytes) -> None:
    with pytest.raises(InputError, match="this is no machine snapshot: it does not begin with ALBRMACH"):
        looked_at(b"\x7fELF" + bytes(60))
    with pytest.raises(InputError, match="machine snapshot of version 3: this archlbr reads version 2"):
        looked_at(half[:8] + struct.pack("<I", 3) + half[12:])


@pytest.mark.parametrize(
    ("offered", "lack"),
    [
        (SKYLAKE_SERVER, "the source's LBRs are architectural, the target's of the legacy format 5"),
        (without(SAPPHIRE_RAPIDS, "arch-lbr"), "the source's LBRs are architectural, the target's off"),
        (without(SAPPHIRE_RAPIDS, "pmu"), "the source's LBRs are architectural, the target's off"),
        (SAPPHIRE_RAPIDS._replace(lbr=GOLDEN_COVE._replace(eax=GOLDEN_COVE.eax & ~0xFF | 1)), "the target's (8,)"),
        (SAPPHIRE_RAPIDS._replace(lbr=GOLDEN_COVE._replace(ebx=0)), "the target's CPUID.1CH lacks EBX 0x7"),
    ],
)
def test_a_target_that_lacks_something_refuses(half: bytes, offered: Model, lack: str) -> None:
    with pytest.raises(InputError) as caught:
        restored(half, offered=offered)
    assert lack in str(caught.value)


def test_a_target_that_has_all_takes_it(half: bytes, undisturbed: Whole) -> None:
    assert restored(half, offered=SAPPHIRE_RAPIDS).ended().parts == undisturbed.parts


# What no snapshot holds: wiring to other parts, what is decided at the start, and what is found again.
WIRING = {
    "LocalApic": {"_clock", "_period"},
    "_Chip": set(),
    "Pic": set(),
    "_Channel": set(),
    "Pit": {"_clock", "_tick"},
    "Serial": {"ports", "_transmit", "_interrupt"},
    "Cmos": {"_clock"},
    "FirmwareConfiguration": {"_entries"},
    "Vcpu": {
        "model",
        "hypervisor",
        "design",
        "platform",
        "_words",
        "_lbr",
        "_fast",
        "_raw",
        "_old",
        "_counting",
        "_counts",
        "_entries",
        "extended",
        "state",
    },
}
# The devices, `words`, the engine's registers, memory, `idle` and `halted` are saved; a machine that has ended is not.
BOARD = {
    "status", "cause", "idle", "halted", "stopping", "memory", "words", "vcpu", "engine", "uc", "ports", "_traced",
    "_deliver", "_ram", "_scratch", "_decoder", *snapshot.DEVICES,
}  # fmt: skip


def test_no_attribute_of_a_device_is_forgotten(program: Path) -> None:
    board = started(program).board
    assert {name for name in vars(board) if not name.startswith("_decoder")} <= BOARD
    parts: list[Any] = [*(getattr(board, name) for name in snapshot.DEVICES), board.vcpu]
    for part in parts:
        inner = [item for name in part.STATE for item in _objects(getattr(part, name))]
        parts += inner
        assert set(vars(part)) - set(part.STATE) == WIRING[type(part).__name__], type(part).__name__


def _objects(value: object) -> list[Any]:
    return [item for item in value if hasattr(item, "STATE")] if isinstance(value, tuple) else []


def test_a_tree_of_another_shape_is_refused() -> None:
    for value, tree in ((0, "x"), (0, 7), ((0, 0), ["0x1"]), ({1: 2}, [["0x2", "0x2"]]), ([0], "0x1"), (b"", "0x")):
        with pytest.raises(InputError):
            rebuilt(value, tree)


@pytest.mark.parametrize(
    ("device", "inner", "name", "value"),
    [
        ("pit", "_channels", "reload", "0x0"),  # the tick's period would be 0
        ("pit", "_channels", "reload", "0x10001"),
        ("pic", "_chips", "base", "0xffffffffffffffff"),  # no vector
        ("pic", "_chips", "base", "-0x1"),
    ],
)
def test_what_a_device_s_register_cannot_hold_is_refused(
    program: Path, device: str, inner: str, name: str, value: str
) -> None:
    part = getattr(started(program).board, device)
    tree = captured(part)
    rebuilt(part, tree)
    tree[inner][0][name] = value
    with pytest.raises(InputError):
        rebuilt(part, tree)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("ring", 0, 0xFFFFFFFF),  # compiled code adds it to an index
        ("ring", 0, 1),
        ("mode", 0, 3),
        ("delivering", 0, 3),
        ("inject", 0, 258),
        ("unusual", 0, 8),
        ("retired", 0, (1 << 64) - 1),
        ("taken", 0, 1 << 62),
        ("passes", 0, 1 << 62),
        ("by_ring", 15, 1 << 63),
        ("predictor", 0, 4),  # a counter has two bits
        ("predictor", at.PREDICTOR_WORDS - 1, at.RETURNS),  # the return stack's top
    ],
)
def test_words_that_would_lead_compiled_code_astray_are_refused(
    program: Path, name: str, place: int, value: int
) -> None:
    board = started(program).board
    whole = snapshot.parts(board)
    tree = image.unpack_json(whole.state)
    tree["words"][name][place] = f"{value:#x}"
    changed = snapshot.Received(whole._replace(state=image.pack_json(tree)), started(program).board)
    with pytest.raises(InputError, match="its state has another form"):
        snapshot.restore(changed)
    snapshot.restore(snapshot.Received(whole, started(program).board))
