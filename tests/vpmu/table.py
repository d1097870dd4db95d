"""The rows of kvm-series.md D as data: what is done, what `archlbr` says, what series v2 says.

A row is a function from a maker of vCPUs to plain values. Expected values are written by hand from the reference's
rows. `test_rows` asks both designs; `test_mutations` asks designs with one wrong choice, and some row must notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from archlbr.vpmu.designs import Design

Make = Callable[..., Any]


class Row(NamedTuple):
    number: str
    ask: Callable[[Make, Design], Any]
    archlbr: Any
    series_v2: Any


ROWS: list[Row] = []
SAME = object()


def row(number: str, archlbr: Any, series_v2: Any = SAME) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a row; without a second expectation both designs say the same."""

    def register(ask: Callable[..., Any]) -> Callable[..., Any]:
        assert number not in {known.number for known in ROWS}, number
        ROWS.append(Row(number, ask, archlbr, archlbr if series_v2 is SAME else series_v2))
        return ask

    return register
