"""A fork that this process cannot make is one that the guest is told has failed."""

from __future__ import annotations

import errno
import os
import resource
from types import SimpleNamespace
from typing import Any

import pytest

from archlbr.guest import syscalls as nr
from archlbr.machine import forking


@pytest.mark.parametrize(("call", "flags"), [("pipe", nr.CLONE_VM | nr.CLONE_VFORK), ("fork", 0)])
def test_a_fork_without_descriptors_or_processes_fails_in_the_guest(
    monkeypatch: pytest.MonkeyPatch, call: str, flags: int
) -> None:
    def fails() -> Any:
        raise OSError(errno.EMFILE, "none left")

    monkeypatch.setattr(os, call, fails)
    process: Any = SimpleNamespace(
        recorder=SimpleNamespace(forking=lambda: None), engine=SimpleNamespace(registers=lambda: {"RSP": 0}), pid=1
    )
    thread: Any = SimpleNamespace()
    assert forking.fork(process, thread, flags | nr.SIGCHLD, 0, 0, 0, 0) == -errno.EMFILE


@pytest.mark.parametrize(("limit", "moves"), [(0, True), (300, False)])
def test_the_pipe_of_a_vfork_lies_high_where_so_many_files_may_be_open(limit: int, moves: bool) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    ours, theirs = os.pipe()
    try:
        if limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
        high = forking._raise_fd(theirs)
        assert (high >= 400, high == theirs) == (moves, not moves)
        assert os.write(high, b"s") == 1
        assert os.read(ours, 1) == b"s"
        os.close(high)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        os.close(ours)
