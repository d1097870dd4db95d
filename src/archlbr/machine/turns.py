"""Whose turn it is to run guest code: one thread at a time, first come first served.

Guest threads are host threads; the engine is one. A thread gives its turn away around system calls and at the end of a
slice, and the longest waiting thread gets it (a plain lock would let the giver take it again at once).
"""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """A lock that is handed over in the order of asking."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def take(self) -> None:
        """Wait for the turn."""
        with self._guard:
            if not self._held:
                self._held = True
                return
            ticket = threading.Lock()
            ticket.acquire()
            self._waiting.append(ticket)
        ticket.acquire()

    def give(self) -> None:
        """Hand the turn to the longest waiting thread."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False

    @property
    def wanted(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)
