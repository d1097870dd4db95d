"""`archlbr run` with guests that share a processor: what it prints, how it ends, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from archlbr.cli.app import main
from archlbr.machine.models import SAPPHIRE_RAPIDS, SKYLAKE_SERVER
from tests.machine.sharing_guests import bzimage, echoing, quiet, reading, saying, steady, unread

if TYPE_CHECKING:
    from pathlib import Path

VLBR = ("--cpu", "skylake-server", "--design", "vlbr-6.12")


def image(folder: Path, name: str, code: bytes, number: int) -> str:
    path = folder / name
    path.write_bytes(bzimage(code, number))
    return str(path)


def run(*words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "archlbr", "run", "--memory", "64M", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, input=typed)


def test_two_guests_with_archlbr_hold_nothing_foreign(tmp_path: Path) -> None:
    kernels = [image(tmp_path, "a", steady(SAPPHIRE_RAPIDS), 0), image(tmp_path, "b", steady(SAPPHIRE_RAPIDS), 1)]
    event = ("--host-event", "flexible,exclude_guest")
    ended = run("--kernel", kernels[0], "--kernel", kernels[1], "--slice", "700", *event)
    assert ended.returncode == 0
    first, second, host, last = ended.stderr.splitlines()
    assert first == "A: 12 stacks, 384 records, 0 foreign"
    assert second == "B: 12 stacks, 384 records, 0 foreign"
    assert host.startswith("host: ")
    assert " records, 0 foreign, " in host
    assert host.endswith(", 0 hold an old one")
    assert last == "archlbr: no property was broken"


def test_the_leak_from_one_guest_to_the_other_is_named_and_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernels = [image(tmp_path, "a", steady(SKYLAKE_SERVER), 0), image(tmp_path, "b", quiet(SKYLAKE_SERVER), 1)]
    ended = run("--kernel", kernels[0], "--kernel", kernels[1], "--slice", "2000", *VLBR, "--format", "json")
    assert ended.returncode == 1
    told = json.loads(ended.stderr)
    assert (told["version"], told["design"], list(told["parties"])) == (1, "vlbr-6.12", ["A", "B", "host"])
    assert told["parties"]["A"]["foreign"] == 32
    assert told["broken"]["S2"]["times"] == 32
    assert told["broken"]["S2"]["names"] == ["I5b"]
    assert main(["replay", told["broken"]["S2"]["replay"]]) == 1
    assert "vlbr-6.12/neighbours violates S2" in capsys.readouterr().out


def test_an_event_that_perf_cannot_create_leaks_and_is_named(tmp_path: Path) -> None:
    kernels = [image(tmp_path, "a", steady(SKYLAKE_SERVER), 0), image(tmp_path, "b", unread(), 1)]
    words = ("--kernel", kernels[0], "--kernel", kernels[1], "--slice", "2000", *VLBR, "--format", "json")
    ended = run(*words, "--refuse", "1")
    assert ended.returncode == 1
    assert json.loads(ended.stderr)["broken"]["S2"]["names"] == ["I5"]
    assert run(*words).returncode == 0


def test_a_host_event_and_a_guest_alone_in_words(tmp_path: Path) -> None:
    kernel = image(tmp_path, "a", reading(SKYLAKE_SERVER), 0)
    ended = run("--kernel", kernel, "--slice", "2000", *VLBR, "--host-event", "pinned,exclude_guest", "--stats")
    assert ended.returncode == 1
    lines = ended.stderr.splitlines()
    broken = "vlbr-6.12 breaks S1 (no record of the host's is ever returned to a guest)"
    assert any(line.startswith(broken) for line in lines)
    named = "  I3: a vLBR added as second user gets the host's records, nothing resets; "
    assert any(line.startswith(named) and "archlbr replay archlbr-replay-" in line for line in lines)
    assert lines[-1].startswith("stats: instructions=")


def test_lines_of_two_consoles_begin_with_their_guest(tmp_path: Path) -> None:
    kernels = [image(tmp_path, "a", saying(b"one\ntwo\n"), 0), image(tmp_path, "b", saying(b"three"), 1)]
    ended = run("--kernel", kernels[0], "--kernel", kernels[1])
    assert sorted(ended.stdout.splitlines()) == ["A: one", "A: two", "B: three"]


def test_what_is_typed_goes_to_both_guests(tmp_path: Path) -> None:
    kernels = [image(tmp_path, "a", echoing(), 0), image(tmp_path, "b", echoing(), 1)]
    ended = run("--kernel", kernels[0], "--kernel", kernels[1], typed="hi.")
    assert sorted(ended.stdout.splitlines()) == ["A: hi.", "B: hi."]


def test_a_single_guest_under_such_a_design_is_told_of_too(tmp_path: Path) -> None:
    ended = run("--kernel", image(tmp_path, "a", saying(b"x"), 0), "--design", "mediated")
    assert ended.stdout == "x"
    assert ended.stderr.startswith("archlbr: the guest has no LBRs: ")


def test_a_design_without_lbrs_for_the_processor_says_why(tmp_path: Path) -> None:
    kernel = image(tmp_path, "a", saying(b"x"), 0)
    ended = run("--kernel", kernel, "--kernel", kernel, "--design", "vlbr-6.12")
    assert "A has no LBRs: KVM cannot virtualize the LBRs here: the VMX controls or the PMU are missing" in ended.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--host-event", "sometimes"), "unknown host event 'sometimes': begin with pinned or flexible"),
        (("--host-event", "pinned,now"), "unknown word 'now' of a host event"),
        (("--host-event", "pinned,period=0"), "a period of 0 samples for ever"),
        (("--host-event", "pinned", "--slice", "0"), "a slice of 0 instructions"),
        (("--host-event", "pinned", "-o", "x"), "-o and --trace take what one guest sends or does"),
        (("--kernel", "{}", "--kernel", "{}"), "3 guests: 2 can share a processor"),
        (("--refuse", "1"), "--refuse is for guests that share a processor"),
        (("--kernel", "{}", "--refuse", "-1"), "--refuse -1: creations are counted from 1"),
        (
            ("--design", "vlbr-6.12", "--host-event", "pinned"),
            "--host-event under vlbr-6.12 is modelled on the LBRs that it knows: use --cpu skylake-server",
        ),
        (("--design", "mine"), "unknown design 'mine': use one of archlbr, vlbr-6.1, vlbr-6.12, series-v2"),
    ],
)
def test_wrong_words_are_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], complaint: str
) -> None:
    kernel = image(tmp_path, "a", saying(b"x"), 0)
    assert main(["run", "--kernel", kernel, *(word.format(kernel) for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"archlbr: {complaint}")
    assert error.count("\n") == 1


@pytest.mark.parametrize("guests", [1, 2])
def test_ctrl_c_ends_a_machine_that_is_never_done_with_its_port(guests: int, tmp_path: Path) -> None:
    # mov dx, 3f8h; mov al, 10; then for ever: mov edi, 100000; dec edi; jnz to it; out dx, al
    lines = bytes.fromhex("66baf803 b00a bfa0860100 ffcf 75fc ee ebf4")
    kernels = [word for number in range(guests) for word in ("--kernel", image(tmp_path, f"{number}", lines, number))]
    command = [sys.executable, "-m", "archlbr", "run", "--memory", "64M", *kernels]
    console = tmp_path / "console"
    # A file takes all there is, so that the signal meets the machine in its port and not in a write.
    with console.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE) as machine:
        try:
            while console.stat().st_size < 100:
                assert machine.poll() is None
                time.sleep(0.05)
            machine.send_signal(signal.SIGINT)
            _, said = machine.communicate(timeout=120)
        finally:
            machine.kill()
    assert (machine.returncode, said) == (130, b"")
