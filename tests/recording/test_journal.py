"""The journal against the pure model: random walks through blocks, settled at random places."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, NamedTuple

import capstone
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archlbr.arch import msrs
from archlbr.arch.branches import BranchKind as Kind
from archlbr.arch.cpuid import GOLDEN_COVE
from archlbr.cpu import predictor
from archlbr.cpu import words as at
from archlbr.cpu.decode import Decoder
from archlbr.lbr import actions, compiled
from archlbr.lbr.state import State, architectural, initial, newest_first
from archlbr.lbr.step import step
from archlbr.machine import hooks, journal
from archlbr.machine.doorstep import Doorstep, instructions
from archlbr.profile.perfdata.attr import branch_attr
from archlbr.recording.events import RETIRED, TAKEN, Event
from archlbr.recording.sampling import Sampler

if TYPE_CHECKING:
    from pathlib import Path

ANY, STACK, CALLS, NOTHING = 0x7F0005, 0x38000D, 0x180005, 0x000001


class Block(NamedTuple):
    """Where a block lies, its length in bytes and instructions, and how it ends."""

    offset: int
    size: int
    count: int
    last: int
    kind: Kind


ENDS = (
    (Kind.COND, "7410"),
    (Kind.REL_JMP, "eb10"),
    (Kind.REL_CALL, "e810000000"),
    (Kind.RET, "c3"),
    (Kind.IND_JMP, "ffe0"),
    (Kind.IND_CALL, "ffd0"),
    (Kind.OTHER, "0f05"),
    (Kind.NONE, "6690"),
    (Kind.NONE, "f3a4"),  # one pass a block
)
REP = len(ENDS) - 1


def layout() -> tuple[bytes, list[Block]]:
    """Return code of four blocks of each ending, with 0 to 3 NOPs before it; a REP has none."""
    code, blocks = b"", []
    for round_ in range(4):
        for index, (kind, text) in enumerate(ENDS):
            nops = 0 if index == REP else round_
            ending = bytes.fromhex(text)
            blocks.append(Block(len(code), nops + len(ending), nops + 1, len(code) + nops, kind))
            code += b"\x90" * nops + ending
    return code, blocks


CODE, BLOCKS = layout()
_buffer = np.frombuffer(bytearray(CODE + b"\x90" * 16), np.uint8)
BASE = int(_buffer.ctypes.data)


@st.composite
def walks(draw: st.DrawFn) -> list[int]:
    """Draw which blocks run, each by its number."""
    choices = draw(st.lists(st.integers(0, 2 * len(BLOCKS) - 1), min_size=1, max_size=150))
    here, walk = 0, [0]
    for choice in choices * draw(st.integers(1, 4)):
        block = BLOCKS[here]
        following = (here + 1) % len(BLOCKS)
        if here % len(ENDS) == REP:
            here = here if choice % 3 else following
        elif block.kind == Kind.NONE or (block.kind == Kind.COND and choice >= len(BLOCKS)):
            here = following
        else:
            here = choice % len(BLOCKS)
        walk.append(here)
    return walk


class Expected(NamedTuple):
    """What a recording must hold: samples as (ip, time, entries), clock, taken branches, state of the LBRs."""

    samples: list[tuple[int, int, list[tuple[int, int, int]]]]
    retired: int
    taken: int
    state: State


FACILITY = architectural(GOLDEN_COVE, 5)


def programmed(ctl: int) -> State:
    """Return the pure state after perf's programming."""
    state = initial(FACILITY)
    for index, value in (
        (msrs.IA32_LBR_CTL.index, 0),
        (msrs.IA32_LBR_DEPTH.index, 32),
        (msrs.IA32_DEBUGCTL.index, msrs.DEBUGCTL_FREEZE_LBRS),
        (msrs.IA32_LBR_CTL.index, ctl),
    ):
        state, _ = step(FACILITY, state, actions.Wrmsr(index, value))
    return state


def entries_of(state: State) -> list[tuple[int, int, int]]:
    """Return FROM, TO, INFO, newest first, up to the first that is empty."""
    found = []
    for entry in newest_first(FACILITY, state):
        if entry[0] == 0:
            break
        found.append((int(entry[0]), int(entry[1]), int(entry[2])))
    return found


