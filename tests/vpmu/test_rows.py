"""Every row of kvm-series.md D that a vCPU can be asked, in both designs."""

from __future__ import annotations

from functools import partial

import pytest

from archlbr.vpmu.designs import ARCHLBR, SERIES_V2
from tests.vpmu.parts import Vcpu
from tests.vpmu.rows import ROWS


@pytest.mark.parametrize("row", ROWS, ids=[row.number for row in ROWS])
def test_archlbr(row):
    assert row.ask(partial(Vcpu, ARCHLBR), ARCHLBR) == row.archlbr


@pytest.mark.parametrize("row", ROWS, ids=[row.number for row in ROWS])
def test_series_v2(row):
    assert row.ask(partial(Vcpu, SERIES_V2), SERIES_V2) == row.series_v2
