"""The QEMU plugin's counting: what it leaves out changes no sample, and it sees the ends of blocks as the decoder does.

The plugin's own C code runs here without QEMU (`drive_counting.c`): random walks over blocks, with system calls,
signals and code that is looked at closely, once written block by block and once counted, and both read by the compiled
reader.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from archlbr.arch import msrs
from archlbr.cpu import words as at
from archlbr.cpu.decode import Decoder
from archlbr.cpu.qemu import plugin, stream
from archlbr.cpu.qemu.ring import Ring
from archlbr.cpu.qemu.stream import Ending
from archlbr.machine import hooks, streaming
from archlbr.machine.streams import ProcessStreams
from archlbr.profile.perfdata.attr import branch_attr
from archlbr.recording.events import TAKEN, Event, period_alone
from archlbr.recording.streamed import StreamedSampler

COMPILER: Final = next(filter(None, map(shutil.which, plugin.COMPILERS)), None)
pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")

BLOCK, CAREFUL, CALL, SIGNAL, RETURN, FAULT = range(6)
BASE: Final = 0x400000


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    made = tmp_path_factory.mktemp("driver") / "driver.so"
    folder = Path(plugin.__file__).parent
    sources = [path for path in sorted(folder.glob("*.c")) if path.name != "branches.c"]
    flags = [
        "-O2",
        "-fPIC",
        "-shared",
        "-pthread",
        "-fvisibility=hidden",
        "-fomit-frame-pointer",
        "-mno-red-zone",
        "-Wl,-z,lazy",
        f"-I{folder}",
    ]
    definitions = [f"-D{macro}" for macro in stream.macros()]
    driven = Path(__file__).with_name("drive_counting.c")
    subprocess.run([str(COMPILER), *flags, *definitions, "-o", made, driven, *sources], check=True)
    return ctypes.CDLL(str(made), mode=os.RTLD_LAZY)  # what QEMU offers is never called


# --- walks ---


class Code(NamedTuple):
    """A block: the bytes of its last instruction, its instructions, and how it goes on."""

    last: bytes
    count: int
    goes: str


KINDS: Final = {
    "cond": (bytes.fromhex("7410"), bytes.fromhex("0f8500010000"), bytes.fromhex("e2f0")),
    "jump": (bytes.fromhex("eb10"), bytes.fromhex("e900010000"), b"\xc3", b"\xff\xd0", bytes.fromhex("ff2500000000")),
    "plain": (b"\x90", bytes.fromhex("4889c8"), bytes.fromhex("e800000000")),
    "rep": (bytes.fromhex("f348ab"),),
    "call": (bytes.fromhex("0f05"),),
    "unsure": (bytes.fromhex("66eb10"),),  # a jump of which decoders think differently
}
WEIGHTS: Final = {"cond": 12, "jump": 6, "plain": 2, "rep": 1, "call": 1, "unsure": 0}


class Walk(NamedTuple):
    """Blocks, where the first lies, and what happened: rows of (what, block, RIP)."""

    base: int
    blocks: list[Code]
    happened: list[tuple[int, int, int]]


def addresses(base: int, blocks: list[Code]) -> list[int]:
    found = [base]
    for block in blocks:
        found.append(found[-1] + len(block.last) + block.count - 1)
    return found


PLACES: Final = itertools.count(BASE, 1 << 20)  # the plugin does not forget where handlers were


def walk(seed: int, steps: int, odd: int, branches: bool = False) -> Walk:
    """Walk at random; of 1000 blocks, `odd` meet a signal, and above 4 one in four of the code is looked at closely.

    branches: no block ends in anything else.
    """
    draw = random.Random(seed)
    weights = {"cond": 2, "jump": 1} if branches else {**WEIGHTS, "unsure": int(odd > 4)}
    blocks = []
    for _ in range(14):
        goes = draw.choices(list(weights), list(weights.values()))[0]
        blocks.append(Code(draw.choice(KINDS[goes]), 1 if goes == "rep" else draw.randint(1, 6), goes))
    blocks += [Code(b"\xc3", 3, "jump"), Code(b"\xeb\x10", 2, "jump")]  # the last one is the signal's handler
    handler = len(blocks) - 1
    careful = {index for index in range(handler) if odd > 4 and draw.random() < 0.25}
    base = next(PLACES)
    starts = addresses(base, blocks)
    happened: list[tuple[int, int, int]] = []
    here = 0
    for _ in range(steps):
        happened.append((CAREFUL if here in careful else BLOCK, here + 1, 0))
        block = blocks[here]
        onward = draw.randrange(handler)
        if block.goes in ("plain", "call") or (block.goes == "cond" and draw.random() < 0.4):
            onward = here + 1
        elif block.goes == "rep":
            onward = here if draw.random() < 0.8 else here + 1
        if block.goes == "call":
            happened.append((CALL, 0, 0))
        if onward == handler:
            onward = 0 if block.goes not in ("plain", "call") else onward
        elif draw.randrange(1000) < odd and block.goes != "call":
            fault = block.count > 1 and draw.random() < 0.3
            rip = starts[here] + 1 if fault else starts[onward]
            happened.append((FAULT if fault else SIGNAL, handler + 1, rip))
            happened += [(BLOCK, handler, 0), (CALL, 0, 0)]
            happened.append((RETURN, 0, 0))
        here = onward
    return Walk(base, blocks, happened)


class Found(NamedTuple):
    """What the reader made of a walk: its samples, its counts, and how many words it read for that."""

    samples: bytes
    taken: int
    retired: int
    words: int


def read(driver: ctypes.CDLL, told: Walk, period: int, counted: bool, pause: int) -> Found:
    """Let the plugin see a walk, and the reader what the plugin writes, every `pause` rows."""
    rows = np.array(told.happened, [("what", np.uint32), ("block", np.uint32), ("rip", np.uint64)])
    event = Event(TAKEN, period, msrs.CTL_LBREN | msrs.CTL_USR | msrs.CTL_KINDS)
    assert period_alone(event) == period
    with tempfile.TemporaryDirectory() as folder:
        inbox = stream.Inbox(folder)
        driver.begin(folder.encode(), ctypes.c_uint64(period if counted else 0))
        for index, (start, block) in enumerate(zip(addresses(told.base, told.blocks), told.blocks, strict=False)):
            sizes = bytes([1] * (block.count - 1) + [len(block.last)])
            assert driver.describe_block(ctypes.c_uint64(start), sizes, block.count, block.last) == index + 1
        pid = os.getpid()
        recorder = StreamedSampler(folder, branch_attr("branches", period, 0), event, pid)
        process = ProcessStreams(pid, recorder, Ring(folder, pid, 0, longer=True))
        for first in range(0, len(rows), pause):
            part = rows[first : first + pause]
            driver.run(ctypes.c_void_p(part.ctypes.data), len(part))
            process.follow(0, pid, process.ring.written(0))
            inbox.read()
        process.take_in(process.thread(0, pid))
        words = recorder.words
        samples = words[hooks.SAMPLES_AT : hooks.SAMPLES_AT + int(words[hooks.SAMPLES_USED])].tobytes()
        inbox.close()
        return Found(samples, int(words[at.TAKEN]), int(words[at.RETIRED]), process.thread(0, pid).done)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    period=st.integers(1057, 9000),
    odd=st.sampled_from((0, 1, 3, 5)),
    pause=st.sampled_from((997, 20000)),
)
@example(seed=3, period=5003, odd=0, pause=20000)
@example(seed=4, period=5003, odd=3, pause=997)
@example(seed=4, period=5003, odd=5, pause=997)
def test_what_is_only_counted_changes_no_sample(
    driver: ctypes.CDLL, seed: int, period: int, odd: int, pause: int
) -> None:
    told = walk(seed, 30000, odd)
    written = read(driver, told, period, False, pause)
    counted = read(driver, told, period, True, pause)
    assert counted[:3] == written[:3]


def test_most_of_a_long_period_is_not_written(driver: ctypes.CDLL) -> None:
    told = walk(7, 60000, 0, branches=True)
    written, counted = (read(driver, told, 9001, how, 20000) for how in (False, True))
    assert counted[:3] == written[:3]
    assert len(counted.samples) >= 3 * 8 * hooks.SAMPLE_ROW
    assert counted.words < written.words / 5  # 256 of 9001 taken branches, and those that are not taken


def test_after_a_signal_the_reader_is_asked_and_counting_goes_on(driver: ctypes.CDLL) -> None:
    told = walk(8, 60000, 0, branches=True)
    handler = len(told.blocks)
    later = told.happened[1000][1]
    signal = [(SIGNAL, handler, addresses(told.base, told.blocks)[later - 1]), (CALL, 0, 0), (RETURN, 0, 0)]
    told = told._replace(happened=told.happened[:1000] + signal + told.happened[1000:])
    written, counted = (read(driver, told, 9001, how, 5000) for how in (False, True))
    assert counted[:3] == written[:3]
    assert 5000 < counted.words < written.words / 3  # all up to the answer, then as before


# --- ends of blocks ---


@pytest.fixture(scope="module")
def decoder() -> tuple[Decoder, np.ndarray[tuple[int], np.dtype[np.uint64]]]:
    kept = Decoder()
    words = np.zeros(streaming.WORDS, np.uint64)
    kept.install(words)
    return kept, words


PREFIXES: Final = st.lists(st.sampled_from((0x2E, 0x3E, 0x64, 0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x41, 0x48)), max_size=3)
# Each opcode map's rows that hold branches more often than a byte at random would find them.
OPCODES: Final = st.one_of(
    st.binary(min_size=1, max_size=1),
    st.integers(0, 255).map(lambda byte: bytes((0x0F, byte))),
    st.sampled_from((0x70, 0x7F, 0xE0, 0xE3, 0xE8, 0xE9, 0xEB, 0xC2, 0xC3, 0xFF)).map(lambda byte: bytes((byte,))),
    st.integers(0x80, 0x8F).map(lambda byte: bytes((0x0F, byte))),
)


@settings(max_examples=1000, deadline=None)
@given(prefixes=PREFIXES, opcode=OPCODES, rest=st.binary(min_size=11, max_size=11))
def test_the_plugin_and_the_decoder_see_the_same_ends(
    driver: ctypes.CDLL,
    decoder: tuple[Decoder, np.ndarray[tuple[int], np.dtype[np.uint64]]],
    prefixes: list[int],
    opcode: bytes,
    rest: bytes,
) -> None:
    import capstone

    code = (bytes(prefixes) + opcode + rest)[:15]
    found = next(capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(code, BASE), None)
    assume(found is not None)
    assert found is not None
    block = np.zeros(2 * stream.BLOCK_BYTES, np.uint8)
    ending = driver.how_it_ends(code, found.size, ctypes.c_uint64(BASE), 1)
    block[48:72].view(np.uint64)[:] = BASE, BASE + found.size, BASE
    block[72:76].view(np.uint32)[0] = 1
    block[76], block[77] = found.size, ending
    block[80 : 80 + found.size] = np.frombuffer(code[: found.size], np.uint8)
    assert streaming.define(decoder[1], np.uint64(block.ctypes.data), np.uint64(1), np.uint64(1)) == 0, code.hex()


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("7410", Ending.CONDITIONAL),
        ("2e0f8410000000", Ending.CONDITIONAL),
        ("e810000000", Ending.ALWAYS),
        ("67e810000000", Ending.ALWAYS),
        ("e800000000", Ending.PLAIN),
        ("f3c3", Ending.ALWAYS),
        ("ff2510000000", Ending.ALWAYS),
        ("41ff54c708", Ending.ALWAYS),
        ("ff28", Ending.UNSURE),  # a far jump
        ("f3a4", Ending.ODD),
        ("a4", Ending.PLAIN),
        ("66e91000", Ending.UNSURE),
        ("0f05", Ending.ODD),
        ("66900000", Ending.PLAIN),
    ],
)
def test_what_compilers_end_blocks_with_is_known(driver: ctypes.CDLL, code: str, ending: Ending) -> None:
    raw = bytes.fromhex(code)
    assert driver.how_it_ends(raw, len(raw), ctypes.c_uint64(BASE), 1) == ending


@pytest.mark.parametrize("code", ["e8", "0f", "48", "ff15", "4889"])
def test_an_instruction_over_a_page_end_is_left_to_the_reader(driver: ctypes.CDLL, code: str) -> None:
    raw = bytes.fromhex(code)
    place = ctypes.c_uint64(BASE + 4096 - len(raw))
    assert driver.how_it_ends(raw, len(raw), place, 2) == Ending.ODD
    assert driver.how_it_ends(raw, len(raw), ctypes.c_uint64(BASE), 2) in (Ending.UNSURE, Ending.PLAIN)
