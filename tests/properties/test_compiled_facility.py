"""The native facility equals the pure step, operation by operation."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archlbr.arch.cpuid import LION_COVE, Leaf1C
from archlbr.lbr.state import architectural, legacy
from tests.properties.twins import OPERATION, Twins

OPERATIONS = 256
EXAMPLES = 600
programs = st.binary(min_size=OPERATIONS * OPERATION, max_size=OPERATIONS * OPERATION)


@st.composite
def leaves(draw):
    depths = draw(st.sampled_from([(8, 16, 32), (8,), (8, 16, 24, 32), (16, 24)]))
    switches = draw(st.integers(0, 0x3FF))
    names = ("cpl_filter", "branch_filter", "call_stack", "mispredict", "timed", "branch_type", "deep_c_reset")
    # Inverted, so that the simplest leaf can do everything.
    options = {name: not switches >> bit & 1 for bit, name in enumerate(names)}
    return Leaf1C.of(depths, event_counters=draw(st.sampled_from([15, 0, 5])), **options)


architectures = st.builds(
    architectural,
    st.one_of(st.just(LION_COVE), leaves()),
    st.sampled_from([5, 4, 3, 2, 1]),
    tsx=st.booleans(),
    linear_width=st.sampled_from([48, 57]),
    xsaves=st.sampled_from([True, True, True, False]),
)
legacies = st.builds(
    legacy,
    st.integers(0, 7),
    st.sampled_from([4, 8, 16, 32]),
    st.sampled_from([2, 4, 1]),
    tsx=st.booleans(),
    linear_width=st.sampled_from([48, 57]),
    call_stack=st.booleans(),
)

checks = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

# What must have happened at least this often, or the comparison is vacuous.
SOMETIMES = {
    "arch pushed": 5000, "arch passed": 5000, "arch popped": 500, "arch masked": 200, "arch ler": 500, "timed": 3000,
    "counted": 200, "legacy pushed": 5000, "legacy passed": 1000, "legacy popped": 300, "legacy ler": 300,
    "wrmsr done": 3000, "wrmsr #GP": 3000, "rdmsr done": 500, "rdmsr #GP": 500, "stack read": 500, "saved": 300,
    "saved nothing": 300, "xrstors 0": 300, "xrstors 13": 300, "xrstors 6": 300, "xrstors changed": 100,
    "Pmi changed": 50, "Thaw changed": 10, "DebugException changed": 100, "Smi changed": 100, "Rsm changed": 100,
    "WarmReset changed": 100, "ColdReset changed": 10, "DeepCState changed": 50,
}  # fmt: skip


def test_compiled_equals_pure_over_a_hundred_thousand_operations():
    total = 0
    seen: Counter[str] = Counter()

    @checks
    @given(facility=st.one_of(architectures, architectures, legacies), program=programs)
    def compare(facility, program):
        nonlocal total
        twins = Twins(facility)
        total += twins.run(program)
        seen.update(twins.seen)

    compare()
    assert total >= 100_000
    assert {name: seen[name] for name, least in SOMETIMES.items() if seen[name] < least} == {}


@pytest.mark.parametrize("form", range(8))
def test_each_legacy_format_equals_pure(form):
    @settings(checks, max_examples=12)
    @given(tsx=st.booleans(), program=programs)
    def compare(tsx, program):
        twins = Twins(legacy(form, 8, 4, tsx=tsx))
        twins.run(program)
        assert twins.seen["legacy passed"] + twins.seen["legacy pushed"] + twins.seen["legacy popped"] > 0

    compare()
