"""Compiling to native code, and where the compiled code is kept.

Every room with a native twin (`lbr.compiled`, `cpu`, `machine`) takes its decorators from here. numba keeps compiled
functions on disk but looks only at the file a function stands in, not at what it calls or the constants it was compiled
with; so the cache's folder carries the digest of all our sources, and a change anywhere starts a new one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.extending import intrinsic as _intrinsic

_F = TypeVar("_F", bound=Callable[..., object])

# Folders of other sources that stay: enough for a few checkouts side by side.
_KEPT = 6


def _digest() -> str:
    total = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        total.update(str(path.relative_to(root)).encode())
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def cache_folder() -> Path:
    """Return the folder that holds these sources' compiled code; a temporary one where the usual cannot be written."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "archlbr"
    folder = home / _digest()
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            others = sorted(
                (other for other in home.iterdir() if other != folder), key=lambda other: other.stat().st_mtime
            )
            for other in others[:-_KEPT]:
                shutil.rmtree(other, ignore_errors=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass  # no home, or one that cannot be written
    folder = Path(tempfile.gettempdir()) / f"archlbr-{os.getuid()}-{_digest()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = str(cache_folder())


def native(function: _F) -> _F:
    """Compile a function when it is first called, or load it from the cache on disk."""
    return cast("_F", numba.njit(cache=True, error_model="numpy")(function))


def native_inline(function: _F) -> _F:
    """Compile a function into each of its callers: a call costs more than the work of a hook."""
    return cast("_F", numba.njit(cache=True, forceinline=True, error_model="numpy")(function))


def callback(signature: Any) -> Callable[[Callable[..., object]], Any]:  # numba's own type objects
    """Compile a C callback of a signature; its `address` is what a C library is given."""
    return cast("Callable[[Callable[..., object]], Any]", numba.cfunc(signature, cache=True))


def intrinsic(generator: Callable[..., object]) -> Callable[..., int]:
    """Make an operation of compiled code out of the function that emits it."""
    return cast("Callable[..., int]", _intrinsic(generator))
