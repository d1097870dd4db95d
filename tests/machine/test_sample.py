"""One sample, natively, against `host.sample`: the same entries, and the same registers afterwards."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archlbr import host
from archlbr.arch import msrs
from archlbr.arch.branches import BranchKind
from archlbr.arch.cpuid import GOLDEN_COVE, LBR_COMPONENT, Leaf0A, Leaf0D, Leaf0D1, Leaf07
from archlbr.arch.outcomes import DONE, Value
from archlbr.lbr import compiled
from archlbr.lbr.actions import Branch, Rdmsr, Wrmsr
from archlbr.lbr.compiled import words as lbr_words
from archlbr.lbr.state import Entry, architectural
from archlbr.machine.pmi import take_sample
from archlbr.vpmu import actions as vpmu
from archlbr.vpmu.cpuid import Cpuid
from archlbr.vpmu.designs import ARCHLBR
from archlbr.vpmu.state import platform
from archlbr.vpmu.step import boot, step

U = np.uint64
VERSIONS = (3, 5)
DEPTHS = (8, 16, 32)
FREEZE = 1 << 11
# Enable, user and OS, every kind; then single ones, call-stack mode, and off.
CONTROLS = (0x7F0007, 0x7F0005, 0x7F0003, 0x010005, 0x220007, 0x58000D, 0x7F0006, 0)
CODE = [0x401000 + 24 * index for index in range(10)] + [0x7FFF_F7A0_0000, 0xFFFF_FFFF_8100_0000]


class Taken(NamedTuple):
    source: int
    target: int
    kind: int
    cpl_from: int
    cpl_to: int
    mispredicted: int
    gap: int


BRANCH = st.builds(
    Taken, st.sampled_from(CODE), st.sampled_from(CODE), st.integers(1, 7), st.sampled_from([3, 3, 3, 0]),
    st.sampled_from([3, 3, 3, 0]), st.integers(0, 1), st.sampled_from([1, 5, 0x10000]),
)  # fmt: skip
PROGRAM = st.lists(BRANCH, max_size=70)


class Both:
    """The vPMU's pure step in front of the pure facility, and the native facility, programmed alike."""

    def __init__(self, version: int, depth: int, debugctl: int, ctl: int, owned: bool) -> None:
        self.facility = architectural(GOLDEN_COVE, version)
        component = 15
        cpuid = Cpuid(
            leaf07=Leaf07(edx=1 << 19),
            leaf0a=Leaf0A.of(version),
            leaf0d=Leaf0D(7, 0x340, 0x340, 0),
            leaf0d1=Leaf0D1(0xF, 0, 1 << component, 0),
            components=((component, LBR_COMPONENT),),
            leaf1c=GOLDEN_COVE,
        )
        self.platform = platform(self.facility, cpuid)
        self.state = boot(ARCHLBR, self.platform, cpuid)
        self.words = compiled.new_words(self.facility)
        self.owned = owned
        self.clock = 0
        assert self.act(vpmu.Grant()) == DONE
        for msr, value in ((0x14CF, depth), (0x1D9, debugctl), (0x14CE, ctl)):
            assert self.act(Wrmsr(msr, value)) == DONE
            assert compiled.wrmsr(self.words, U(msr), U(value))
        if not owned:
            assert self.act(vpmu.Release()) == DONE
        assert self.act(vpmu.VmEntry()) == DONE
        if owned:
            assert self.state.owned == ctl & 1

    def act(self, action: vpmu.Action) -> object:
        self.state, outcome = step(ARCHLBR, self.platform, self.state, action)
        return outcome

    def run(self, program: list[Taken]) -> None:
        for taken in program:
            self.clock += taken.gap
            action = Branch(
                taken.source, taken.target, taken.kind, taken.cpl_from, taken.cpl_to, self.clock, taken.mispredicted
            )
            assert self.act(action) == DONE
            compiled.record(
                self.words, U(taken.source), U(taken.target), U(taken.kind), U(taken.cpl_from), U(taken.cpl_to),
                U(self.clock), U(taken.mispredicted),
            )  # fmt: skip

    def sample(self) -> tuple[list[Entry], list[Entry]]:
        """Take a sample on both sides; return the pure one and the native one."""
        self.state, pure = host.sample(ARCHLBR, self.platform, self.state)
        out = np.full(3 * 32, 0xEE, U)
        count = int(take_sample(self.words, U(self.owned), out))
        native = [Entry(*(int(word) for word in row)) for row in out[: 3 * count].reshape(-1, 3)]
        assert out[3 * count :].tolist() == [0xEE] * (96 - 3 * count)
        return list(pure), native

    def registers(self) -> tuple[list[int], list[int]]:
        """Return every register as the guest reads it, and as the native facility has it."""
        indices = [0x14CE, 0x14CF, 0x1D9, 0x1DD, 0x1DE, 0x1E0]
        indices += [
            series.index + entry
            for series in (msrs.IA32_LBR_FROM_IP, msrs.IA32_LBR_TO_IP, msrs.IA32_LBR_INFO)
            for entry in range(int(self.words[lbr_words.DEPTH]))
        ]
        pure, native = [], []
        for index in indices:
            outcome = self.act(Rdmsr(index))
            assert isinstance(outcome, Value), (hex(index), outcome)
            pure.append(outcome.value)
            ok, value = compiled.rdmsr(self.words, U(index))
            assert ok
            native.append(int(value))
        return pure, native


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=120, deadline=None)
@given(st.sampled_from(DEPTHS), st.sampled_from([FREEZE, FREEZE, 0]), st.sampled_from(CONTROLS), PROGRAM, PROGRAM)
def test_a_native_sample_is_the_pure_one(
    version: int, depth: int, debugctl: int, ctl: int, before: list[Taken], between: list[Taken]
) -> None:
    both = Both(version, depth, debugctl, ctl, owned=True)
    for program in (before, between):
        both.run(program)
        pure, native = both.sample()
        assert native == pure
        pure_registers, native_registers = both.registers()
        assert native_registers == pure_registers
    # The counter that follows a sample finds the recording as it was.
    assert int(both.words[lbr_words.CTL]) == ctl


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(DEPTHS), st.sampled_from(CONTROLS), PROGRAM)
def test_without_the_lbrs_a_sample_is_empty(version: int, depth: int, ctl: int, program: list[Taken]) -> None:
    both = Both(version, depth, FREEZE, ctl, owned=False)
    both.run(program)
    assert both.sample() == ([], [])
    assert int(both.words[lbr_words.CTL]) == ctl


@pytest.mark.parametrize("version", VERSIONS)
def test_the_sample_of_a_known_program(version: int) -> None:
    both = Both(version, 8, FREEZE, 0x7F0005, owned=True)
    branches = [Taken(0x401000 + 16 * i, 0x402000 + 16 * i, BranchKind.COND, 3, 3, i % 2, 3) for i in range(10)]
    both.run(branches)
    pure, native = both.sample()
    assert native == pure
    assert [(entry.source, entry.target) for entry in native] == [
        (0x401000 + 16 * i, 0x402000 + 16 * i) for i in range(9, 1, -1)
    ]
    # COND is type 0; three cycles each, valid, and every other one mispredicted (architecture.md 3.4).
    assert [entry.info for entry in native] == [(i % 2) << 63 | 1 << 60 | 3 for i in range(9, 1, -1)]
