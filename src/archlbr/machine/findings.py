"""What a run of several guests on one processor showed: whose records each party was given, and what that breaks.

`machine.pcpu` fills it in; `cli` prints it. A party is a guest or the host. Its entries are the records that it read,
or that its samples hold; foreign ones are another party's. The properties are those of `contract.properties`, as far as
one run can break them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from archlbr.lbr.bank import HOST, NOBODY, VM

if TYPE_CHECKING:
    from archlbr.perf.samples import Sample


# What a run can be seen to break: what a guest or a sample was given.
CLAIMS = ("S1", "S2", "G1", "H1", "H2", "H3")


@dataclass
class Party:
    """One party. samples: stacks that it read or was given; none: of the host's, those that say they have no stack;
    stale: those that hold an older one. entries: records in them; foreign: of these, another party's; lost: records of
    its own that it should have found.
    """

    samples: int = 0
    none: int = 0
    stale: int = 0
    entries: int = 0
    foreign: int = 0
    lost: int = 0


@dataclass
class Findings:
    """All parties. broken: how often each property was broken; first: how many actions had happened then."""

    guests: list[Party]
    host: Party = field(default_factory=Party)
    broken: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)

    def breaks(self, claim: str, at: int) -> None:
        """Note that a property was broken after so many actions."""
        self.broken[claim] = self.broken.get(claim, 0) + 1
        self.first.setdefault(claim, at)

    def guest_read(self, v: int, owner: int, age: int, expected: int, at: int) -> None:
        """Note that a guest read FROM of its record number `age`: whose it was; `expected` of its own should be there.

        One record of each stack is not asked for: whether the branch into the reading block is there yet depends on
        where the block ends.
        """
        party = self.guests[v]
        party.samples += age == 0
        party.entries += owner != NOBODY
        if owner not in (NOBODY, VM + v):
            party.foreign += 1
            self.breaks("S1" if owner == HOST else "S2", at)
        if owner != VM + v and age < expected - 1:
            party.lost += 1
            self.breaks("G1", at)

    def host_sampled(self, sample: Sample, *, dead: int, exclude_guest: int, in_guest: int, at: int) -> None:
        """Note a sample of the host's event. dead: the event runs, nothing records, and nothing says so."""
        party = self.host
        party.samples += 1
        if sample.none:
            party.none += 1
            return
        if not sample.fresh or dead:
            party.stale += 1
            self.breaks("H1", at)
        records = [int(record) for record in sample.records if record != NOBODY]
        party.entries += len(records)
        guests = sum(tag >= VM for tag in records)
        if in_guest:
            party.foreign += len(records) - guests
            if len(records) > guests:
                self.breaks("H3", at)
        elif exclude_guest:
            party.foreign += guests
            if guests:
                self.breaks("H2", at)
