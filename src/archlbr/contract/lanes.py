"""An interleaving as lanes in a terminal: who acts, in which words, and what the registers then hold.

`cli` prints it for each violation and for a replay line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from archlbr.contract import designs, scenarios
from archlbr.contract.bugs import seeded
from archlbr.contract.menu import GUEST_LANE, HARDWARE, KINDS, KVM, PERF, letter, words
from archlbr.contract.properties import names_of
from archlbr.errors import InputError
from archlbr.lbr.bank import HOST, VM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archlbr.contract.actors import HostModel
    from archlbr.contract.world import World
    from archlbr.host import Action, Cpu
    from archlbr.vpmu.designs.sharing import Sharing

LANES = (GUEST_LANE, KVM, PERF, HARDWARE)


class Step(NamedTuple):
    """One step. registers: what the pCPU's LBRs hold after it. broken: the properties that it breaks."""

    number: int
    cpu: int
    lane: str
    words: str
    registers: str
    broken: tuple[str, ...]


def tag(number: int) -> str:
    """Return a record's owner as a letter: `-` none, `h` the host, `A` the first VM."""
    return "-" if not number else "h" if number == HOST else letter(number - VM)


def registers(cpu: Cpu) -> str:
    """Return what a pCPU's LBRs are: recording or not, and whose records, newest first."""
    return f"{'on ' if cpu.lbr.enable else 'off'} {''.join(tag(number) for number in cpu.lbr.stack)}"


def design_of(name: str) -> Sharing:
    """Return a design by its name, or `archlbr+BUG`."""
    base, plus, bug = name.partition("+")
    if not plus:
        return designs.named(name)
    if base != "archlbr":
        raise InputError(f"seeded bugs are bugs of archlbr: write archlbr+{bug}")
    return seeded(bug)


def model_of(name: str) -> HostModel:
    """Return the model that a replay line names, DESIGN/SCENARIO."""
    design, _, scenario = name.partition("/")
    return designs.model(design_of(design), scenarios.named(scenario))


def steps(states: Sequence[World], actions: Sequence[Action]) -> list[Step]:
    """Return a run's steps."""
    return [
        Step(
            number,
            action[1],
            KINDS[action[0]].lane,
            words(action).split(": ", 1)[1],
            registers(after.cpus[action[1]]),
            names_of(after.seen),
        )
        for number, (action, after) in enumerate(zip(actions, states[1:], strict=True), 1)
    ]


def as_text(run: Sequence[Step], loop: int | None = None) -> list[str]:
    """Return a run as lines; loop: how many steps come before the cycle."""
    lines = [f"  {'':>3}    {'  '.join(f'{lane:<8}' for lane in LANES)}  LBRs"]
    for step in run:
        if loop is not None and step.number == loop + 1:
            lines.append("  ... and for ever:")
        marks = "  ".join(f"{'*' if lane == step.lane else '|':<8}" for lane in LANES)
        broken = f"   breaks {', '.join(step.broken)}" if step.broken else ""
        lines.append(f"  {step.number:>3} p{step.cpu} {marks}  {step.registers:<8} {step.words}{broken}")
    if loop is not None and loop == len(run):
        lines.append("  ... and stays so: nothing that is promised to happen is possible")
    return lines
