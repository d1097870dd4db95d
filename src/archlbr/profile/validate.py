"""The check a profile must pass before it is called done: its stacks are paths a program can take.

Between an older entry's TO and the next newer entry's FROM the program ran straight on, or another branch would have
been recorded: TO <= FROM, both in one mapping, and where the file can be read no unconditional branch between them and
a branch at FROM. BOLT calls violations "mismatching" and "out of range" traces (reference profile-tools.md 2 and 5).
Holds for stacks that record every branch (`ANY`); a narrower filter leaves gaps on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import capstone
import numpy as np

from archlbr.arch.branches import PerfBranch
from archlbr.profile.edges import pairs
from archlbr.profile.images import Images
from archlbr.profile.maps import AddressSpaces
from archlbr.profile.perfdata.attr import BRANCH_ANY
from archlbr.profile.stack import Mapping, Samples, Words, entry_types

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from archlbr.profile.perfdata.reader import Reader

# The longest instruction, in bytes (SDM vol. 2, 2.3.11).
_LONGEST = 15
# A straight line longer than this is not disassembled: no compiler emits one, and damage could name any.
_FARTHEST = 1 << 16

# By perf type: whether it names a near branch, as a far transfer's or an interrupt's does not.
_NAMED = np.array([PerfBranch.COND <= kind <= PerfBranch.RET for kind in range(16)])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found; counts of samples, entries, and (older TO, newer FROM) pairs.

    backwards: TO > FROM; out_of_range: TO and FROM not in one mapping; unmapped: entries with an end in no mapping;
    mismatched: the file's instructions contradict the pair; disassembled: pairs whose instructions were looked at;
    complete: every branch was recorded, so that pairs are straight lines at all.
    """

    samples: int = 0
    entries: int = 0
    pairs: int = 0
    backwards: int = 0
    out_of_range: int = 0
    unmapped: int = 0
    disassembled: int = 0
    mismatched: int = 0
    complete: bool = True

    @property
    def holds(self) -> bool:
        """Whether no pair contradicts a program's run."""
        return not (self.backwards or self.out_of_range or self.mismatched)

    def __add__(self, other: Verdict) -> Verdict:
        names = [field.name for field in fields(self) if field.name != "complete"]
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Verdict(**sums, complete=self.complete and other.complete)


class _Lines:
    """The straight lines that were looked at: a verdict for each (mapping, TO, FROM, named), found for whole batches.

    A row's key is a mix of its four words; rows are compared whole, so that a key two rows share costs time, not truth.
    """

    _MIX = tuple(
        np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5)
    )

    def __init__(self, judge: Callable[[int, int, int, bool], int]) -> None:
        self._judge = judge
        self._verdicts: dict[tuple[int, int, int, int], int] = {}
        self._keys = np.zeros(0, dtype=np.uint64)
        self._rows = np.zeros((0, 4), dtype=np.uint64)
        self._found = np.zeros(0, dtype=np.int8)

    def verdicts(self, rows: Words) -> NDArray[np.int8]:
        """Return the verdict of each row of uint64[n, 4]."""
        keys = np.zeros(len(rows), dtype=np.uint64)
        for column, odd in enumerate(self._MIX):
            keys = (keys ^ rows[:, column]) * odd
            keys ^= keys >> np.uint64(29)
        out = np.zeros(len(rows), dtype=np.int8)
        missing = np.ones(len(rows), dtype=np.bool_)
        if len(self._keys):
            place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            missing = (self._rows[place] != rows).any(axis=1)
            out = self._found[place]
        unknown = np.flatnonzero(missing)
        if len(unknown):
            fresh: dict[int, tuple[int, int, int, int]] = {}
            for index, key, row in zip(unknown.tolist(), keys[unknown].tolist(), rows[unknown].tolist(), strict=True):
                line = (row[0], row[1], row[2], row[3])
                if line not in self._verdicts:
                    self._verdicts[line] = self._judge(line[0], line[1], line[2], bool(line[3]))
                    fresh[key] = line
                out[index] = self._verdicts[line]
            self._learn(fresh)
        return out

    def _learn(self, fresh: dict[int, tuple[int, int, int, int]]) -> None:
        if not fresh:
            return
        keys = np.concatenate([self._keys, np.array(list(fresh), dtype=np.uint64)])
        rows = np.concatenate([self._rows, np.array(list(fresh.values()), dtype=np.uint64)])
        found = np.concatenate(
            [self._found, np.array([self._verdicts[line] for line in fresh.values()], dtype=np.int8)]
        )
        self._keys, first = np.unique(keys, return_index=True)
        self._rows, self._found = rows[first], found[first]


