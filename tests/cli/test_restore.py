"""`run --snapshot`, `snapshot`, `restore` and `migrate` from the shell: what the parts print together is one run's."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from archlbr.cli.app import main
from archlbr.cli.control import Control, save
from tests.cli.shell import archlbr
from tests.guests.build import Guests
from tests.guests.linux import FOLDER
from tests.machine.mover import started

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STATUS = 0x83  # of mover.S
HALF = 20_000_000
LINUX = ["--kernel", str(FOLDER / "vmlinuz"), "--initrd", str(FOLDER / "guest.cpio"), "--append"]
LINUX.append("console=ttyS0 mitigations=off rdinit=/init quiet")
# perf samples a program's branches meanwhile; its profile comes out by the second serial port.
TYPED = (
    b"echo [perf]; perf record -q -b -e branches:u -c 10007 -o p.data -- interpreter 2; echo [end]\n"
    b"cat p.data > /dev/ttyS1\npoweroff -f\n"
)
needs_guest = pytest.mark.skipif(
    not (FOLDER / "interpreter").exists(), reason="needs build/guest: make guest fetches a kernel and busybox with apt"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Guests(tmp_path_factory.mktemp("mover")).mover


def archlbr_process(*words: object, stdin: int | None = None, out: Path | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "archlbr", *map(str, words)]
    with contextlib.ExitStack() as files:
        stdout = files.enter_context(out.open("wb")) if out is not None else subprocess.PIPE
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL if stdin is None else stdin, stdout=stdout, stderr=subprocess.PIPE
        )


def waited(until: Callable[[], object], seconds: float = 120) -> None:
    """Wait for what a function says."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_halves_print_what_one_run_prints(program: Path, tmp_path: Path) -> None:
    kernel, sent, file = ("--kernel", program, "--memory", "64M"), tmp_path / "sent", tmp_path / "machine"
    runs = []
    for words in (
        ("run", *kernel, "-o", sent),
        ("run", *kernel, "--until", HALF, "--snapshot", file),
        ("restore", file, "-o", sent),
    ):
        run = archlbr_process(*words)
        out, err = run.communicate(timeout=120)
        assert err == b""
        runs.append((run.returncode, out))
        if not runs[1:]:
            before = sent.read_bytes()
    assert [status for status, _ in runs] == [STATUS, 0, STATUS]
    whole, first, second = (out for _, out in runs)
    assert (len(first) > 50, len(second) > 50, first + second == whole) == (True, True, True)
    assert sent.read_bytes() == before == bytes(range(1, 25))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["restore", "{}/none"], "cannot read {}/none: No such file or directory; name a snapshot that can be read"),
        (["restore", "{}/text"], "this is no machine snapshot: it does not begin with ALBRMACH"),
        (["restore", "{}/x.incoming"], "{}/x.incoming was received and not handed over; if its source left neither"),
        (["restore", "{}/gone"], "the machine that was in {}/gone was handed over to there:1"),
        (["restore", "{}/damaged"], "the machine that was in {}/damaged was handed over to another process"),
        (["restore", "{}/text", "--snapshot", "x"], "--snapshot says where, not when: give the model's clock"),
        (["restore", "{}/text", "--until", "-5"], "--until -5: no clock is there; give nanoseconds since"),
        (["restore", "{}/x", "--incoming", "nowhere"], "'nowhere' is no address: give HOST:PORT, such as"),
        (["snapshot", "{}/none", "{}/x"], "no machine answers at {}/none: No such file or directory; give what"),
        (["migrate", "{}/none", "localhost:1"], "no machine answers at {}/none: No such file or directory; give what"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path, words: list[str], reason: str) -> None:
    (tmp_path / "text").write_bytes(b"no snapshot at all")
    (tmp_path / "gone").write_bytes(b'ALBRGONE{"nonce": "1", "to": "there:1"}')
    (tmp_path / "damaged").write_bytes(b'ALBRGONE{"nonce": "1", "to"')
    done = archlbr(*(word.format(tmp_path) for word in words))
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("archlbr: " + reason.format(tmp_path))
    assert done.err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_target_with_fewer_features_refuses_a_file(program: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "machine")
    machine = started(program)
    machine.board.run(HALF)
    save(machine.board, b"", file)
    done = archlbr("restore", file, "--cpu", "skylake-server")
    assert (done.status, done.out) == (2, "")
    assert "the source's LBRs are architectural, the target's of the legacy format 5" in done.err


def test_a_snapshot_that_is_killed_leaves_the_old_file_or_the_new_one(program: Path, tmp_path: Path) -> None:
    file = tmp_path / "machine"
    machine = started(program)
    machine.board.run(HALF)
    whole = machine.saved()

    def begin() -> int:
        file.write_bytes(b"old")
        pid = os.fork()
        if pid == 0:
            save(machine.board, bytes(machine.sent), str(file))
            os._exit(0)
        return pid

    started_at, draw = time.monotonic(), random.Random(9)
    os.waitpid(begin(), 0)  # in a child, as the ones that are killed: its first writes copy pages
    seconds = time.monotonic() - started_at
    found = {"old": 0, "new": 0}
    for _ in range(30):
        pid = begin()
        time.sleep(draw.random() * 2 * seconds)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        content = file.read_bytes()
        assert content in (b"old", whole)
        found["old" if content == b"old" else "new"] += 1
        seconds *= 1.25 if content == b"old" else 0.8  # how busy the machine is may change
    assert min(found.values()) > 0


