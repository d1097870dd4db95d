"""Work for campaigns, as functions of a module that worker processes can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from archlbr.check.explore import Exploration, explore
from tests.check.classics import CounterRace, Philosophers


def race(threads: int, pause: float = 0.0, *, tick) -> tuple[Exploration, int]:
    """Explore the counter race; return what was found, and which process found it."""
    time.sleep(pause)
    return explore(CounterRace(threads), [], tick=tick), os.getpid()


def endless(folder: str, *, tick) -> int:
    """Tick until told to stop; return how often that took. At the first tick a file with the process's name appears."""
    ticks = 0
    while not tick(ticks):
        ticks += 1
        (Path(folder) / str(os.getpid())).touch()
        time.sleep(0.01)
    return ticks


def dinner(count: int, *, tick) -> Exploration:
    """Explore the philosophers."""
    return explore(Philosophers(count), [], tick=tick)


def dies(*, tick) -> None:
    """End this process as the kernel does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def wrong(*, tick) -> None:
    """Fail as our own code would."""
    raise ZeroDivisionError("ours")