class Validator:
    """Checks batches of samples against the mappings they ran in; keeps what it learned of each straight line."""

    def __init__(self, spaces: AddressSpaces, disassemble: bool = True) -> None:
        self._spaces = spaces
        self._images = Images() if disassemble else None
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._decoder.detail = True
        self._lines = _Lines(self._straight)

    def close(self) -> None:
        """Close the files that were read."""
        if self._images is not None:
            self._images.close()

    def check(self, samples: Samples) -> Verdict:
        """Return what one batch's stacks show."""
        entries = samples.entries
        pids, times = np.repeat(samples.pid, samples.counts), np.repeat(samples.time, samples.counts)
        sources = self._spaces.lookup(pids, times, entries["from"])
        targets = self._spaces.lookup(pids, times, entries["to"])
        newer = pairs(samples)
        older = newer + 1
        start, end = entries["to"][older], entries["from"][newer]
        backwards = start > end
        apart = ~backwards & ((targets[older] != sources[newer]) | (sources[newer] < 0))
        found = np.zeros(0, dtype=np.int8)
        if self._images is not None:
            straight = ~backwards & ~apart
            named = _NAMED[entry_types(entries)[newer]]
            columns = (sources[newer], start, end, named)
            found = self._lines.verdicts(np.stack([column[straight].astype(np.uint64) for column in columns], axis=1))
        return Verdict(
            samples=len(samples),
            entries=len(entries),
            pairs=len(newer),
            backwards=int(np.count_nonzero(backwards)),
            out_of_range=int(np.count_nonzero(apart)),
            unmapped=int(np.count_nonzero((sources < 0) | (targets < 0))),
            disassembled=int(np.count_nonzero(found >= 0)),
            mismatched=int(np.count_nonzero(found == 0)),
        )

    def _straight(self, number: int, start: int, end: int, named: bool) -> int:
        # 1: straight on to FROM; 0: the instructions contradict it; -1: they cannot be read.
        assert self._images is not None
        if end - start > _FARTHEST:
            return -1
        mapping: Mapping = self._spaces.mappings[number]
        code = self._images.read(mapping, start, end - start + _LONGEST)
        if len(code) <= end - start:
            return -1
        for row in self._decoder.disasm(code, start):
            if row.address == end:
                # An interrupt or a fault may stand behind any instruction; a branch of a known kind only behind a
                # branch.
                return int(not named or _is_branch(row))
            if row.address > end or _is_unconditional(row):
                return 0
        return 0


# LOOP is in capstone's group of relative branches alone.
_BRANCH_GROUPS = (
    capstone.CS_GRP_JUMP,
    capstone.CS_GRP_CALL,
    capstone.CS_GRP_RET,
    capstone.CS_GRP_IRET,
    capstone.CS_GRP_BRANCH_RELATIVE,
)


def _is_branch(row: capstone.CsInsn) -> bool:
    return any(row.group(group) for group in _BRANCH_GROUPS)


def _is_unconditional(row: capstone.CsInsn) -> bool:
    if row.id == capstone.x86.X86_INS_CALL and bytes(row.bytes[-4:]) == bytes(4) and row.bytes[-5] == 0xE8:
        return False  # CALL +0 is no branch to the LBRs (architecture.md 7, fact 8)
    if row.group(capstone.CS_GRP_CALL) or row.group(capstone.CS_GRP_RET):
        # SYSCALL is a call to capstone; a user-mode profile steps over it.
        return bool(row.id not in (capstone.x86.X86_INS_SYSCALL, capstone.x86.X86_INS_SYSENTER))
    return row.id in (capstone.x86.X86_INS_JMP, capstone.x86.X86_INS_LJMP)


def validate(reader: Reader, disassemble: bool = True) -> Verdict:
    """Return what a whole profile's stacks show; only counted, not checked, when its filter leaves branches out."""
    complete = bool(reader.attr.branch_sample_type & BRANCH_ANY)
    total = Verdict(complete=complete)
    validator = Validator(AddressSpaces(reader.sideband()), disassemble)
    try:
        for samples in reader.samples():
            if complete:
                total += validator.check(samples)
            else:
                total += Verdict(samples=len(samples), entries=len(samples.entries), complete=False)
    finally:
        validator.close()
    return total
