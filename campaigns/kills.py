"""Kill `record` or `snapshot` at random points: what its output is named must be the old file or the new one, whole.

    python -m campaigns.kills [record|snapshot] [--points N] [--seed N] [--write]

A run that is left alone is measured first. Then each run gets SIGKILL at a moment drawn from its whole length, or,
every other time, from its end, where the output is written; every other pair to the process alone, the rest to its
whole group, as a full memory and a closing terminal do. Half of the runs begin with an older file of that name. A run
that ends before its moment comes is no point: the next ones are taken to be as short.

A snapshot is written by the machine that is asked for it: the run begins when it is asked, and "the process alone" is
by turns the machine, which writes, and `archlbr snapshot`, which waits.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from campaigns.document import write_section

POINTS = 200
OLD = b"an older file\n" * 100
NAME = "output"
FULL = Path(__file__).with_name("full.S")
# What the machine's memory is full of, in MiB: its snapshot takes about a second.
RANDOM = 48
# The part of a run that is its end.
END = 0.75
WAIT = 60.0


class Found(NamedTuple):
    """What a killed run left. name: "none", "old", "new", or "HALF". beside: other files in the output's folder."""

    name: str
    beside: int
    ended: bool


class Subject(ABC):
    """What is run and killed, in a folder that has `out` for the output and `scratch` for temporary files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def words(self, folder: Path) -> list[str]:
        """Return the command line, behind `archlbr`, whose output is NAME in `folder`/out."""

    @abstractmethod
    def whole(self, path: Path) -> bool:
        """Return whether an output can be read to its end."""

    @abstractmethod
    def start(self) -> list[subprocess.Popen[bytes]]:
        """Start it in a process group of its own; return its processes, the one that ends with the output last."""

    def archlbr(self, *words: str, group: int = 0) -> subprocess.Popen[bytes]:
        """Start a verb in a process group of its own (0), or in that of another process."""
        return subprocess.Popen(
            [sys.executable, "-m", "archlbr", *words],
            env={**os.environ, "TMPDIR": str(self.folder / "scratch")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=group,
        )


class Record(Subject):
    """A profile."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        text = "\n".join(f"{number * 7919 % 10007} line" for number in range(3000))
        (folder / "text").write_text(text + "\n")

    def words(self, folder: Path) -> list[str]:
        """Return how `sort` is recorded."""
        program = shutil.which("sort") or "sort"
        output = str(folder / "out" / NAME)
        return ["record", "--engine", "unicorn", "-c", "101", "-o", output, "--", program, str(folder / "text")]

    def start(self) -> list[subprocess.Popen[bytes]]:
        """Start the recording."""
        return [self.archlbr(*self.words(self.folder))]

    def whole(self, path: Path) -> bool:
        """Return whether a profile has samples, and can be read to the last."""
        from archlbr.errors import InputError
        from archlbr.profile.perfdata.reader import Reader

        try:
            with Reader(path) as reader:
                return sum(len(batch.ip) for batch in reader.samples()) > 0
        except InputError:
            return False


