"""What a design costs: the accesses to LBR registers that the host's step makes at an entry, an exit, a switch.

The step runs over a bank that counts; nothing is added up by hand. `document` prints the table, and a test holds the
one of docs/decisions/030 to it. Authority for what an operation is made of: arch/x86/events/intel/lbr.c of v6.12
(intel_pmu_lbr_reset_64(), intel_pmu_lbr_save(), intel_pmu_arch_lbr_xsaves() and their likes). A write of DEBUGCTL
counts once; that perf reads it first is left out. Cycles are the model's, assumed and not measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from archlbr.contract.designs import named
from archlbr.contract.menu import KINDS
from archlbr.host import Host, Setting, initial
from archlbr.host.state import CLAIM, GUEST, HOST_ON, put
from archlbr.host.step import composed
from archlbr.lbr.tagged import Lbrs, reset
from archlbr.perf.events import Opened

if TYPE_CHECKING:
    from archlbr.host.composed import Composed
    from archlbr.vpmu.designs.sharing import Sharing

DEPTH = 32
NAMES = ("RDMSR", "WRMSR", "XSAVES", "XRSTORS")
CYCLES = (100, 100, 600, 600)
# What KVM and perf do by themselves, the next thing first, to come from the host into the guest and back.
INTO = ("grant", "check", "irqs_off", "enter", "stop_host", "load_guest", "vmenter")
OUT = ("exit", "save_guest", "start_host", "irqs_on")
DESIGNS: tuple[tuple[str, int], ...] = tuple(
    (name, event) for name in ("vlbr-6.12", "series-v2", "request", "mediated-lbr", "archlbr") for event in (0, 1)
)


class Accesses(NamedTuple):
    """How many accesses of each kind."""

    rdmsr: int = 0
    wrmsr: int = 0
    xsaves: int = 0
    xrstors: int = 0

    @property
    def cycles(self) -> int:
        """Return the cycles that they are taken for."""
        return sum(count * each for count, each in zip(self, CYCLES, strict=True))

    def less(self, other: Accesses) -> Accesses:
        """Return what has been added since `other`."""
        return Accesses(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    def __str__(self) -> str:
        """Return the accesses in words."""
        words = " + ".join(f"{count} {name}" for count, name in zip(self, NAMES, strict=True) if count)
        return f"{words} ({self.cycles:,})" if words else "0"


class CountingBank(NamedTuple):
    """A bank of tags that counts the accesses made to it; architectural: LBR_CTL, DEPTH and component 15 are there."""

    held: Lbrs
    architectural: int
    made: Accesses = Accesses()

    @property
    def enable(self) -> int:
        """Return the enable bit, which the caller knows."""
        return self.held.enable

    @property
    def select(self) -> int:
        """Return whose filter is programmed."""
        return self.held.select

    @property
    def stack(self) -> tuple[Any, ...]:
        """Return the records."""
        return self.held.stack

    def _with(self, held: Lbrs, rdmsr: int = 0, wrmsr: int = 0, xsaves: int = 0, xrstors: int = 0) -> CountingBank:
        more = (rdmsr, wrmsr, xsaves, xrstors)
        made = Accesses(*(one + other for one, other in zip(self.made, more, strict=True)))
        return CountingBank(held, self.architectural, made)

    def switched(self, enable: int) -> CountingBank:
        """VM entry and VM exit: the VMCS, no access."""
        return self._with(self.held.switched(enable))

    def controlled(self, enable: int) -> CountingBank:
        """IA32_LBR_CTL, or DEBUGCTL."""
        return self._with(self.held.controlled(enable), wrmsr=1)

    def programmed(self, select: int, enable: int) -> CountingBank:
        """IA32_LBR_CTL, or LBR_SELECT and DEBUGCTL."""
        return self._with(self.held.programmed(select, enable), wrmsr=1 if self.architectural else 2)

    def filtered(self, select: int) -> CountingBank:
        """Pass the guest's own access through."""
        return self._with(self.held.filtered(select))

    def wiped(self) -> CountingBank:
        """IA32_LBR_DEPTH, or each FROM, TO and INFO."""
        return self._with(self.held.wiped(), wrmsr=1 if self.architectural else 3 * DEPTH)

    def cleared(self) -> CountingBank:
        """IA32_LBR_DEPTH, or each FROM, TO and INFO, and LBR_SELECT."""
        return self._with(self.held.cleared(), wrmsr=1 if self.architectural else 3 * DEPTH + 1)

    def read_enable(self) -> tuple[CountingBank, int]:
        """DEBUGCTL, or IA32_LBR_CTL."""
        return self._with(self.held, rdmsr=1), self.held.enable

    def read_newest(self) -> tuple[CountingBank, int]:
        """FROM of the newest record."""
        return self._with(self.held, rdmsr=1), self.held.read_newest()[1]

    def saved(self) -> tuple[CountingBank, tuple[Any, ...]]:
        """XSAVES, or each FROM, TO and INFO, TOS and LBR_SELECT."""
        if self.architectural:
            return self._with(self.held, xsaves=1), self.held.stack
        return self._with(self.held, rdmsr=3 * DEPTH + 2), self.held.stack

    def loaded(self, select: int, stack: tuple[Any, ...]) -> CountingBank:
        """XRSTORS, or each FROM, TO and INFO, TOS and LBR_SELECT."""
        held = self.held.loaded(select, stack)
        return self._with(held, xrstors=1) if self.architectural else self._with(held, wrmsr=3 * DEPTH + 2)

    def written(self, stack: tuple[Any, ...]) -> CountingBank:
        """Pass the guest's own accesses through."""
        return self._with(self.held.written(stack))

    def recorded(self, tag: int) -> CountingBank:
        """Record."""
        return self._with(self.held.recorded(tag))

    def filled(self, tag: int) -> CountingBank:
        """Record."""
        return self._with(self.held.filled(tag))


