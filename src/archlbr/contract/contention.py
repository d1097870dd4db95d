"""The five contention rows of 2023: what the documentation that was posted says of host and guest LBR events.

The posted pmu.rst (Jul-Aug 2023, 20230724104154.259573-1 and later; not merged as far as seen, UNCONFIRMED) names five
cases. Each is a property here, so that the search says which of them the merged scheduling keeps. `document` prints
them, the tests pin them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from archlbr.check.explore import explore
from archlbr.check.model import always
from archlbr.contract import designs, scenarios
from archlbr.contract.verdicts import judge
from archlbr.host.state import GUEST
from archlbr.perf.events import ACTIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.contract.world import World
    from archlbr.host import Action
    from archlbr.vpmu.designs.sharing import Sharing


class Row(NamedTuple):
    """One case. holds: what must be true of each state; None where it is the property `claim` of the table."""

    name: str
    says: str
    scenario: str
    holds: Callable[[World], bool] | None
    claim: str = ""


def _guest_has_none(world: World) -> bool:
    # A cpu-pinned host event and the vLBR are never on the PMU together.
    return not any(cpu.perf.event == ACTIVE and cpu.perf.guest for cpu in world.cpus)


def _guest_wins(world: World) -> bool:
    # Wherever a vCPU has its vLBR event on the PMU, the registers are its own: the host's filter is not in them.
    return not any(cpu.perf.guest and cpu.lbr.enable and cpu.phase != GUEST for cpu in world.cpus)


ROWS: tuple[Row, ...] = (
    Row("pinned first", "a cpu-pinned host event comes first: the guest gets none", "steady-pinned", _guest_has_none),
    Row("flexible first", "a flexible host event comes first: the guest wins", "steady", _guest_wins),
    Row("pinned arrives", "a cpu-pinned host event arrives: the guest loses", "opened-pinned", _guest_has_none),
    Row("flexible arrives", "a flexible host event arrives: the guest keeps its records", "opened", None, "G1"),
    Row("pinned ends", "the cpu-pinned host event ends: the guest can get the LBRs", "opened-pinned", None, "L1"),
)


def broken(design: Sharing, row: Row) -> tuple[Action, ...] | None:
    """Return the shortest path that breaks a row under a vLBR design, or None when it holds in its scenario."""
    scenario = scenarios.named(row.scenario)
    if row.holds is None:
        return judge(design, scenario, (row.claim,)).found.get(row.claim)
    found = explore(designs.model(design, scenario), [always(row.name, row.holds)])
    return found.found.get(row.name)