class Snapshot(Subject):
    """A machine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "random").write_bytes(random.Random(0).randbytes(RANDOM << 20))
        bare = ["-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x200000,--build-id=none"]
        subprocess.run(["gcc", *bare, f"-Wa,-I{folder}", "-o", folder / "full", FULL], check=True)

    def words(self, folder: Path) -> list[str]:
        """Return how a machine is asked."""
        return ["snapshot", str(folder / "socket"), str(folder / "out" / NAME)]

    def start(self) -> list[subprocess.Popen[bytes]]:
        """Start a machine, and ask it once it listens."""
        socket = self.folder / "socket"
        socket.unlink(missing_ok=True)
        machine = self.archlbr("run", "--kernel", str(self.folder / "full"), "--control", str(socket))
        end = time.monotonic() + WAIT
        while not socket.exists():
            assert machine.poll() is None, "the machine did not start"
            assert time.monotonic() < end, "the machine does not listen"
            time.sleep(0.01)
        return [machine, self.archlbr(*self.words(self.folder), group=machine.pid)]

    def whole(self, path: Path) -> bool:
        """Return whether a machine can be made of a file."""
        from archlbr.errors import InputError
        from archlbr.machine import snapshot
        from archlbr.machine.image import Unpacker

        try:
            with path.open("rb") as file:
                source = Unpacker(file.read)
                snapshot.read(source, lambda head: snapshot.fresh(head, lambda _: None, lambda _: None))
                source.end()
            return True
        except InputError:
            return False


SUBJECTS: dict[str, type[Subject]] = {"record": Record, "snapshot": Snapshot}


def kill_at(subject: Subject, seconds: float, whole_group: bool, old: bool, turn: int) -> Found:
    """Run it, kill it after some seconds, and look at what is there."""
    out, scratch = subject.folder / "out", subject.folder / "scratch"
    for made in (out, scratch):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
    if old:
        (out / NAME).write_bytes(OLD)
    processes = subject.start()
    time.sleep(seconds)
    group, last = processes[0].pid, processes[-1]
    ended = last.poll() is not None
    if whole_group and not ended:
        os.killpg(group, signal.SIGKILL)
    elif not ended:
        processes[turn % len(processes)].send_signal(signal.SIGKILL)
        last.wait(WAIT)
    # A machine goes on when only who asked it was killed, and what it writes appears all the same.
    if len(processes) > 1 and processes[0].poll() is None:
        time.sleep(seconds)
        os.killpg(group, signal.SIGKILL)
    for process in processes:
        process.wait(WAIT)
    # The guest's process is told by the kernel; until it is gone it might still write.
    wait_until_gone(group)
    path = out / NAME
    if not path.exists():
        name = "none"
    elif path.read_bytes() == OLD:
        name = "old"
    else:
        name = "new" if subject.whole(path) else "HALF"
    if name == ("none" if old else "old"):
        name = f"LOST, {name}"
    return Found(name, len([other for other in os.listdir(out) if other != NAME]), ended)


def wait_until_gone(group: int) -> None:
    """Wait until no process of a group is left."""
    end = time.monotonic() + WAIT
    while subprocess.run(["pgrep", "-g", str(group)], stdout=subprocess.DEVNULL, check=False).returncode == 0:
        assert time.monotonic() < end, f"process group {group} does not end"
        time.sleep(0.01)


def campaign(subject: Subject, points: int, seed: int, warm: bool = True) -> tuple[list[Found], float]:
    """Kill so many runs; return what each left, and how many seconds a whole run takes."""
    out = subject.folder / "out"
    for made in (out, subject.folder / "scratch"):
        made.mkdir(exist_ok=True)
    seconds = 0.0
    for _ in range(1 + warm):  # the first fills the caches
        processes = subject.start()
        begin = time.monotonic()
        status = processes[-1].wait(300)
        seconds = time.monotonic() - begin
        assert status == 0, status
        assert subject.whole(out / NAME)
        if len(processes) > 1:
            os.killpg(processes[0].pid, signal.SIGKILL)
            processes[0].wait(WAIT)
    draw = random.Random(seed)
    found: list[Found] = []
    length = seconds
    while (point := sum(not row.ended for row in found)) < points and len(found) < 4 * points:
        first = END if point % 2 else 0.0
        moment = length * draw.uniform(first, 1.0)
        found.append(kill_at(subject, moment, bool(point & 2), bool(point & 4), point >> 3))
        if found[-1].ended:
            length = min(length, moment)
    return found, seconds


def main() -> None:
    """Kill, print the section, and with --write put it into the document."""
    words = argparse.ArgumentParser(prog="python -m campaigns.kills")
    words.add_argument("subject", nargs="?", choices=list(SUBJECTS), default="record")
    words.add_argument("--points", type=int, default=POINTS)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--write", action="store_true", help="into docs/reliability.md")
    asked = words.parse_args()
    with TemporaryDirectory(prefix="kills-") as folder:
        subject = SUBJECTS[asked.subject](Path(folder))
        found, seconds = campaign(subject, asked.points, asked.seed)
    names = Counter(row.name for row in found)
    fine = not set(names) - {"none", "old", "new"}
    said = {"none": "nothing, as before", "old": "the old file", "new": "the new file, whole"}
    killed = sum(not row.ended for row in found)
    lines = [
        f"`python -m campaigns.kills {asked.subject} --points {asked.points} --seed {asked.seed}`, "
        f"at nice {os.nice(0)}: `archlbr {' '.join(subject.words(Path('folder')))}`, {seconds:.1f} s when it is left "
        f"alone, killed {killed} times before its end; {len(found) - killed} runs more ended before they were killed.",
        "",
        "| what stands under the output's name | runs |",
        "| --- | --- |",
        *(f"| {said.get(name, name)} | {count} |" for name, count in sorted(names.items())),
        "",
        f"Files of another name in the output's folder: {sum(row.beside for row in found)} in all.",
    ]
    print("\n".join(lines))
    if asked.write:
        write_section(f"Kills of {asked.subject}", lines)
    sys.exit(not fine)


if __name__ == "__main__":
    main()
