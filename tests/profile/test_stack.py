"""INFO becomes perf_branch_entry's flags as Linux has it, field by field."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archlbr.profile.stack import ENTRY, entry_cycles, entry_flags, entry_types

# PERF_BR_* by BR_TYPE: COND, IND, UNCOND, IND_CALL, CALL, RET; the rest is Linux's to decode (reference
# architecture.md 6.3).
PERF_TYPES = [1, 3, 2, 5, 4, 6] + [0] * 10


def flags_of(info: int, decoded: int | None) -> int:
    """Return the flags word, a field at a time, from the kernel's struct and rule."""
    mispred = info >> 63
    code = info >> 56 & 15
    kind = decoded if decoded is not None and code > 5 else PERF_TYPES[code]
    cycles = info & 0xFFFF if info >> 60 & 1 else 0
    fields = [(mispred, 1), (1 - mispred, 1), (info >> 62 & 1, 1), (info >> 61 & 1, 1), (cycles, 16), (kind, 4)]
    word = at = 0
    for value, width in fields:
        word |= value << at
        at += width
    return word


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 15)), max_size=20), st.booleans())
def test_flags_are_the_kernel_s(rows: list[tuple[int, int]], decoded: bool) -> None:
    info = np.array([row[0] for row in rows], dtype=np.uint64)
    types = np.array([row[1] for row in rows], dtype=np.uint8)
    expected = [flags_of(value, kind if decoded else None) for value, kind in rows]
    assert entry_flags(info, types if decoded else None).tolist() == expected


@pytest.mark.parametrize(("code", "kind"), list(enumerate(PERF_TYPES)))
def test_each_branch_type_has_its_perf_type(code: int, kind: int) -> None:
    entries = np.zeros(1, dtype=ENTRY)
    entries["flags"] = entry_flags(np.array([code << 56], dtype=np.uint64))
    assert entry_types(entries).tolist() == [kind]


@pytest.mark.parametrize(("valid", "cycles"), [(0, 0), (1, 0xFFFF)])
def test_cycles_count_only_where_they_are_valid(valid: int, cycles: int) -> None:
    entries = np.zeros(1, dtype=ENTRY)
    entries["flags"] = entry_flags(np.array([valid << 60 | 0xFFFF], dtype=np.uint64))
    assert entry_cycles(entries).tolist() == [cycles]
