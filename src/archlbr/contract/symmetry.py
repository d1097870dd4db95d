"""Two VMs are alike: the state with their names exchanged is the same state, where both may run wherever either may.

`check.reduce.least_of` takes it. It holds in scenarios of two vCPUs on one pCPU, or that roam; elsewhere a vCPU has a
pCPU of its own. Exchanging names commutes with each action, because no rule asks for a vCPU's number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archlbr.contract.world import Ghost, Scenario, World
from archlbr.host.state import Cpu, Host
from archlbr.lbr.bank import VM
from archlbr.lbr.tagged import Lbrs

if TYPE_CHECKING:
    from archlbr.perf.schedule import TaskPerf
    from archlbr.vpmu.designs.sharing import Vcpu

_TAG = {VM: VM + 1, VM + 1: VM}
_THREAD = {1: 2, 2: 1}


def symmetric(scenario: Scenario) -> bool:
    """Say whether a scenario's two VMs may change names."""
    return scenario.vcpus == 2 and (scenario.cpus == 1 or bool(scenario.roams))


def exchanged(world: World) -> World:
    """Return the state with the two VMs' names exchanged."""
    host = world.host
    tasks = host.tasks
    return World(
        Host(
            tuple([_cpu(cpu) for cpu in host.cpus]),
            tuple([_task(task) for task in (tasks[1], tasks[0], *tasks[2:])]),
            tuple([_vcpu(vcpu) for vcpu in host.vcpus[::-1]]),
        ),
        tuple([Ghost(_tags(ghost.expect), ghost.moved, ghost.cpu) for ghost in world.ghosts[::-1]]),
        world.seen,
    )


def images(world: World) -> tuple[World, World]:
    """Return a state and its image."""
    return world, exchanged(world)


def _tags(stack: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([_TAG.get(tag, tag) for tag in stack])


def _cpu(cpu: Cpu) -> Cpu:
    lbr = Lbrs(cpu.lbr.enable, _TAG.get(cpu.lbr.select, cpu.lbr.select), _tags(cpu.lbr.stack))
    perf = cpu.perf._replace(last=_THREAD.get(cpu.perf.last, cpu.perf.last))
    thread, owner = _THREAD.get(cpu.thread, cpu.thread), _TAG.get(cpu.owner, cpu.owner)
    return Cpu(thread, cpu.phase, lbr, perf, cpu.snapshot, owner)


def _task(task: TaskPerf) -> TaskPerf:
    return task._replace(image=_tags(task.image), select=_TAG.get(task.select, task.select))


def _vcpu(vcpu: Vcpu) -> Vcpu:
    return vcpu._replace(image=_tags(vcpu.image), select=_TAG.get(vcpu.select, vcpu.select))
