"""Profiles of QEMU and of Unicorn: equal, sample for sample, where both run the same code at the same addresses."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest

from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.stack import Comm, Mmap
from tests.cli.recording import archlbr, record, run, stats

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.build import Guests

pytestmark = pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="qemu-x86_64 is not installed")

# Static programs without a C library: it would look at the processor and its own addresses before main.
STATIC = ("known", "zoo", "rewrite", "far", "wild", "kmini")


class Sample(NamedTuple):
    """One sample: where and when it was taken, and (from, to, flags) of each entry; flags: mispredict, cycles, type."""

    ip: int
    time: int
    entries: tuple[tuple[int, int, int], ...]


def samples_of(profile: Path) -> list[Sample]:
    found = []
    with Reader(profile) as reader:
        for chunk in reader.samples():
            for index in range(len(chunk)):
                entries = tuple((int(a), int(b), int(c)) for a, b, c in chunk.stack(index))
                found.append(Sample(int(chunk.ip[index]), int(chunk.time[index]), entries))
    return found


def recorded(engine: str, program: Path, out: Path, *options: str) -> tuple[list[Sample], dict[str, str]]:
    ended = run(archlbr("record", "--engine", engine, "--stats", *options, "-o", out, "--", program))
    told = stats(ended.err)
    assert told.pop("engine") == engine
    del told["seconds"]
    return samples_of(out), told


@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize(
    "options", [("-c", "7"), ("-c", "101"), ("-c", "13", "-j", "any_call"), ("-c", "13", "-j", "stack")], ids=" ".join
)
def test_two_engines_give_the_same_samples(name: str, options: tuple[str, ...], guests: Guests, tmp_path: Path) -> None:
    program: Path = getattr(guests, name)
    theirs = recorded("unicorn", program, tmp_path / "unicorn", *options)
    ours = recorded("qemu", program, tmp_path / "qemu", *options)
    assert ours == theirs
    if name == "kmini":
        assert len(ours[0]) >= 100


@pytest.mark.parametrize("options", [("-c", "2003"), ("-c", "3001", "--period-jitter", "100")], ids=" ".join)
def test_branches_that_are_only_counted_change_no_sample(
    options: tuple[str, ...], guests: Guests, tmp_path: Path
) -> None:
    # A period is longer than what the predictor sees before a sample, so that the reader counts the rest (count_only).
    theirs = recorded("unicorn", guests.kmini, tmp_path / "unicorn", *options)
    ours = recorded("qemu", guests.kmini, tmp_path / "qemu", *options)
    assert ours == theirs
    assert len(ours[0]) == 15141 // int(options[1])


def test_instructions_are_counted_alike(guests: Guests, tmp_path: Path) -> None:
    options = ("-e", "instructions", "-c", "97")
    ours, told = recorded("qemu", guests.kmini, tmp_path / "qemu", *options)
    assert (ours, told) == recorded("unicorn", guests.kmini, tmp_path / "unicorn", *options)
    # A sample comes at the end of a block, and a block of kmini is shorter than the period.
    assert len(ours) == int(told["samples"]) == int(told["instructions"]) // 97


def test_what_a_program_forks_and_executes_is_recorded_too(tmp_path: Path) -> None:
    profile = tmp_path / "perf.data"
    words = ["sh", "-c", "echo one | tr a-z A-Z; (exit 3); exec expr 6 '*' 7"]
    ended = record("--engine", "qemu", "-c", "97", "-o", profile, "--", *words, interrupted=True)  # SIGCHLD
    assert ended == run(words)
    with Reader(profile) as reader:
        sideband = reader.sideband()
        pids = {int(pid) for chunk in reader.samples() for pid in chunk.pid}
    assert [event.name for event in sideband if isinstance(event, Comm) and event.exec].count("tr") == 1
    assert {event.name for event in sideband if isinstance(event, Comm)} == {"sh", "tr", "expr"}
    assert len(pids) == 4  # the shell, which becomes expr; what echoes; tr; the subshell
    assert len({event.pid for event in sideband if isinstance(event, Mmap)}) == 2  # the others inherit theirs


@pytest.mark.parametrize("name", ["hello", "signals", "threads", "talkers", "timers", "memory", "surroundings"])
def test_a_guest_behaves_as_it_does_alone(name: str, guests: Guests, tmp_path: Path) -> None:
    program: Path = getattr(guests, name)
    natively = run([program], cwd=tmp_path)
    recorded = record(
        "--engine", "qemu", "-c", "101", "-o", tmp_path / "perf.data", "--", program, cwd=tmp_path, interrupted=True
    )
    assert recorded == natively


def test_a_process_that_is_killed_is_named(guests: Guests, tmp_path: Path) -> None:
    profile = tmp_path / "perf.data"
    ended = record("--engine", "qemu", "-c", "1009", "-o", profile, "--", guests.crash, "store")
    assert (ended.status, ended.out) == (139, b"1312625791\n")
    assert b"was killed, or still runs: the block it was in is not recorded" in ended.err
    assert profile.stat().st_size > 5_000


def test_nothing_is_said_of_a_file_that_execve_refuses(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("echo not an ELF file\n")
    other.chmod(0o755)
    words = ["sh", "-c", f"env -- {other}; echo $?"]
    ended = record("--engine", "qemu", "-o", tmp_path / "perf.data", "--", *words)
    assert ended.out == run(words).out
    # execve refuses it, and nothing ran unrecorded: so nothing is said of it.
    assert b"unrecorded" not in ended.err


@pytest.mark.parametrize("name", ["avx", "vectors_avx512"])
def test_a_program_that_needs_avx_is_named(name: str, guests: Guests, tmp_path: Path) -> None:
    program = getattr(guests, name)
    ended = run(archlbr("record", "--engine", "qemu", "-o", tmp_path / "perf.data", "--", program))
    assert (ended.status, ended.out) == (128 + 4, b"")  # SIGILL, as from a processor without AVX
    named = f"archlbr: {program} uses AVX, which this processor does not offer; use --engine stalker, or build it "
    assert named in ended.err.decode()


def test_variables_come_in_their_order(tmp_path: Path) -> None:
    extra = {"B_WORD": "1", "A_WORD": "2", "LD_LIBRARY_PATH": f"{tmp_path},/elsewhere", "QEMU_CPU": "none", "Z": "3,4"}
    for words in (["env"], ["sh", "-c", "exec env"]):
        ended = record("--engine", "qemu", "-o", tmp_path / "perf.data", "--", *words, extra=extra)
        assert ended == run(words, extra=extra)


@pytest.mark.parametrize("value", ["/not/there", "/not/there,/nor/there"])
def test_what_is_for_the_loader_goes_to_the_program_s_alone(value: str, tmp_path: Path) -> None:
    # Not in this process's own variables: the loaders of Python and of the compiler would complain as well.
    words = ["env", f"LD_PRELOAD={value}", "LD_DEBUG=statistics", "printenv", "LD_PRELOAD"]
    ended = record("--engine", "qemu", "-o", tmp_path / "perf.data", "--", *words)
    theirs = run(words)
    assert (ended.status, ended.out) == (theirs.status, theirs.out) == (0, value.encode() + b"\n")
    assert ended.err.count(b"cannot be preloaded") == theirs.err.count(b"cannot be preloaded") == 1
    assert ended.err.count(b"\n") == theirs.err.count(b"\n")


def test_more_signal_handlers_than_are_followed_are_named_with_the_way_out(tmp_path: Path) -> None:
    source, program = tmp_path / "handlers.c", tmp_path / "handlers"
    body = "for (long at = 0; at < 600; at++) signal(SIGUSR1, (void (*)(int))(4096 + at));"
    source.write_text(f"#include <signal.h>\nint main(void) {{ {body} }}\n")
    assert run(["gcc", "-o", program, source]).status == 0
    ended = run(archlbr("record", "--engine", "qemu", "-o", tmp_path / "perf.data", "--", program))
    assert ended.status == 70
    assert b"archlbr: the program has more than 512 signal handlers: record it with --engine unicorn\n" in ended.err
