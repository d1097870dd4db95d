"""What `check --reduce` may leave out: two VMs that are alike, and the order of what two pCPUs do apart.

`verdicts` takes it. `symmetry` says when two VMs are alike. While a pCPU is inside KVM with a vCPU, or in the guest, or
in an IPI of perf's, whatever it does touches its own registers and that vCPU alone, and nobody else can touch them: the
vCPU is busy, so no pCPU switches to it and nobody migrates it, and no look from another thread gets past its mutex. A
switch of tasks is none of that, since it changes what the other pCPU may switch to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.contract.parts import FROM_ELSEWHERE
from archlbr.host import state as at
from archlbr.lbr.bank import HOST, VM
from archlbr.vpmu.designs.sharing import VLBR

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.contract.parts import Places
    from archlbr.contract.world import Scenario, World
    from archlbr.host import Action
    from archlbr.vpmu.designs.sharing import Sharing


SYMMETRY, INDEPENDENCE = "symmetry", "independence"


def independent(design: Sharing, scenario: Scenario) -> bool:
    """Say whether two pCPUs may be taken apart.

    Not where KVM_GET_MSRS takes no mutex and asks where a vCPU is, and not where a VM's end touches all registers.
    """
    return (
        scenario.cpus == 2
        and "reborn" not in scenario.may
        and not (design.family == VLBR and "get_msrs" in scenario.may)
    )


def pcpu(action: Action) -> int:
    """Return the actor of an action: its pCPU."""
    return action[1]


def local(scenario: Scenario) -> Callable[[World, Action], bool]:
    """Return what says whether an action touches nothing that another pCPU's can; see `check.reduce.Independence`."""
    # Where vCPUs stay on their pCPU and nobody looks from elsewhere, all of a pCPU's actions are its own.
    apart = not scenario.roams and not scenario.may & FROM_ELSEWHERE

    def alone(world: World, action: Action) -> bool:
        cpu = world.cpus[action[1]]
        if not apart and cpu.phase in (at.HOST_ON, at.USER):
            return False
        mine = VM + cpu.thread - 1 if cpu.thread else HOST
        if cpu.owner > HOST and cpu.owner != mine:
            return False
        return not cpu.thread or all(other.owner != mine for other in world.cpus if other is not cpu)

    return alone


def moves(where: Places) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return where the parts of two VMs go when their names are exchanged; what stays, goes to itself."""
    first, second = ((where.tasks[v], where.vcpus[v], where.ghosts[v]) for v in range(2))
    return [
        *(((place,), (place,)) for place in (*where.cpus, *where.host_tasks, *where.seen)),
        (first, second),
        (second, first),
    ]
