"""Runs a function in a forked child: what it does to signals, threads or memory ends with it."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def apart(function: Callable[[], T], seconds: int = 60) -> T:
    """Return what a function returns in a child of this process; fail with its traceback when it raises there."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            signal.alarm(seconds)
            try:
                answer = (True, function())
            except BaseException:
                answer = (False, traceback.format_exc())
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(answer, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert content, f"the child ended with status {os.waitstatus_to_exitcode(status)}"
    fine, value = pickle.loads(content)
    assert fine, value
    return value
