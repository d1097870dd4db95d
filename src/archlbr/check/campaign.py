"""Many explorations at once: shards of work, in this process or in worker processes.

`cli` feeds it shards that `contract` has cut (a design in a scenario under a bound, a range of seeds); `cluster` runs
the same shards on other machines. A shard's work is a pure function of its arguments, so that results come back in the
order of the shards and are equal wherever they were made. Rules: ours.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from archlbr.errors import InputError

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

R = TypeVar("R")
Tick: TypeAlias = Callable[[int], bool]

_PR_SET_PDEATHSIG = 1
POLL = 0.2  # seconds between two looks at Ctrl-C


@dataclass(frozen=True, slots=True)
class Shard:
    """A piece of work that needs nothing from the others. weight: a guess at its size; the largest begin first."""

    name: str
    arguments: tuple[Any, ...]
    weight: int = 0


def _never() -> bool:
    return False


def _unheard(_text: str) -> None:
    return None


def _unseen(_name: str, _done: int, _all: int) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on. stopped: asked now and then; true ends all, and what was done counts as incomplete. ended: told of
    each shard that is done, and how many are. says: told what went wrong on the way.
    """

    stopped: Callable[[], bool] = _never
    ended: Callable[[str, int, int], None] = _unseen
    says: Callable[[str], None] = _unheard


class Runner(Protocol):
    """Where shards are worked on. work: a function of a module, called with a shard's arguments and a tick."""

    def __call__(self, work: Callable[..., R], shards: Sequence[Shard], watch: Watch) -> list[R | None]:
        """Return what the work made of each shard, in their order; None for one that was not begun or was lost."""
        ...


def in_turn(work: Callable[..., R], shards: Sequence[Shard], watch: Watch) -> list[R | None]:
    """Work on the shards one after the other, in this process."""
    results: list[R | None] = [None] * len(shards)
    for number, shard in enumerate(shards):
        if watch.stopped():
            break
        results[number] = work(*shard.arguments, tick=lambda _count: watch.stopped())
        watch.ended(shard.name, number + 1, len(shards))
    return results


def by_weight(shards: Sequence[Shard]) -> list[int]:
    """Return the places of the shards, the heaviest first."""
    return sorted(range(len(shards)), key=lambda place: -shards[place].weight)


def in_processes(jobs: int) -> Runner:
    """Return a runner of worker processes; it forks, so that a worker starts with what is loaded here."""

    def run(work: Callable[..., R], shards: Sequence[Shard], watch: Watch) -> list[R | None]:
        if jobs < 2 or len(shards) < 2:
            return in_turn(work, shards, watch)
        results: list[R | None] = [None] * len(shards)
        forks = multiprocessing.get_context("fork")
        stop = forks.Event()
        with ProcessPoolExecutor(min(jobs, len(shards)), forks, _begin, (stop, os.getpid())) as pool:
            # A few more than there are workers: what is not handed over yet can still be called off.
            waiting = by_weight(shards)[::-1]
            running: dict[Future[R | None], int] = {}
            done = 0
            while waiting or running:
                if watch.stopped():
                    stop.set()
                    waiting.clear()
                while waiting and len(running) < 2 * jobs:
                    place = waiting.pop()
                    running[pool.submit(_worked, work, shards[place].arguments)] = place
                ready, _ = wait(running, POLL, FIRST_COMPLETED)
                for future in ready:
                    place = running.pop(future)
                    try:
                        results[place] = future.result()
                    except BrokenProcessPool:
                        raise InputError(
                            f"a worker process died at {shards[place].name} or beside it (out of memory?): "
                            "check fewer scenarios at once, or give --jobs 1"
                        ) from None
                    done += 1
                    watch.ended(shards[place].name, done, len(shards))
        return results

    return run


_stop: list[Event] = []


def _begin(stop: Event, parent: int) -> None:
    # Ctrl-C is the parent's to answer; a parent that is killed takes its workers along.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    _stop[:] = [stop]


def _worked(work: Callable[..., R], arguments: tuple[Any, ...]) -> R | None:
    stop = _stop[0]
    return None if stop.is_set() else work(*arguments, tick=lambda _count: stop.is_set())
