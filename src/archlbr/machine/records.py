"""The LBR registers of a pCPU as those who share them move them: real records, each with the tag of whose it is.

`machine.pcpu` reads them from the words of whoever runs, hands them to the host's step as its registers, and writes
back what the step made of them. The step never looks inside a record; it is the number of its tag, so that the
explorer's tags and a machine's records go through the same functions. Whose a record is follows from who ran when it
appeared.
Design: docs/decisions/034.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from archlbr.lbr.bank import NOBODY
from archlbr.lbr.compiled import words as w
from archlbr.lbr.state import ARCH, Entry

if TYPE_CHECKING:
    from archlbr.cpu.words import Words
    from archlbr.lbr.state import Facility


class Record(int):
    """A record; the number is whose it is. entry: FROM, TO and INFO. slot: the number of its registers, legacy."""

    entry: Entry
    slot: int


def made(tag: int, entry: Entry, slot: int) -> Record:
    """Return a record."""
    record = Record(tag)
    record.entry, record.slot = entry, slot
    return record


# Newest first; 0 where FROM reads 0. The last one of the architectural facility is LER, which moves with the entries.
Stack: TypeAlias = tuple[int, ...]


class Records:
    """Whose records the registers of one pCPU hold."""

    def __init__(self, facility: Facility) -> None:
        self.most = facility.max_depth
        self.architectural = facility.format == ARCH
        self.width = self.most + self.architectural
        self._known: list[int] = [NOBODY] * self.width
        self._stack: Stack = (NOBODY,) * self.width

    def read(self, words: Words, tag: int) -> Stack:
        """Return the stack in these words (of the compiled facility); what has appeared since is `tag`'s.

        A record that is the same to the last bit as the one before it in its registers is taken for that one.
        """
        depth, head = int(words[w.DEPTH]), (int(words[w.HEAD]) - w.RING) // w.STRIDE
        flat: list[int] = words[w.RING : w.RING + w.STRIDE * depth].tolist()
        slots = [(head - age) % depth for age in range(depth)]
        stack = [self._seen(slot, flat[w.STRIDE * slot : w.STRIDE * (slot + 1)], tag) for slot in slots]
        stack += [NOBODY] * (self.most - depth)
        if self.architectural:
            stack.append(self._seen(self.most, words[w.LER_FROM : w.LER_INFO + 1].tolist(), tag))
        if any(record is not before for record, before in zip(stack, self._stack, strict=True)):
            self._stack = tuple(stack)
        return self._stack

    def _seen(self, slot: int, values: list[int], tag: int) -> int:
        known = self._known[slot]
        if not values[0]:
            known = NOBODY
        elif not isinstance(known, Record) or known.entry != tuple(values):
            known = made(tag, Entry._make(values), slot)
        self._known[slot] = known
        return known

    def write(self, words: Words, stack: Stack, depth: int) -> None:
        """Put a stack into the words, at this depth; a legacy record goes back to the registers it was read from."""
        newest = stack[0]
        if self.architectural:
            head = depth - 1
        elif isinstance(newest, Record):
            head = newest.slot
        else:
            head = (int(words[w.HEAD]) - w.RING) // w.STRIDE
        words[w.DEPTH] = depth
        words[w.RING :] = 0
        words[w.HEAD] = w.RING + w.STRIDE * head
        self._known = [NOBODY] * self.width
        for age in range(depth):
            self._put(words, w.RING + w.STRIDE * ((head - age) % depth), (head - age) % depth, stack[age])
        if self.architectural:
            words[w.LER_FROM : w.LER_INFO + 1] = 0
            self._put(words, w.LER_FROM, self.most, stack[self.most])
        self._stack = stack

    def _put(self, words: Words, at: int, slot: int, record: int) -> None:
        if isinstance(record, Record):
            words[at : at + w.STRIDE] = record.entry
            self._known[slot] = record

    def owner(self, slot: int, values: Entry, tag: int) -> int:
        """Return whose the record in these registers is, if `tag` runs and they hold `values` now."""
        known = self._known[slot]
        if not values.source:
            return NOBODY
        return int(known) if isinstance(known, Record) and known.entry == values else tag
