"""Read the text of `cpuid -r`: raw leaves, one processor after another.

`cli` feeds it a file; `leaves` and `probe` take the leaves. Authority: cpuid(1), option -r; the form is also what
`cpuid -f` reads back.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from archlbr.errors import InputError

HEADING = re.compile(r"CPU(?: \d+)?:")
ROW = re.compile(
    r"0x([0-9a-f]{1,8}) 0x([0-9a-f]{1,8}): eax=0x([0-9a-f]{1,8}) ebx=0x([0-9a-f]{1,8}) "
    r"ecx=0x([0-9a-f]{1,8}) edx=0x([0-9a-f]{1,8})"
)


class Leaf(NamedTuple):
    """The four registers one CPUID leaf and sub-leaf return."""

    eax: int
    ebx: int
    ecx: int
    edx: int


Leaves = dict[tuple[int, int], Leaf]  # (leaf, sub-leaf) -> registers


class Dump(NamedTuple):
    """One processor's leaves under the heading they stood below, as `CPU 0`."""

    name: str
    leaves: Leaves


def read_dump(text: str, source: str) -> tuple[Dump, ...]:
    """Return each processor of a `cpuid -r` text; InputError names the first line that is not one of its lines."""
    dumps: list[Dump] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = " ".join(line.split())
        if HEADING.fullmatch(words):
            dumps.append(Dump(words.rstrip(":"), {}))
        elif row := ROW.fullmatch(words.lower()):
            if not dumps:
                dumps.append(Dump("CPU", {}))
            leaf, subleaf, *registers = (int(digits, 16) for digits in row.groups())
            dumps[-1].leaves[leaf, subleaf] = Leaf(*registers)
        elif words:
            raise InputError(
                f"{source}, line {number}: not a line of `cpuid -r`: {words[:60]!r}; make one with `cpuid -1 -r`"
            )
    if not any(dump.leaves for dump in dumps):
        raise InputError(f"{source}: no CPUID leaves; give what `cpuid -1 -r` prints")
    return tuple(dump for dump in dumps if dump.leaves)
