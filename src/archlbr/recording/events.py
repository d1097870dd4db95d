"""What a recording counts and keeps, as `cli.record` was told it; light, since it is known before an engine starts."""

from __future__ import annotations

from typing import NamedTuple

from archlbr.arch import msrs
from archlbr.cpu import words as at

TAKEN, RETIRED = at.TAKEN, at.RETIRED


class Event(NamedTuple):
    """What is counted and recorded. position: TAKEN or RETIRED. period: occurrences a sample. ctl: IA32_LBR_CTL.

    jitter: each period is drawn from period - jitter // 2 and the `jitter` numbers behind it.
    """

    position: int
    period: int
    ctl: int
    jitter: int = 0


def records_all(event: Event) -> bool:
    """Return whether each taken branch of user code is recorded: then a sample shows the last ones before it."""
    wanted = msrs.CTL_KINDS | msrs.CTL_USR | msrs.CTL_LBREN
    return event.position == TAKEN and event.ctl & (wanted | msrs.CTL_CALL_STACK) == wanted


def period_alone(event: Event) -> int:
    """Return the period that says by itself which branches samples show; 0 where all must be seen."""
    return event.period if records_all(event) and not event.jitter else 0
