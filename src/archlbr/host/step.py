"""The host's step: lbr, vpmu and perf composed under a named design, `(state, action) -> (state, what came of it)`.

`contract` explores this function over tags, and a machine runs it over its processors' registers (`lbr.bank`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from archlbr.host.handover import Handover
from archlbr.host.request import Request
from archlbr.host.vlbr import Vlbr
from archlbr.vpmu.designs.sharing import HANDOVER, REQUEST, VLBR, Sharing

if TYPE_CHECKING:
    from archlbr.host.composed import Composed
    from archlbr.host.state import Action, Host, Moved, Setting

FAMILIES: dict[str, type[Composed]] = {VLBR: Vlbr, REQUEST: Request, HANDOVER: Handover}


@lru_cache(maxsize=256)
def composed(sharing: Sharing, setting: Setting) -> Composed:
    """Return a design on a setting: its table of actions, `moves`, and what it tells of a state."""
    return FAMILIES[sharing.family](sharing, setting)


def step(sharing: Sharing, setting: Setting, host: Host, action: Action) -> Moved | None:
    """Return the host after an action and what came of it; None where the action cannot happen or does nothing.

    An action that the phase of its pCPU does not admit is the caller's mistake and is not looked for.
    """
    kind, cpu, argument = action
    return composed(sharing, setting).moves[kind](host, cpu, argument)