ROWS = ("entry", "exit", "switch out", "switch in, with its entry", "flexible event opened", "pinned event opened")


def costs(design: Sharing, event: int) -> dict[str, Accesses]:
    """Return what each of `ROWS` costs a guest that has its LBRs on and its records in them.

    event: 1 with a flexible host event on the pCPU. The last rows open one where there was none.
    """
    steps = composed(design, Setting((Opened(),)))
    bank = CountingBank(reset(DEPTH), design.architectural)
    host = initial((bank,), 1)
    if event:
        host = _did(steps, host, "install")
    host = _run(steps, host, INTO, GUEST)
    host = _run(steps, _did(steps, host, "lbr_on"), (*OUT, *INTO), GUEST)
    for _ in range(DEPTH):
        host = _did(steps, host, "branch")
    found: dict[str, Accesses] = {}
    for _ in range(2):  # the second time nothing is new any more
        before = host
        host = _run(steps, host, OUT, HOST_ON)
        found["exit"] = _between(before, host)
        outside = host
        host = _run(steps, host, INTO, GUEST)
        found["entry"] = _between(outside, host)
    out = _did(steps, outside, "switch")
    found["switch out"] = _between(outside, out)
    # Somebody else's records, so that nothing is left to be found.
    cpu = out.cpus[0]
    away = out._replace(cpus=put(out.cpus, 0, cpu._replace(lbr=cpu.lbr.written((0,) * DEPTH))))
    back = _run(steps, _did(steps, away, "switch", 1), INTO, GUEST)
    found["switch in, with its entry"] = _between(away, back)
    for row, pinned in (("flexible event opened", 0), ("pinned event opened", 1)):
        if not event:
            steps = composed(design, Setting((Opened(pinned=pinned),)))
            opened = _did(steps, outside, "install")
            if opened.cpus[0].phase == CLAIM:
                opened = _did(steps, opened, "grant")
            found[row] = _between(outside, opened)
    return found


def _did(steps: Composed, host: Host, kind: str, argument: int = 0) -> Host:
    moved = steps.moves[kind](host, 0, argument)
    return host if moved is None else moved[0]


def _run(steps: Composed, host: Host, kinds: tuple[str, ...], phase: int) -> Host:
    # Each step in the order of the run loop; one that the state has no use for gives None.
    for kind in kinds:
        if kind in steps.moves and host.cpus[0].phase in KINDS[kind].phases:
            host = _did(steps, host, kind)
    assert host.cpus[0].phase == phase, host.cpus[0].phase
    return host


def _between(before: Host, after: Host) -> Accesses:
    one, other = before.cpus[0].lbr, after.cpus[0].lbr
    assert isinstance(one, CountingBank)
    assert isinstance(other, CountingBank)
    return other.made.less(one.made)


def table() -> list[tuple[str, ...]]:
    """Return the table, its head first: a row for each design, without and with a host event."""
    rows: list[tuple[str, ...]] = [("design", *ROWS)]
    for name, event in DESIGNS:
        found = costs(named(name), event)
        what = f"{name}, {'host event' if event else 'no host event'}"
        rows.append((what, *(str(found[row]) if row in found else "-" for row in ROWS)))
    return rows


def as_markdown() -> list[str]:
    """Return the table as docs/decisions/030 has it."""
    lines = [f"| {' | '.join(cells)} |" for cells in table()]
    return [lines[0], "|" + "---|" * (len(ROWS) + 1), *lines[1:]]
