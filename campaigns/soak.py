"""Record a program that never ends, for an hour, and watch the memory of the recorder.

    python -m campaigns.soak [--minutes N] [--write]

`churn.c` sorts, maps and unmaps, starts threads and children, takes signals and writes code anew. Each five seconds the
resident memory (RSS, /proc/PID/status) of the two processes that last is read: the one that waits, and the guest's own,
in which the engine and the recorder live. Ctrl-C at the end must leave a profile that `archlbr validate` accepts.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from campaigns.document import write_section

SOURCE = Path(__file__).with_name("churn.c")
PERIOD = 1000003
PAUSE = 5.0
# However short the soak, so many looks.
LOOKS = 24
# The engine translates, and the allocator settles, within the first part of the time.
WARM = 6
# Flat: the last sixth's median stands no further above that of the first sixth after warming up.
GROWTH = 1.01


class Watched(NamedTuple):
    """What was seen of a process: seconds since the start and KiB resident, one a look."""

    seconds: list[float]
    resident: list[int]


def memory(pid: int, line: str) -> int | None:
    """Return the KiB that a line of a process's status says (VmRSS: now, VmHWM: at most), None when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(row.split()[1]) for row in lines if row.startswith(f"{line}:")), None)


def only_child(pid: int) -> int | None:
    """Return the first child of a process, None while it has none."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def soak(minutes: float, folder: Path) -> tuple[dict[str, Watched], list[str]]:
    """Run it; return what was seen of each process, and the lines that say how it ended."""
    program, profile = folder / "churn", folder / "perf.data"
    subprocess.run(["gcc", "-O1", "-g", "-pthread", "-o", program, SOURCE], check=True)
    archlbr = [sys.executable, "-m", "archlbr"]
    command = [
        *archlbr,
        "record",
        "--engine",
        "unicorn",
        "-c",
        str(PERIOD),
        "--stats",
        "-o",
        str(profile),
        "--",
        str(program),
    ]
    begin = time.monotonic()
    rounds = folder / "rounds"
    with rounds.open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    guest = None
    while guest is None or not rounds.stat().st_size:
        if running.poll() is not None or time.monotonic() - begin > 300:
            raise SystemExit(f"the program did not come to its first rounds: {running.communicate()[1]!r}")
        time.sleep(0.1)
        guest = only_child(running.pid)
    seen = {"the process that waits": Watched([], []), "the guest's process": Watched([], [])}
    begin = time.monotonic()
    while (now := time.monotonic() - begin) < 60 * minutes:
        for pid, watched in zip((running.pid, guest), seen.values(), strict=True):
            size = memory(pid, "VmRSS")
            if size is None:
                raise SystemExit(f"{pid} is gone after {now:.0f} s: {running.communicate()[1]!r}")
            watched.seconds.append(now)
            watched.resident.append(size)
        time.sleep(min(PAUSE, 60 * minutes / LOOKS))
    running.send_signal(signal.SIGINT)
    most = 0
    while running.poll() is None:
        most = max(most, memory(running.pid, "VmHWM") or 0)
        time.sleep(0.05)
    assert running.stderr is not None
    said = running.stderr.read().decode().replace(f"{folder}{os.sep}", "FOLDER/")
    done = rounds.read_text().split()[-1]
    checked = subprocess.run([*archlbr, "validate", profile], capture_output=True, text=True, check=False)
    return seen, [
        f"{done} rounds; status {running.returncode}; at most {most / 1024:.1f} MiB while the profile was merged and "
        f"checked; `archlbr validate`: status {checked.returncode}.",
        "",
        "```",
        *said.splitlines(),
        "```",
    ]


def row(name: str, watched: Watched) -> tuple[str, bool]:
    """Return a row of the table, and whether the process stayed flat."""
    count = len(watched.resident)
    sixth = count // WARM
    early, late = watched.resident[sixth : 2 * sixth], watched.resident[-sixth:]
    slope = statistics.linear_regression(watched.seconds[sixth:], watched.resident[sixth:]).slope * 3600 / 1024
    first, last = statistics.median(early) / 1024, statistics.median(late) / 1024
    flat = last <= first * GROWTH
    most = max(watched.resident) / 1024
    return (
        f"| {name} | {count} | {first:.1f} | {last:.1f} | {most:.1f} | {slope:+.2f} | {'yes' if flat else 'NO'} |",
        flat,
    )


def main() -> None:
    """Soak, print the section, and with --write put it into the document."""
    words = argparse.ArgumentParser(prog="python -m campaigns.soak")
    words.add_argument("--minutes", type=float, default=60.0)
    words.add_argument("--write", action="store_true", help="into docs/reliability.md")
    words.add_argument("--looks", type=Path, help="keep each look here: name, seconds, KiB")
    asked = words.parse_args()
    with TemporaryDirectory(prefix="soak-") as folder:
        seen, ended = soak(asked.minutes, Path(folder))
    rows = [row(name, watched) for name, watched in seen.items()]
    if asked.looks:
        asked.looks.write_text(
            "".join(
                f"{name}\t{when:.0f}\t{size}\n"
                for name, watched in seen.items()
                for when, size in zip(watched.seconds, watched.resident, strict=True)
            )
        )
    lines = [
        f"`python -m campaigns.soak --minutes {asked.minutes:g}`, at nice {os.nice(0)}: `archlbr record -c {PERIOD}` "
        "of `campaigns/churn.c`. MiB resident: the median of the second sixth of the time and of the last sixth; the "
        "slope is that of a straight line through all looks but the first sixth. Flat: the last is no more than 1 % "
        "above the second.",
        "",
        "| process | looks | second sixth | last sixth | most | MiB an hour | flat |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(line for line, _ in rows),
        "",
        *ended,
    ]
    print("\n".join(lines))
    if asked.write:
        write_section("A soak", lines)
    sys.exit(not all(flat for _, flat in rows))


if __name__ == "__main__":
    main()
