"""Ask the running host: in processes of their own, with a time limit, so that no answer can hang or crash us.

`cli/probe.py` takes `this_host()`; tests make hosts of their own. The children are `perf_query` and `kvm_query`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from archlbr.decode.dump import Leaf, Leaves
from archlbr.probe.chain import Answer, Host
from archlbr.sources import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 5.0
CPUID_DEVICE = "/dev/cpu/0/cpuid"
# (leaf, sub-leaf) pairs that the links look at.
BASIC = ((0, 0), (1, 0), (7, 0), (0xA, 0), (0xD, 0), (0xD, 1), (0xD, 15), (0x1C, 0))
BRAND = ((0x80000002, 0), (0x80000003, 0), (0x80000004, 0))


def this_host(root: Path = Path("/"), dump: Leaves | None = None, dump_name: str = "") -> Host:
    """Return the host we run on, its files read below `root`, its CPUID from a dump when one is given."""
    cpuid, source = (
        (dump, dump_name) if dump is not None else (read_cpuid(root / CPUID_DEVICE.lstrip("/")), CPUID_DEVICE)
    )
    return Host(
        root=root,
        cpuid=cpuid,
        cpuid_source=source,
        opens_perf=lambda: ask("archlbr.probe.perf_query"),
        asks_kvm=lambda node: ask("archlbr.probe.kvm_query", str(node)),
        finds=shutil.which,
        knows=known_features,
        may_use=lambda node: os.access(node, os.R_OK | os.W_OK),
        architecture=f"{platform.machine()} {platform.system()}",
    )


def read_cpuid(device: Path) -> Leaves | None:
    """Return what the cpuid driver says, or None; the file offset is the leaf, its high half the sub-leaf."""
    try:
        with device.open("rb", buffering=0) as stream:
            leaves: Leaves = {}
            for leaf, subleaf in BASIC + BRAND:
                words = os.pread(stream.fileno(), 16, leaf | subleaf << 32)
                if len(words) != 16:
                    return None
                leaves[leaf, subleaf] = Leaf(*(int.from_bytes(words[at : at + 4], "little") for at in range(0, 16, 4)))
    except OSError:
        return None
    return leaves


def ask(module: str, *arguments: str, seconds: float = SECONDS) -> Answer:
    """Run a question's module in a process of its own and return its answer; a hang or a crash is an answer too."""
    try:
        printed = bounded_output([sys.executable, "-m", module, *arguments], seconds)
    except TimeoutError:
        return Answer(error=f"no answer within {seconds:g} seconds")
    try:
        found = json.loads(printed)
        leaves = {(row[0], row[1]): Leaf(*row[2:]) for row in found["leaves"]}
        return Answer(found["error"], leaves, found["version"])
    except (ValueError, KeyError, TypeError, IndexError):
        return Answer(error="the process that asked died")


def known_features(program: str) -> str:
    """Return the CPU models and features a QEMU names, empty when it does not answer."""
    try:
        return bounded_output([program, "-cpu", "help"], SECONDS)
    except TimeoutError:
        return ""


def bounded_output(command: list[str], seconds: float) -> str:
    """Return what a program printed; TimeoutError when it did not end in time."""
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return ""
    try:
        printed, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as late:
        child.kill()
        # A process stuck in the kernel does not die; it is left behind rather than waited for.
        with suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=1.0)
        raise TimeoutError(command[0]) from late
    return printed.decode("utf-8", "replace")


def engine_facts() -> tuple[list[str], Callable[[str], str | None], tuple[Path, bool]]:
    """Return our requirements, a way to look up an installed version, and where compiled hooks are kept (writable?)."""
    cache = Path(os.environ.get("NUMBA_CACHE_DIR") or cache_folder())
    there = next(place for place in (cache, *cache.parents) if place.exists())
    return metadata.requires("archlbr") or [], _installed, (cache, os.access(there, os.W_OK))


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
