"""A machine moves between two processes; whichever is killed at whichever step, one machine goes on, the same one."""

from __future__ import annotations

import signal
import socket
import threading
import zlib
from typing import TYPE_CHECKING

import pytest

from archlbr.errors import InputError
from archlbr.machine import image, migrate, snapshot
from archlbr.machine.arrival import Arrival
from archlbr.machine.models import SKYLAKE_SERVER
from archlbr.machine.snapshot import fresh
from tests.guests.build import Guests
from tests.machine.mover import Whole, started
from tests.machine.moving import BEGIN, SOURCE, TARGET, Outcome, Plan, left_on_disk, move

if TYPE_CHECKING:
    from pathlib import Path

    from archlbr.machine.board import Board

# Steps that count in a move that nobody disturbs; test_a_machine_moves holds them to what happens.
STEPS = {SOURCE: 9, TARGET: 11}
GO = 6  # the source's step at which it would say `go`


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Guests(tmp_path_factory.mktemp("mover")).mover


@pytest.fixture(scope="module")
def undisturbed(program: Path) -> Whole:
    return started(program).ended()


def anywhere(whole: Whole) -> Whole:
    """Return a machine without its console, which is told by two processes."""
    return whole._replace(console=b"")


def test_a_machine_moves_and_is_the_same(program: Path, undisturbed: Whole, tmp_path: Path) -> None:
    outcome = move(program, tmp_path, Plan())
    assert (outcome.status, outcome.said) == ({SOURCE: 0, TARGET: 0}, {SOURCE: "", TARGET: ""})
    assert list(outcome.whole) == [TARGET]
    there = outcome.whole[TARGET]
    before = (tmp_path / "console").read_bytes()
    assert before
    assert there.console
    assert there._replace(console=before + there.console) == undisturbed
    assert left_on_disk(tmp_path) == {}
    assert outcome.steps == STEPS


@pytest.mark.parametrize(
    ("victim", "step"), [(side, step) for side, count in STEPS.items() for step in range(1, count + 1)]
)
def test_whoever_is_killed_one_machine_goes_on(
    program: Path, undisturbed: Whole, tmp_path: Path, victim: str, step: int
) -> None:
    outcome = move(program, tmp_path, Plan(victim, step))
    assert outcome.status == {SOURCE: 0, TARGET: 0} | {victim: -signal.SIGKILL}
    machines = [*outcome.whole.values(), *left_on_disk(tmp_path).values()]
    assert [anywhere(machine) for machine in machines] == [anywhere(undisturbed)]


@pytest.mark.parametrize("flip", [1, 60, 200, 1300, 9_000])
def test_a_stream_that_is_damaged_on_the_way_is_refused_and_the_source_goes_on(
    program: Path, undisturbed: Whole, tmp_path: Path, flip: int
) -> None:
    outcome = move(program, tmp_path, Plan(flip=flip))
    assert outcome.whole == {SOURCE: undisturbed}
    assert outcome.said[TARGET]
    assert left_on_disk(tmp_path) == {}
    assert {path.name for path in tmp_path.iterdir()} == {"source.end", "target.end"}


def test_a_target_that_cannot_see_the_source_s_file_runs_nothing(program: Path, tmp_path: Path) -> None:
    outcome: Outcome = move(program, tmp_path, Plan(SOURCE, GO, host="another host"))
    assert outcome.whole == {}
    assert outcome.said[TARGET].startswith("the source ended without a word, and its file ")
    assert list(left_on_disk(tmp_path)) == [TARGET]  # what a person does who has looked


def test_a_target_with_fewer_features_refuses_before_anything_is_sent(program: Path, tmp_path: Path) -> None:
    machine = started(program)
    machine.board.run(BEGIN)
    heard: list[str] = []

    def answer(channel: socket.socket) -> None:
        try:
            Arrival(channel, str(tmp_path / TARGET), SKYLAKE_SERVER).receive(lambda head: fresh(head, print, print))
        except InputError as error:
            heard.append(str(error))

    words = {migrate.KEY: migrate.VERSION, "nonce": "1", "note": str(tmp_path / SOURCE), "host": migrate.boot_id()}
    parts = snapshot.parts(machine.board)
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as lines:
        thread = threading.Thread(target=answer, args=(theirs,))
        thread.start()
        migrate.say(ours, **words, head=parts.head.decode(), vcpu=parts.vcpu.hex())
        said = migrate.hear(lines)
        thread.join()
    assert "the source's LBRs are architectural, the target's of the legacy format 5" in said["refuse"]
    assert heard == [said["refuse"]]
    assert list(tmp_path.iterdir()) == []


def test_every_byte_of_the_introduction_is_checked_before_anything_is_built(program: Path, tmp_path: Path) -> None:
    parts = snapshot.parts(started(program).board)
    words = {migrate.KEY: migrate.VERSION, "nonce": "1", "note": str(tmp_path / SOURCE), "host": migrate.boot_id()}
    line = migrate.line_of(words | {"head": parts.head.decode(), "vcpu": parts.vcpu.hex()})
    packer = image.Packer()
    frames = packer.preamble() + packer.frame(image.HEAD, parts.head)
    built: list[snapshot.Head] = []

    def build(head: snapshot.Head) -> Board:
        built.append(head)
        raise InputError("this is far enough")

    def arrives(sent: bytes) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(sent)
            ours.shutdown(socket.SHUT_WR)
            with pytest.raises(InputError):
                Arrival(theirs, str(tmp_path / TARGET), None).receive(build)
        assert list(tmp_path.iterdir()) == []

    for place in range(len(line) - 1):
        damaged = bytearray(line)
        damaged[place] ^= 1 << place % 8
        arrives(bytes(damaged) + frames)
    assert built == []
    arrives(line + frames)
    assert built == [snapshot.read_head(parts.head)]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (
            b"GET / HTTP/1.1\r\n\r\n",
            "this is no machine's migration, or it is damaged; connect `archlbr migrate`",
        ),
        (
            migrate.line_of({}),
            "this is no machine's migration of version 1 but another protocol",
        ),
        (migrate.line_of({migrate.KEY: 2}), "this is no machine's migration of version 1 but version 2"),
        (migrate.line_of({migrate.KEY: 1}), "the migration contradicts itself"),
        (b"", "this is no machine's migration of version 1 but another protocol"),
        *(
            (b"%08x %b\n" % (zlib.crc32(text), text), "this is no machine's migration, or it is damaged; connect")
            for text in (b"no JSON", b"[1]", b"[" * 100_000)
        ),
    ],
)
def test_a_foreign_stream_is_refused(tmp_path: Path, sent: bytes, reason: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(sent)
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(InputError) as caught:
            Arrival(theirs, str(tmp_path / TARGET), None).receive(lambda head: fresh(head, print, print))
    assert str(caught.value).startswith(reason)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", "host:70000"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no address: give HOST:PORT"):
        migrate.parse_address(text)