def test_a_machine_is_asked_through_its_socket(tmp_path: Path) -> None:
    image = Guests(tmp_path).endless_board
    control = tmp_path / "socket"
    machine = archlbr_process("run", "--kernel", image, "--memory", "64M", "--control", control)
    try:
        waited(control.exists)
        assert control.stat().st_mode & 0o777 == 0o600
        assert main(["snapshot", str(control), str(tmp_path / "machine")]) == 0
        assert main(["restore", str(tmp_path / "machine"), "--until", "1"]) == 0
        refused = archlbr("snapshot", str(control), str(tmp_path / "none" / "machine"))
        assert (refused.status, refused.err.count("\n")) == (2, 1)
        taken = archlbr("run", "--kernel", str(image), "--memory", "64M", "--control", str(control))
        assert taken.err == f"archlbr: another machine listens at {control}; name another --control\n"
    finally:
        machine.kill()
        machine.communicate()


@pytest.mark.parametrize(
    "request_", [b"nonsense\n", b"[1]\n", b"7\n", b"{}\n", b"[" * 60000 + b"\n", b""], ids=lambda sent: str(sent[:9])
)
def test_a_machine_goes_on_whatever_its_socket_is_sent(program: Path, tmp_path: Path, request_: bytes) -> None:
    path = str(tmp_path / "socket")
    with Control(path, started(program).board, bytearray()) as control, socket.socket(socket.AF_UNIX) as asker:
        asker.connect(path)
        asker.sendall(request_)
        asker.shutdown(socket.SHUT_WR)
        assert control.look() is False
        assert asker.recv(100).startswith(b'{"refused": "this is no request: ')


def test_a_wait_for_a_machine_has_an_end(tmp_path: Path) -> None:
    done = archlbr("restore", str(tmp_path / "there"), "--incoming", "127.0.0.1:0", "--timeout", "0.2",
                   "-o", str(tmp_path / "sent"))  # fmt: skip
    waiting, late = done.err.splitlines()
    assert (done.status, done.out) == (124, "")
    assert late == waiting.replace("waiting for a machine at", "no machine came to") + " within 0.2 s"
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_says_nothing_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    target = archlbr_process("restore", tmp_path / "there", "--incoming", "127.0.0.1:0", "--timeout", "3")
    assert target.stderr is not None
    [port] = re.findall(rb"127\.0\.0\.1:(\d+)$", target.stderr.readline().strip())
    with socket.create_connection(("127.0.0.1", int(port))):
        _, said = target.communicate(timeout=120)
    assert (target.returncode, said) == (2, b"archlbr: the source ended before the machine was here: timed out\n")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_wait_is_one_line(tmp_path: Path) -> None:
    target = archlbr_process("restore", tmp_path / "there", "--incoming", "127.0.0.1:0")
    assert target.stderr is not None
    [place] = re.findall(rb"127\.0\.0\.1:\d+$", target.stderr.readline().strip())
    target.send_signal(signal.SIGINT)
    _, said = target.communicate(timeout=60)
    assert said.decode() == f"archlbr: interrupted while waiting at {place.decode()}: no machine came\n"
    assert target.returncode == 130
    assert list(tmp_path.iterdir()) == []


@needs_guest
def test_perf_in_linux_goes_on_over_a_snapshot_and_a_move(tmp_path: Path) -> None:
    typed = tmp_path / "typed"
    typed.write_bytes(TYPED)
    with typed.open("rb") as stdin:
        whole = archlbr_process("run", *LINUX, "-o", tmp_path / "whole", stdin=stdin.fileno(), out=tmp_path / "out")
        assert whole.wait(300) == 0
        whole.communicate()
    profile, console = (tmp_path / "whole").read_bytes(), (tmp_path / "out").read_bytes()
    if b"perf: not found" in console:
        pytest.skip("needs perf in the guest: install linux-perf and make guest again")
    assert profile.startswith(b"PERFILE2")
    with typed.open("rb") as stdin:
        control, file, parts = tmp_path / "socket", tmp_path / "machine", [tmp_path / f"part{n}" for n in range(3)]
        first = archlbr_process("run", *LINUX, "--control", control, stdin=stdin.fileno(), out=parts[0])
        waited(lambda: b"\n[perf]" in parts[0].read_bytes())
        assert main(["snapshot", str(control), str(file)]) == 0
        first.kill()
        first.communicate()
        # What the first had shown when it was asked for the snapshot is not known from outside: only what follows is.
        control = tmp_path / "second"
        source = archlbr_process("restore", file, "--control", control, stdin=stdin.fileno(), out=parts[1])
        target = archlbr_process(
            "restore", tmp_path / "there", "--incoming", "127.0.0.1:0", "-o", tmp_path / "moved", stdin=stdin.fileno(),
            out=parts[2],
        )  # fmt: skip
        assert target.stderr is not None
        [port] = re.findall(rb"127\.0\.0\.1:(\d+)$", target.stderr.readline().strip())
        waited(control.exists)
        assert main(["migrate", str(control), f"127.0.0.1:{int(port)}"]) == 0
        assert (source.wait(60), target.wait(300)) == (0, 0)
        source.communicate()
        target.communicate()
    assert console.startswith(parts[0].read_bytes())  # two runs up to there: the same, byte for byte
    rest = parts[1].read_bytes() + parts[2].read_bytes()
    assert b"[end]" in rest
    assert console.endswith(rest)
    assert (tmp_path / "moved").read_bytes() == profile
    assert not (tmp_path / "there").exists()
