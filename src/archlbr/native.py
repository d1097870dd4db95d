"""Compiling to native code, which is kept on disk.

Every room with a native twin (`lbr.compiled`, `cpu`, `machine`) takes its decorators from here. numba keeps compiled
functions on disk but looks only at the file a function stands in, not at what it calls or the constants it was compiled
with; so they go into the folder of these very sources (`sources.cache_folder`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar, cast

import numba
from numba.extending import intrinsic as _intrinsic

from archlbr.sources import cache_folder

_F = TypeVar("_F", bound=Callable[..., object])

if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = str(cache_folder())


def native(function: _F) -> _F:
    """Compile a function when it is first called, or load it from the cache on disk."""
    return cast("_F", numba.njit(cache=True, error_model="numpy")(function))


def native_inline(function: _F) -> _F:
    """Compile a function into each of its callers: a call costs more than the work of a hook."""
    return cast("_F", numba.njit(cache=True, forceinline=True, error_model="numpy")(function))


class Callback:
    """A C function of a signature, compiled, or loaded from the cache on disk, when it is first asked for."""

    def __init__(self, signature: Any, function: Callable[..., object]) -> None:  # numba's own type objects
        self._signature = signature
        self._function = function

    @cached_property
    def _compiled(self) -> Any:
        return numba.cfunc(self._signature, cache=True)(self._function)

    @property
    def address(self) -> int:
        """Return what a C library is given."""
        return int(self._compiled.address)

    @property
    def ctypes(self) -> Any:
        """Return it as a function of ctypes."""
        return self._compiled.ctypes


def callback(signature: Any) -> Callable[[Callable[..., object]], Callback]:
    """Make a C callback of a signature: a program that uses one engine needs few of all that there are."""
    return lambda function: Callback(signature, function)


def intrinsic(generator: Callable[..., object]) -> Callable[..., int]:
    """Make an operation of compiled code out of the function that emits it."""
    return cast("Callable[..., int]", _intrinsic(generator))
