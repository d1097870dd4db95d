"""The guest's address space against the same calls made natively beside it, the engine's view and the host's maps."""

from __future__ import annotations

import ctypes
import errno
import os
import random
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archlbr.cpu import words as at
from archlbr.cpu.unicorn.engine import UnicornEngine
from archlbr.guest.kernel import Kernel
from archlbr.machine.memory import AddressSpace
from archlbr.machine.processor import answer_cpuid
from tests.machine.shadow import PAGE, SHIFT, Area, Shadow, areas, pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from archlbr.machine.regions import Region


ARENA = 0x2100_0000_0000
SPAN = 12
USER = (0x2000_0000_0000, 0x3000_0000_0000)

PRIVATE, SHARED, FIXED, ANONYMOUS, NOREPLACE = 2, 1, 0x10, 0x20, 0x100000
MAYMOVE, MREMAP_FIXED = 1, 2
READ, WRITE, EXEC = 1, 2, 4


class Space:
    """The address space under test, over an engine, with a file to map."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.announced: list[Region] = []
        words = np.zeros(at.WORDS, np.uint64)
        self.engine = UnicornEngine(words, 0, 0, answer_cpuid, lambda: None)
        self.memory = AddressSpace(Kernel(), self.engine, self.announced.append)
        self.shadow = Shadow()
        self.stub = self.seen_by_engine()
        # What other tests of this process left there, a thread's heap for one, is no business of the address space.
        self.others = pages(areas(*USER))

    def seen_by_engine(self) -> dict[int, int]:
        """Return the rights of each page that the engine has mapped."""
        return pages([Area(low, high + 1, rights) for low, high, rights in self.engine._uc.mem_regions()])

    def kept(self) -> dict[int, int]:
        return pages([Area(region.start, region.end, region.protection) for region in self.memory.regions])

    def check(self) -> None:
        """Compare what the address space says with the three places where it shows."""
        kept = self.kept()
        assert kept == pages(areas(USER[0] + SHIFT, USER[1] + SHIFT), SHIFT)
        starts = [region.start for region in self.memory.regions]
        assert starts == sorted(starts)
        # Code is readable to the engine's eyes, and nothing is writable without being readable.
        readable = {page: rights | READ if rights & (WRITE | EXEC) else rights for page, rights in kept.items()}
        assert self.seen_by_engine() == {**self.stub, **{page: rights for page, rights in readable.items() if rights}}
        # The host never executes what is the guest's.
        host = {page: rights for page, rights in pages(areas(*USER)).items() if page not in self.others}
        assert host == {page: rights & (READ | WRITE) for page, rights in readable.items()}
        for page, rights in kept.items():
            if rights & READ:
                assert (
                    self.memory.read(page, 8) == self.shadow.read(page, 8) == bytes(self.engine._uc.mem_read(page, 8))
                )

    def clear(self) -> None:
        self.memory.clear()
        for area in areas(USER[0] + SHIFT, USER[1] + SHIFT):
            self.shadow.munmap(area.start - SHIFT, area.end - area.start)
        assert self.memory.regions == []
        self.check()


@pytest.fixture(scope="module")
def space() -> Iterator[Space]:
    fd = os.memfd_create("mapped")
    os.write(fd, random.Random(1).randbytes(2 * SPAN * PAGE))
    made = Space(fd)
    yield made
    made.clear()
    os.close(fd)


ADDRESS = st.integers(0, SPAN - 1).map(lambda page: ARENA + page * PAGE)
ODD = st.one_of(ADDRESS, ADDRESS, ADDRESS, ADDRESS.map(lambda address: address + 8))
LENGTH = st.one_of(st.integers(1, 8).map(lambda count: count * PAGE), st.integers(0, 6 * PAGE))
# A mapping that is executable and writable needs no special case but the engine's watch on it.
RIGHTS = st.sampled_from([0, READ, READ | WRITE, READ | WRITE, READ | EXEC, EXEC, WRITE, READ | WRITE | EXEC])
BACKING = st.sampled_from([PRIVATE | ANONYMOUS, PRIVATE | ANONYMOUS, SHARED | ANONYMOUS, PRIVATE])


class Mmap(NamedTuple):
    address: int
    length: int
    rights: int
    backing: int
    placing: int
    page: int


class Munmap(NamedTuple):
    address: int
    length: int


class Mprotect(NamedTuple):
    address: int
    length: int
    rights: int


class Mremap(NamedTuple):
    address: int
    old: int
    new: int
    flags: int
    target: int


class Brk(NamedTuple):
    bytes: int


class Write(NamedTuple):
    page: int
    value: int


FIRST = st.builds(
    Mmap,
    ADDRESS,
    st.integers(1, 8).map(lambda count: count * PAGE),
    RIGHTS,
    BACKING,
    st.just(FIXED),
    st.integers(0, SPAN),
)
CALL = st.one_of(
    st.builds(Mmap, ODD, LENGTH, RIGHTS, BACKING, st.sampled_from([FIXED, FIXED, NOREPLACE, 0]), st.integers(0, SPAN)),
    st.builds(Munmap, ODD, LENGTH),
    st.builds(Mprotect, ODD, LENGTH, RIGHTS),
    st.builds(Mremap, ODD, LENGTH, LENGTH, st.sampled_from([0, MAYMOVE, MAYMOVE, MAYMOVE | MREMAP_FIXED, 2, 8]), ODD),
    st.builds(Brk, st.integers(-PAGE, 6 * PAGE)),
    st.builds(Write, st.integers(0, 40), st.integers(0, 255)),
)


def mmap(space: Space, call: Mmap) -> None:
    fd = -1 if call.backing & ANONYMOUS else space.fd
    offset = 0 if call.backing & ANONYMOUS else call.page * PAGE
    before = space.kept()
    ours = space.memory.mmap(call.address, call.length, call.rights, call.backing | call.placing, fd, offset)
    if call.placing:
        assert ours == space.shadow.mmap(
            call.address, call.length, call.rights, call.backing | call.placing, fd, offset
        )
        return
    if call.length == 0:
        assert ours == -errno.EINVAL
        return
    # Where the kernel may choose: a free place, the one asked for when that is free.
    size = -(-call.length // PAGE) * PAGE
    wanted = call.address & -PAGE
    assert not set(range(ours, ours + size, PAGE)) & before.keys()
    if not set(range(wanted, wanted + size, PAGE)) & before.keys():
        assert ours == wanted
    assert space.shadow.mmap(ours, call.length, call.rights, call.backing | FIXED, fd, offset) == ours


def mremap(space: Space, call: Mremap) -> None:
    old, new = (-(-length // PAGE) * PAGE for length in (call.old, call.new))
    if old == 0 or (not call.address % PAGE and not space.shadow.one_area(call.address, old)):
        return  # two mappings side by side may be one to the kernel, or two
    before = space.kept()
    ours = space.memory.mremap(call.address, call.old, call.new, call.flags, call.target)
    flags, target = call.flags, call.target
    if ours > 0 and ours != call.address and not flags & MREMAP_FIXED:
        assert not set(range(ours, ours + new, PAGE)) & before.keys()
        # In place is what the kernel prefers.
        assert set(range(call.address + old, call.address + new, PAGE)) & before.keys() or new <= old
        flags, target = MAYMOVE | MREMAP_FIXED, ours
    assert ours == space.shadow.mremap(call.address, call.old, call.new, flags, target)


def brk(space: Space, call: Brk) -> None:
    memory = space.memory
    wanted = memory.brk_start + call.bytes
    now = memory.brk_end
    low, high = (-(-end // PAGE) * PAGE for end in (now, wanted))
    taken = set(range(low, high, PAGE)) & space.kept().keys()
    ours = memory.brk(wanted)
    if call.bytes < 0 or taken:
        assert ours == now
        return
    assert ours == wanted
    if high > low:
        space.shadow.mmap(low, high - low, READ | WRITE, PRIVATE | ANONYMOUS | NOREPLACE, -1, 0)
    elif high < low:
        space.shadow.munmap(high, low - high)


def write(space: Space, call: Write) -> None:
    kept = space.kept()
    if not kept:
        return
    page = sorted(kept)[call.page % len(kept)]
    written = space.memory.write(page, bytes((call.value,)) * 3)
    assert written == bool(kept[page] & WRITE)
    if written:
        space.shadow.write(page, bytes((call.value,)) * 3)


def perform(space: Space, call: tuple[int, ...]) -> None:
    if isinstance(call, Mmap):
        mmap(space, call)
    elif isinstance(call, Munmap):
        assert space.memory.munmap(*call) == space.shadow.munmap(*call)
    elif isinstance(call, Mprotect):
        assert space.memory.mprotect(*call) == space.shadow.mprotect(*call)
    elif isinstance(call, Mremap):
        mremap(space, call)
    elif isinstance(call, Brk):
        brk(space, call)
    else:
        assert isinstance(call, Write)
        write(space, call)


@settings(max_examples=200, deadline=None)
@given(st.lists(FIRST, max_size=3), st.lists(CALL, max_size=20))
def test_every_call_does_what_the_kernel_does(
    space: Space, first: list[tuple[int, ...]], calls: list[tuple[int, ...]]
) -> None:
    space.memory.set_brk_start(ARENA + 2 * SPAN * PAGE - 100)
    try:
        for call in [*first, *calls]:
            perform(space, call)
            space.check()
    finally:
        space.clear()


def test_what_this_process_occupies_is_not_given_away(space: Space) -> None:
    memory = space.memory
    buffer = np.zeros(4 * PAGE, np.uint8)
    mine = int(buffer.ctypes.data) & -PAGE
    buffer[:] = 7
    assert memory.mmap(mine, PAGE, READ, PRIVATE | ANONYMOUS | FIXED, -1, 0) == -errno.ENOMEM
    assert memory.collided == (mine, mine + PAGE)
    assert memory.mmap(ARENA, PAGE, READ, PRIVATE | ANONYMOUS | FIXED, -1, 0) == ARENA
    assert memory.mremap(ARENA, PAGE, PAGE, MAYMOVE | MREMAP_FIXED, mine) == -errno.ENOMEM
    assert memory.munmap(mine, PAGE) == 0
    assert memory.mprotect(mine, PAGE, 0) == -errno.ENOMEM
    assert memory.read(mine, 1) is None
    assert not memory.write(mine, b"x")
    assert buffer.tolist() == [7] * len(buffer)
    memory.clear()


def test_what_is_unmapped_is_given_out_again(space: Space) -> None:
    memory = space.memory
    first, second, third = (memory.mmap(0, 2 * PAGE, READ, PRIVATE | ANONYMOUS, -1, 0) for _ in range(3))
    assert (second - first, third - second) == (2 * PAGE, 2 * PAGE)
    assert {round_trip(memory) for _ in range(50)} == {third + 2 * PAGE}
    assert memory.munmap(second, 2 * PAGE) == 0
    # It does not fit into the hole; what fits does.
    assert memory.mmap(0, 3 * PAGE, READ, PRIVATE | ANONYMOUS, -1, 0) == third + 2 * PAGE
    memory.munmap(third, PAGE)
    assert memory.mmap(0, PAGE, READ, PRIVATE | ANONYMOUS, -1, 0) == third
    memory.clear()


def test_a_mapping_that_would_grow_beyond_all_addresses_stays_where_it_is(space: Space) -> None:
    memory = space.memory
    first, second = (memory.mmap(0, PAGE, READ | WRITE, PRIVATE | ANONYMOUS, -1, 0) for _ in range(2))
    assert memory.write(first, b"kept")
    for size in (1 << 43, 1 << 46, 1 << 52):
        assert memory.mremap(first, PAGE, size, MAYMOVE, 0) == -errno.ENOMEM
    assert (memory.read(first, 4), memory.read(second, 4)) == (b"kept", bytes(4))
    memory.clear()


def round_trip(memory: AddressSpace) -> int:
    at = memory.mmap(0, 3 * PAGE, READ, PRIVATE | ANONYMOUS, -1, 0)
    assert memory.munmap(at, 3 * PAGE) == 0
    return at


def test_a_region_that_becomes_executable_is_announced(space: Space) -> None:
    memory, said = space.memory, space.announced
    said.clear()
    memory.mmap(ARENA, 4 * PAGE, READ | EXEC, PRIVATE | FIXED, space.fd, 2 * PAGE)
    assert [(region.start, region.end, region.offset, region.protection) for region in said] == [
        (ARENA, ARENA + 4 * PAGE, 2 * PAGE, READ | EXEC)
    ]
    status = os.fstat(space.fd)
    assert (said[0].path, said[0].device, said[0].inode) == ("/memfd:mapped (deleted)", status.st_dev, status.st_ino)
    memory.mprotect(ARENA + PAGE, PAGE, READ)
    assert len(said) == 1
    memory.mprotect(ARENA, 4 * PAGE, READ | EXEC)  # only the page that had lost the right
    assert [(region.start, region.end, region.offset) for region in said[1:]] == [
        (ARENA + PAGE, ARENA + 2 * PAGE, 3 * PAGE)
    ]
    memory.clear()


def test_strings_end_at_a_null_or_at_nothing(space: Space) -> None:
    memory = space.memory
    memory.mmap(ARENA, 2 * PAGE, READ | WRITE, PRIVATE | ANONYMOUS | FIXED, -1, 0)
    ctypes.memset(ARENA, ord("a"), 2 * PAGE)
    assert memory.read_string(ARENA + 10) is None  # runs out of memory
    memory.write(ARENA + PAGE + 5, b"\0")
    assert memory.read_string(ARENA + 10) == b"a" * (PAGE - 5)
    assert memory.read_string(ARENA + PAGE + 5) == b""
    assert memory.read_string(ARENA + 2 * PAGE) is None
    assert memory.read(ARENA + 2 * PAGE - 4, 4) == b"aaaa"
    assert memory.read(ARENA + 2 * PAGE - 4, 5) is None
    memory.clear()
