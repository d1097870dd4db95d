"""Kill `record` at random points: what its output is named must be the old file or the new one, whole.

    python -m campaigns.kills [--points N] [--seed N] [--write]

A run that is left alone is measured first. Then each run gets SIGKILL at a moment drawn from its whole length, or,
every other time, from its end, where the profile is merged and written; every other pair to the process alone, the rest
to its whole group, as a full memory and a closing terminal do. Half of the runs begin with an older file of that name.
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
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from campaigns.document import write_section

POINTS = 200
OLD = b"an older profile\n" * 100
NAME = "perf.data"
# The part of a run that is its end.
END = 0.75
WAIT = 60.0


class Found(NamedTuple):
    """What a killed run left. name: "none", "old", "new", or "HALF". beside: other files in the output's folder."""

    name: str
    beside: int
    ended: bool


def command(folder: Path) -> list[str]:
    """Return the command line whose output is NAME in a folder."""
    program = shutil.which("sort") or "sort"
    text = folder.parent / "text"
    return [
        sys.executable,
        "-m",
        "archlbr",
        "record",
        "--engine",
        "unicorn",
        "-c",
        "101",
        "-o",
        str(folder / NAME),
        "--",
        program,
        str(text),
    ]


def start(folder: Path, scratch: Path) -> subprocess.Popen[bytes]:
    """Start it in a session of its own, with its temporary files in `scratch`."""
    return subprocess.Popen(
        command(folder),
        env={**os.environ, "TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def whole(path: Path) -> bool:
    """Return whether a profile can be read to its end."""
    from archlbr.errors import InputError
    from archlbr.profile.perfdata.reader import Reader

    try:
        with Reader(path) as reader:
            return sum(len(batch.ip) for batch in reader.samples()) > 0
    except InputError:
        return False


def kill_at(seconds: float, whole_group: bool, old: bool, folder: Path) -> Found:
    """Run it, kill it after some seconds, and look at what is there."""
    out, scratch = folder / "out", folder / "scratch"
    for made in (out, scratch):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
    if old:
        (out / NAME).write_bytes(OLD)
    running = start(out, scratch)
    time.sleep(seconds)
    ended = running.poll() is not None
    if not ended:
        (os.killpg if whole_group else os.kill)(running.pid, signal.SIGKILL)
    running.wait(WAIT)
    # The guest's process is told by the kernel; until it is gone it might still write.
    wait_until_gone(running.pid)
    path = out / NAME
    if not path.exists():
        name = "none"
    elif path.read_bytes() == OLD:
        name = "old"
    else:
        name = "new" if whole(path) else "HALF"
    if name == ("none" if old else "old"):
        name = f"LOST, {name}"
    return Found(name, len([other for other in os.listdir(out) if other != NAME]), ended)


def wait_until_gone(session: int) -> None:
    """Wait until no process of a session is left."""
    end = time.monotonic() + WAIT
    while subprocess.run(["pgrep", "-s", str(session)], stdout=subprocess.DEVNULL, check=False).returncode == 0:
        assert time.monotonic() < end, f"session {session} does not end"
        time.sleep(0.01)


def campaign(points: int, seed: int, folder: Path, warm: bool = True) -> tuple[list[Found], float]:
    """Kill so many runs; return what each left, and how many seconds a whole run takes."""
    (folder / "text").write_text("\n".join(f"{number * 7919 % 10007} line" for number in range(3000)) + "\n")
    (folder / "out").mkdir()
    (folder / "scratch").mkdir()
    seconds = 0.0
    for _ in range(1 + warm):  # the first fills the caches
        begin = time.monotonic()
        status = start(folder / "out", folder / "scratch").wait(300)
        seconds = time.monotonic() - begin
        assert status == 0, status
        assert whole(folder / "out" / NAME)
    draw = random.Random(seed)
    found = []
    for point in range(points):
        first = END if point % 2 else 0.0
        moment = seconds * draw.uniform(first, 1.0)
        found.append(kill_at(moment, bool(point & 2), bool(point & 4), folder))
    return found, seconds


def main() -> None:
    """Kill, print the section, and with --write put it into the document."""
    words = argparse.ArgumentParser(prog="python -m campaigns.kills")
    words.add_argument("--points", type=int, default=POINTS)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--write", action="store_true", help="into docs/reliability.md")
    asked = words.parse_args()
    with TemporaryDirectory(prefix="kills-") as folder:
        found, seconds = campaign(asked.points, asked.seed, Path(folder))
    names = Counter(row.name for row in found)
    fine = not set(names) - {"none", "old", "new"}
    said = {"none": "nothing, as before", "old": "the old file", "new": "the new file, whole"}
    lines = [
        f"`python -m campaigns.kills --points {asked.points} --seed {asked.seed}`, at nice {os.nice(0)}: "
        f"`{' '.join(command(Path('folder')))[len(sys.executable) + 4 :]}`, {seconds:.1f} s when it is left alone, "
        f"killed {sum(not row.ended for row in found)} times before its end.",
        "",
        "| what stands under the output's name | runs |",
        "| --- | --- |",
        *(f"| {said.get(name, name)} | {count} |" for name, count in sorted(names.items())),
        "",
        f"Files of another name in the output's folder: {sum(row.beside for row in found)} in all.",
    ]
    print("\n".join(lines))
    if asked.write:
        write_section("Kills", lines)
    sys.exit(not fine)


if __name__ == "__main__":
    main()
