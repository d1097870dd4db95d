"""Every row of kvm-series.md D that a vCPU can be asked: the files of rows, read."""

from __future__ import annotations

from tests.vpmu import (  # noqa: F401  # each registers its rows
    rows_counters,
    rows_enumeration,
    rows_events,
    rows_nested,
    rows_owners,
    rows_registers,
    rows_xsaves,
)
from tests.vpmu.table import ROWS

__all__ = ["ROWS"]
