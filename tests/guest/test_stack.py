"""The first stack, walked as the System V ABI (3.4.1) says a program finds it."""

from __future__ import annotations

import struct
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from archlbr.guest.stack import FirstStack, build

TOP = 0x7FFF_FFFF_0000
RANDOM = bytes(range(16))

TEXT = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"x"))
# Everything the loader may give but the three entries that are placed here, and the end.
AUXILIARY = st.dictionaries(
    st.integers(1, 60).filter(lambda key: key not in (15, 25, 31)), st.integers(0, (1 << 64) - 1), max_size=20
)


class Walked(NamedTuple):
    """What a program finds from its stack pointer up."""

    argv: list[bytes]
    envp: list[bytes]
    auxv: list[tuple[int, int]]
    end: int


class Reader:
    """Memory from the stack pointer to the top, read by address."""

    def __init__(self, stack: FirstStack) -> None:
        self.base, self.content = stack.rsp, stack.content

    def word(self, address: int) -> int:
        value: int = struct.unpack_from("<Q", self.content, address - self.base)[0]
        return value

    def text(self, address: int) -> bytes:
        assert self.base <= address < self.base + len(self.content)
        start = address - self.base
        return self.content[start : self.content.index(0, start)]

    def walk(self) -> Walked:
        at = self.base
        count = self.word(at)
        at += 8
        argv = [self.text(self.word(at + 8 * index)) for index in range(count)]
        at += 8 * count
        assert self.word(at) == 0
        at += 8
        envp = []
        while self.word(at):
            envp.append(self.text(self.word(at)))
            at += 8
        at += 8
        auxv = []
        while True:
            pair = (self.word(at), self.word(at + 8))
            at += 16
            auxv.append(pair)
            if pair[0] == 0:
                return Walked(argv, envp, auxv, at)


@given(st.lists(TEXT, max_size=8), st.lists(TEXT, max_size=8), AUXILIARY, TEXT)
@example([], [], {}, b"")
@example([b""], [b"A=B", b""], {6: 4096}, b"/bin/x")
def test_a_program_finds_what_it_was_given(
    argv: list[bytes], envp: list[bytes], auxiliary: dict[int, int], execfn: bytes
) -> None:
    stack = build(TOP, tuple(argv), tuple(envp), auxiliary, execfn, RANDOM)
    assert stack.rsp % 16 == 0
    assert stack.rsp + len(stack.content) == TOP
    reader = Reader(stack)
    found = reader.walk()
    assert (found.argv, found.envp) == (argv, envp)
    vector = dict(found.auxv)
    assert len(vector) == len(found.auxv)
    random, execfn_at, platform = vector.pop(25), vector.pop(31), vector.pop(15)
    assert vector.pop(0) == 0
    assert vector == auxiliary
    assert reader.text(execfn_at) == execfn
    assert reader.text(platform) == b"x86_64"
    assert stack.content[random - stack.rsp : random - stack.rsp + 16] == RANDOM
    # Nothing overlaps the vectors, and the last word is zero, as /proc/PID/environ ends before it.
    assert min(random, execfn_at, platform) >= found.end
    assert stack.content[-8:] == bytes(8)
    assert stack.auxv == stack.content[found.end - 16 * len(found.auxv) - stack.rsp : found.end - stack.rsp]


def test_the_strings_lie_in_the_kernel_s_order() -> None:
    """fs/exec.c copies the file's name, then the environment, then the arguments, each below the one before."""
    stack = build(TOP, (b"prog", b"-x"), (b"A=1", b"B=2"), {}, b"/bin/prog", RANDOM)
    assert stack.content.endswith(b"prog\0-x\0A=1\0B=2\0/bin/prog\0" + bytes(8))


def test_every_byte_is_accounted_for() -> None:
    stack = build(TOP, (b"p",), (), {6: 4096}, b"p", RANDOM)
    words = [1, TOP - 12, 0, 0, 6, 4096, 25, TOP - 48, 31, TOP - 10, 15, TOP - 19, 0, 0]
    text = RANDOM + bytes(13) + b"x86_64\0" + b"p\0" + b"p\0" + bytes(8)
    assert stack.rsp == TOP - 48 - 8 * len(words)
    assert stack.content == struct.pack("<14Q", *words) + text
