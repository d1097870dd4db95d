"""The native facility inside somebody else's native code: callable from a cfunc, and cached on disk with it."""

from __future__ import annotations

import os
import subprocess
import sys

HOOK = """
import ctypes

import numpy as np
from numba import carray, cfunc, types, uint64

from archlbr.arch.cpuid import LION_COVE
from archlbr.lbr import compiled
from archlbr.lbr.state import architectural


@cfunc(types.void(types.CPointer(types.uint64), types.int64), cache=True)
def hook(pointer, count):
    words = carray(pointer, (64 + compiled.COUNT,))[64:]
    for n in range(count):
        compiled.record(
            words, uint64(0x1000 + n), uint64(0x2000 + n), uint64(1), uint64(3), uint64(3), uint64(7 * n), uint64(0)
        )
    compiled.pmi(words)


words = np.zeros(64 + compiled.COUNT, np.uint64)
words[64:] = compiled.new_words(architectural(LION_COVE))
assert compiled.wrmsr(words[64:], np.uint64(0x14CE), np.uint64(0x7F0007))
assert compiled.wrmsr(words[64:], np.uint64(0x1D9), np.uint64(0x800))
hook.ctypes(words.ctypes.data_as(ctypes.POINTER(ctypes.c_uint64)), 1000)
out = np.zeros(96, np.uint64)
assert compiled.read_stack(words[64:], out) == 32
assert words[:64].tolist() == [0] * 64
print(hook.cache_hits, compiled.rdmsr(words[64:], np.uint64(0x38E))[1], out.reshape(32, 3).tolist())
"""


def test_a_cfunc_records_and_is_cached(tmp_path):
    script = tmp_path / "hook.py"
    script.write_text(HOOK, encoding="utf-8")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    entries = [[0x13E7 - x, 0x23E7 - x, 0x1000_0000_0000_0007] for x in range(32)]
    for hits in (0, 1):
        run = subprocess.run(
            [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert run.stderr == ""
        assert run.stdout == f"{hits} {1 << 58} {entries}\n"