def expect(walk: list[int], event: Event) -> Expected:
    """Run a walk through the pure facility, the pure predictor and a counter."""
    state, seen = programmed(event.ctl), predictor.Predictor()
    retired = taken = 0
    due, samples = event.period, []
    before: Block | None = None
    for number in walk:
        block = BLOCKS[number]
        branch = Kind.NONE
        if before is not None:
            end = before.offset + before.size
            again = before.last == block.offset and CODE[before.last] == 0xF3
            retired += before.count - again
            went = before.kind == Kind.COND and block.offset != end
            branch = before.kind if went or before.kind != Kind.COND else Kind.NONE
            missed = 0
            if before.kind not in (Kind.NONE, Kind.OTHER):
                seen, missed = predictor.step(
                    seen, before.kind, BASE + before.last, BASE + block.offset, BASE + end, int(branch != Kind.NONE)
                )
                taken += branch != Kind.NONE
            if branch != Kind.NONE:
                record = actions.Branch(
                    BASE + before.last, BASE + block.offset, branch, clock=retired, mispredicted=missed
                )
                state, _ = step(FACILITY, state, record)
        count = taken if event.position == TAKEN else retired
        if count >= due and (event.position == RETIRED or branch != Kind.NONE):
            while due <= count:
                due += event.period
            state, _ = step(FACILITY, state, actions.Pmi())
            samples.append((block.offset, retired, entries_of(state)))
            state, _ = step(FACILITY, state, actions.Thaw())
        before = block
    return Expected(samples, retired, taken, state)


_nothing = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(lambda _engine: 0)


def record(walk: list[int], event: Event, cuts: set[int], folder: Path, hook: int) -> Expected:
    """Run a walk through a hook; at the cuts somebody looks around. A stopped engine begins the block again."""
    sampler = Sampler(str(folder), branch_attr("branches", event.period), event)
    words = sampler.words
    decoder = Decoder()
    decoder.install(words)
    words[at.DEADLINE] = 1 << 62
    words[at.EMU_STOP] = ctypes.cast(_nothing, ctypes.c_void_p).value
    call = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)(hook)
    samples: list[tuple[int, int, list[tuple[int, int, int]]]] = []

    def empty() -> None:
        used = int(words[hooks.SAMPLES_USED])
        for row in words[hooks.SAMPLES_AT : hooks.SAMPLES_AT + used].reshape(-1, hooks.SAMPLE_ROW):
            stack = row[hooks.SAMPLE_STACK :].reshape(-1, 3)[: int(row[hooks.SAMPLE_COUNT])].tolist()
            samples.append((int(row[0]) - BASE, int(row[1]), [tuple(entry) for entry in stack]))
        words[hooks.SAMPLES_USED] = 0

    for index, number in enumerate(walk):
        block = BLOCKS[number]
        if index in cuts:
            words[at.LIMIT] = 0
        call(0, BASE + block.offset, block.size, words.ctypes.data)
        if words[at.REASON] != at.REASON_NONE:
            empty()
            words[at.REASON] = words[at.LIMIT] = 0
            call(0, BASE + block.offset, block.size, words.ctypes.data)
    journal.settle(words)
    empty()
    state = compiled.state_of(FACILITY, words[hooks.LBR_AT : hooks.LBR_END])
    return Expected(samples, int(words[at.RETIRED]), int(words[at.TAKEN]), state)


DOORSTEP = Doorstep(journal.sampling.address)


@pytest.mark.parametrize("ctl", [ANY, STACK, CALLS, NOTHING])
@pytest.mark.parametrize("position", [TAKEN, RETIRED])
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(walk=walks(), period=st.integers(1, 60), data=st.data())
def test_a_journal_says_what_the_pure_model_says(
    ctl: int, position: int, walk: list[int], period: int, data: st.DataObject, tmp_path: Path
) -> None:
    event = Event(position, period, ctl)
    cuts = data.draw(st.one_of(st.just({0}), st.sets(st.integers(0, len(walk))), st.just(set(range(len(walk))))))
    hook = data.draw(st.sampled_from([DOORSTEP.address, journal.sampling.address]))
    assert record(walk, event, cuts, tmp_path, hook) == expect(walk, event)


def test_a_journal_that_fills_up_many_times(tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    walk, here = [0], 0
    for choice in generator.integers(0, len(BLOCKS), 3 * at.JOURNAL_ROWS + 77):
        straight = BLOCKS[here].kind == Kind.NONE or (BLOCKS[here].kind == Kind.COND and choice % 2)
        here = (here + 1) % len(BLOCKS) if straight else int(choice)
        walk.append(here)
    for ctl, period in ((ANY, 251), (CALLS, 5003), (STACK, 1)):  # the first learns all: a period is within the window
        event = Event(TAKEN, period, ctl)
        assert record(walk, event, set(), tmp_path, DOORSTEP.address) == expect(walk, event)


def test_the_doorstep_disassembles_to_what_it_says() -> None:
    slow = 0x1122334455667788
    names = {
        "USED": hex(8 * at.JOURNAL_USED),
        "JOURNAL": hex(8 * at.JOURNAL),
        "LIMIT": hex(8 * at.LIMIT),
        "SHIFT": hex(at.JOURNAL_SIZE_SHIFT),
        "SLOW": "0x2a",
        "SAMPLING": hex(slow),
    }
    expected = []
    for text, _ in instructions(slow):
        for name, value in names.items():
            text = text.replace(name, value)
        expected.append(text)
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    found = [f"{one.mnemonic} {one.op_str}".strip() for one in decoder.disasm(Doorstep(slow).code, 0)]
    assert found == expected
