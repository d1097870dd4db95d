"""Links and their states: what the probe says of a host, as values.

`processor`, `pmu`, `hypervisor` and `engine` make links out of what a host shows; the command prints them. Ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from archlbr.decode.dump import Leaves


class State(StrEnum):
    """What is known of a link; UNKNOWN when the host does not let us look."""

    OK = "ok"
    BROKEN = "broken"
    UNKNOWN = "unknown"


class Link(NamedTuple):
    """One link. evidence: what was seen, and where. advice: what to do, empty when nothing is to be done."""

    name: str
    state: State
    evidence: str
    advice: str = ""


def first_broken(links: tuple[Link, ...]) -> Link | None:
    """Return the first broken link, or None."""
    return next((link for link in links if link.state is State.BROKEN), None)


def verdict(links: tuple[Link, ...]) -> str:
    """Return `holds` when each link is ok, `broken` when one is broken, else `unknown`."""
    if first_broken(links) is not None:
        return "broken"
    return "holds" if all(link.state is State.OK for link in links) else "unknown"


class Answer(NamedTuple):
    """What a separate process found. error: an errno name, a word for a hang or a crash, or empty when it worked."""

    error: str = ""
    leaves: Leaves = {}  # noqa: RUF012  never written; a NamedTuple has no factory for defaults
    version: int = 0


@dataclass(frozen=True, slots=True)
class Host:
    """The host as the probe sees it; each way to ask is given, so that a made-up host can stand in.

    root: what stands for `/` when /proc, /sys and /dev are read. cpuid: the leaves, None when nothing shows them.
    cpuid_source: where they came from. opens_perf: open a branch-stack event. asks_kvm: API version and supported CPUID
    of a device. finds: the path of a program. knows: the CPU features a QEMU names. may_use: read and write allowed.
    architecture: machine and system, as `x86_64 Linux`.
    """

    root: Path
    cpuid: Leaves | None
    cpuid_source: str
    opens_perf: Callable[[], Answer]
    asks_kvm: Callable[[Path], Answer]
    finds: Callable[[str], str | None]
    knows: Callable[[str], str]
    may_use: Callable[[Path], bool]
    architecture: str

    def path(self, name: str) -> Path:
        """Return where the host's file of this absolute name lies."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """Return a file's text without the final newline, None when it cannot be read."""
        try:
            return self.path(name).read_text(encoding="utf-8", errors="replace").rstrip("\n")
        except OSError:
            return None
