"""The shards of a campaign on the machines of a dask.distributed cluster.

`cli check --cluster` runs it in place of `campaign.in_processes`. A worker must run the same archlbr, to the byte of
its sources, and says so again with each result. The scheduler gives the shards of a worker that dies to another; a
shard's work is pure, so the result is the same. Authority for the cluster's behaviour: dask.distributed's
documentation, "Resilience" and "Futures".
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import archlbr
from archlbr.check.campaign import POLL, R, Runner, Shard, Watch, by_weight
from archlbr.errors import InputError
from archlbr.sources import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ADDRESS = re.compile(r"((tcp|tls|ws|wss)://)?([^\s:/\[\]]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}")
REACH = 10.0  # seconds to reach the scheduler, and for a first worker to be there
PATIENCE = 30.0  # seconds without any worker before giving up
LEAVE = 30.0  # seconds for the workers to hand in what they have after Ctrl-C
_TALKATIVE = ("distributed", "distributed.client", "distributed.core", "distributed.comm", "tornado", "asyncio")
_LOOK = 16  # a worker asks whether to stop at each of so many ticks


class Identity(NamedTuple):
    """Which archlbr runs: its version, and the digest of its sources."""

    version: str
    sources: str

    def __str__(self) -> str:
        return f"archlbr {self.version} (sources {self.sources})"


class Told(NamedTuple):
    """A shard's result, and who made it with what."""

    identity: Identity
    worker: str
    result: Any


def identity() -> Identity:
    """Return which archlbr this process runs."""
    return Identity(archlbr.__version__, digest()[:12])


def on_cluster(address: str) -> Runner:
    """Return a runner of a cluster's workers; InputError where it cannot be reached or runs another archlbr."""

    def run(work: Callable[..., R], shards: Sequence[Shard], watch: Watch) -> list[R | None]:
        try:
            import distributed
        except ImportError:
            raise InputError("--cluster needs dask.distributed: pip install 'archlbr[cluster]'") from None
        if not _ADDRESS.fullmatch(address):
            raise InputError(
                f"{address!r} is no scheduler's address: give it as `dask scheduler` prints it, tcp://HOST:PORT"
            )
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # what matters is said in one line, by us
        try:
            client = distributed.Client(address, timeout=REACH, set_as_default=False)
        except (OSError, ValueError, RuntimeError) as refusal:
            raise InputError(
                f"cannot reach a dask scheduler at {address} ({type(refusal).__name__}): start `dask scheduler`, and "
                "give the address that it prints"
            ) from None
        try:
            _same_archlbr(client, address)
            return _gathered(client, work, shards, watch)
        finally:
            with suppress(OSError, TimeoutError):
                client.close(timeout=REACH)

    return run


def _same_archlbr(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=REACH)
    except (OSError, TimeoutError):
        raise InputError(f"the cluster at {address} has no worker: start `dask worker {address}`") from None
    mine = identity()
    for worker, theirs in sorted(client.run(identity, on_error="return").items()):
        _compare(mine, worker, theirs)


def _compare(mine: Identity, worker: str, theirs: object) -> None:
    if isinstance(theirs, BaseException):
        raise InputError(
            f"worker {worker} cannot say which archlbr it runs ({type(theirs).__name__}): install {mine} there"
        )
    if theirs != mine:
        raise InputError(f"worker {worker} runs {theirs}, this is {mine}: run the same on each machine of the cluster")


def _gathered(client: Any, work: Callable[..., R], shards: Sequence[Shard], watch: Watch) -> list[R | None]:
    from distributed import CancelledError

    results: list[R | None] = [None] * len(shards)
    errors: list[BaseException] = []
    try:
        _gather(client, work, shards, watch, results, errors)
    except (OSError, TimeoutError, CancelledError) as loss:  # a closed connection is an OSError here
        done = sum(result is not None for result in results)
        watch.says(
            f"the cluster went away ({type(loss).__name__}), {done} of {len(shards)} explorations done; run again"
        )
    if errors:
        raise errors[0]
    return results


def _gather(
    client: Any,
    work: Callable[..., R],
    shards: Sequence[Shard],
    watch: Watch,
    results: list[R | None],
    errors: list[BaseException],
) -> None:
    from distributed import CancelledError, Event

    mine = identity()
    stop = Event(f"archlbr-stop-{uuid.uuid4().hex}", client=client)
    running: dict[Any, int] = {}
    for place in by_weight(shards):
        shard = shards[place]
        running[client.submit(_worked, work, shard.arguments, stop.name, pure=False, priority=shard.weight)] = place
    asked_to_stop, alone_since, done = 0.0, 0.0, 0
    while running and not errors:
        now = time.monotonic()
        if watch.stopped() and not asked_to_stop:
            asked_to_stop = now
            stop.set()
        for future, status in [(future, future.status) for future in running]:
            if status == "cancelled":
                raise CancelledError
            if status not in ("finished", "error"):
                continue  # waits, works, or was lost with its worker and is made again
            place = running.pop(future)
            if status == "error":
                errors += _lost(future, shards[place], watch)
                continue
            told: Told = future.result(timeout=LEAVE)
            _compare(mine, told.worker, told.identity)
            results[place] = told.result
            done += 1
            watch.ended(shards[place].name, done, len(shards))
        if client.status != "running" or (asked_to_stop and now - asked_to_stop > LEAVE):
            raise CancelledError
        alone_since = 0.0 if client.nthreads() else alone_since or now
        if alone_since and now - alone_since > PATIENCE:
            watch.says(f"no worker is left, {done} of {len(shards)} explorations done; start workers, run again")
            break
        time.sleep(POLL / 4)
    client.cancel(list(running))


def _lost(future: Any, shard: Shard, watch: Watch) -> list[BaseException]:
    # The work's own error is ours, and a traceback; a shard whose workers died again and again is the machines'.
    error: BaseException = future.exception(timeout=LEAVE)
    if type(error).__name__ != "KilledWorker":
        return [error]
    watch.says(f"each worker that was given {shard.name} died (out of memory?); give the workers more of it")
    return []


def _worked(work: Callable[..., R], arguments: tuple[Any, ...], stop: str) -> Told:
    from distributed import Event, get_worker

    event, ticks = Event(stop), 0

    def tick(_count: int) -> bool:
        nonlocal ticks
        ticks += 1
        return ticks % _LOOK == 0 and bool(event.is_set())

    result = None if event.is_set() else work(*arguments, tick=tick)
    return Told(identity(), get_worker().address, result)
