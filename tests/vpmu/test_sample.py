"""A sample taken natively (`machine.pmi`) is the sample taken through the vPMU (`host`)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archlbr.host import sample
from archlbr.lbr.compiled import state_of, words_of
from archlbr.lbr.state import Entry
from archlbr.machine.pmi import take_sample
from archlbr.vpmu.designs import ARCHLBR
from tests.vpmu.parts import CTL, DEBUGCTL, DEPTH, FROM, INFO, TO, Vcpu, leaves, pmu

records = st.lists(st.tuples(*[st.integers(1, (1 << 47) - 1)] * 2, st.integers(0, (1 << 64) - 1)), max_size=32)


def guest(version, depth, ctl, debugctl, stack):
    v = Vcpu(ARCHLBR, guest=leaves((8, 16, 32), leaf0a=pmu(version)))
    v.wr(CTL, ctl)
    v.wr(DEPTH, depth)
    v.wr(DEBUGCTL, debugctl)
    v.enter()
    for x, record in enumerate(stack[:depth]):
        for block, value in zip((FROM, TO, INFO), record, strict=True):
            v.wr(block + x, value)
    return v


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_a_native_sample_is_the_vpmu_s(version):
    tally = Counter()

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(
        records, st.sampled_from([8, 16, 32]), st.sampled_from([0x7F0007, 0x7F0006, 1]), st.sampled_from([0, 1 << 11])
    )
    def equal(stack, depth, ctl, debugctl):
        v = guest(version, depth, ctl, debugctl, stack)
        # The LBRs are the guest's only once it has asked for them.
        owned = v.state.owned
        facility = v.state.rules.facility
        words = words_of(facility, v.state.lbr)
        out = np.zeros(3 * 32, np.uint64)
        count = int(take_sample(words, owned, out))
        state, entries = sample(ARCHLBR, v.platform, v.state)
        native = tuple(Entry(*(int(word) for word in out[3 * x : 3 * x + 3])) for x in range(count))
        assert native == (entries if owned else ())
        if owned:
            assert state_of(facility, words) == state.lbr
        tally["entries"] += count
        tally["owned"] += owned
        tally["frozen"] += owned and debugctl >> 11

    equal()
    assert min(tally["entries"], tally["owned"], tally["frozen"]) > 5, tally
