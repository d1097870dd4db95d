"""What a step breaks: from the host before and after it, what came of it, and what each guest may expect.

`actors` asks after each step; a rule is named after the actions it judges. Nothing here changes the host. The
properties are those of `properties`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from archlbr.contract.properties import BIT
from archlbr.contract.world import Ghost, World
from archlbr.host.state import GUEST, Cpu, Host, Told, put
from archlbr.lbr.bank import HOST, NOBODY, VM
from archlbr.perf.events import ACTIVE, OFF
from archlbr.perf.samples import faults
from archlbr.vpmu.designs.sharing import VLBR

if TYPE_CHECKING:
    from archlbr.host.composed import Composed
    from archlbr.perf.events import Opened

S1, S2, S3, S4, S5, G1, G2, H1, H2, H3, H4, H5, M1, M1_LIVE, C1, L2_ENTRY, *_ = BIT.values()
# A rule takes the world before, the pCPU, the action's argument, the host after and what was told.
Rule: TypeAlias = Callable[[World, int, int, Host, Told], tuple[int, tuple[Ghost, ...]]]


class Judge:
    """The rules for one design on one setting."""

    def __init__(self, composed: Composed, opened: tuple[Opened, ...]) -> None:
        """Prepare the table of rules; an action that is not in it breaks nothing."""
        self.composed = composed
        self.opened = opened
        self.vlbr = composed.sharing.family == VLBR
        exits = self._exited
        self.rules: dict[str, Rule] = {
            "vmenter": self._entered, "reenter": self._entered, "exit": exits, "lbr_on": exits, "lbr_on_fails": exits,
            "lbr_off": exits, "nest": exits, "unnest": self._level, "smi": exits, "rsm": self._rsm,
            "branch": self._branch, "host_branch": self._host_branch, "read": self._read, "xsaves": self._read,
            "hole": self._wrote, "xrstors": self._wrote, "depth": self._wrote, "nmi": self._nmi,
            "overflow": self._overflow, "switch": self._switch, "migrate": self._migrate, "reborn": self._reborn,
            "get_msrs": self._get_msrs,
        }  # fmt: skip
        if self.vlbr:
            self.rules["enter"] = self._vlbr_enter
        else:
            self.rules |= {
                "start_host": self._after, "grant": self._granted, "irqs_on": self._irqs_on, "disable": self._after,
                "remove": self._after,
            }  # fmt: skip
        if "irqs_off" in composed.steps:
            for name in ("irqs_on", "disable", "remove"):
                del self.rules[name]

    def _incoherent(self, cpu: Cpu) -> int:
        view = self.composed.view(cpu)
        return H4 if view >= 0 and cpu.lbr.enable != view else 0

    # KVM's run loop

    def _vlbr_enter(self, w: World, c: int, _: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        v = w.host.cpus[c].thread - 1
        task = after.tasks[v]
        released = task is not w.host.tasks[v] and task.event == OFF != w.host.tasks[v].event
        return C1 if released and not after.cpus[c].perf.guest and task.callstack else 0, w.ghosts

    def _entered(self, w: World, c: int, _: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        v = w.host.cpus[c].thread - 1
        seen = L2_ENTRY if after.vcpus[v].want else 0
        ghost = w.ghosts[v]
        if not ghost.moved & 1:
            return seen, w.ghosts
        got = self.composed.reads(after, c)
        if any(mine and mine != theirs for mine, theirs in zip(ghost.expect, got, strict=True)):
            seen |= M1
        return seen, put(w.ghosts, v, Ghost(ghost.expect, ghost.moved & 2, ghost.cpu))

    def _exited(self, w: World, c: int, _: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        return self._incoherent(told.left) if told.left is not None else 0, w.ghosts

    def _after(self, w: World, c: int, _: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        return self._incoherent(after.cpus[c]), w.ghosts

    def _granted(self, w: World, c: int, _: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        return self._incoherent(after.cpus[c]._replace(owner=HOST)), w.ghosts

    def _irqs_on(self, w: World, c: int, _: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        cpu = after.cpus[c]
        return H4 if cpu.perf.event == ACTIVE and cpu.owner != HOST else 0, w.ghosts

    def _switch(self, w: World, c: int, to: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        seen, ghosts = 0 if self.vlbr else self._incoherent(after.cpus[c]), w.ghosts
        if self.opened[c].callstack and self._loses_frames(w.host, c, to, after):
            seen |= H5
        if to and ghosts[to - 1].cpu != c + 1:
            ghost = ghosts[to - 1]
            moved = ghost.moved | (1 if ghost.cpu and any(ghost.expect) else 0)
            ghosts = put(ghosts, to - 1, Ghost(ghost.expect, moved, c + 1))
        return seen, ghosts

    def _loses_frames(self, host: Host, c: int, to: int, after: Host) -> bool:
        # A task's call-stack event: what it left must be kept, and what was kept must come back.
        own, left, came = len(host.vcpus) + c, host.cpus[c], after.cpus[c]
        if to:
            frames, there = left.lbr.stack, after.tasks[own].image
            leaves = not left.thread and left.perf.event == ACTIVE
        else:
            frames, there = host.tasks[own].image, came.lbr.stack
            leaves = left.perf.event != ACTIVE == came.perf.event
        return leaves and any(frames) and there != frames

    # The guest

    def _branch(self, w: World, c: int, _: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        cpu = w.host.cpus[c]
        v = cpu.thread - 1
        vcpu, lbr, ghosts, seen = w.host.vcpus[v], cpu.lbr, w.ghosts, 0
        asked = vcpu.enable and vcpu.level == 1
        if asked:
            ghost = ghosts[v]
            ghosts = put(ghosts, v, Ghost((VM + v, *ghost.expect[:-1]), ghost.moved, ghost.cpu))
        if lbr.enable:
            if self.vlbr:
                foreign = vcpu.level == 2
                seen = S5 if foreign or w.host.tasks[v].event != ACTIVE else 0
            else:
                foreign = cpu.owner != VM + v
                seen = S5 if foreign or not asked else 0
            if foreign and cpu.perf.event == ACTIVE and self.opened[c].exclude_guest:
                seen |= H2
            if lbr.select not in (NOBODY, VM + v):
                seen |= S4
        return seen, ghosts

    def _got(self, w: World, v: int, got: tuple[int, ...]) -> tuple[int, tuple[Ghost, ...]]:
        # What a guest's read of its records breaks, and the ghosts that have seen it.
        seen, ghost = 0, w.ghosts[v]
        for tag in got:
            if tag == HOST:
                seen |= S1
            elif tag >= VM and tag != VM + v:
                seen |= S2
        if not any(mine and mine != theirs for mine, theirs in zip(ghost.expect, got, strict=True)):
            return seen, w.ghosts
        own = tuple(tag if tag == VM + v else 0 for tag in got)
        return seen | (M1_LIVE if ghost.moved & 2 else G1), put(w.ghosts, v, Ghost(own, 0, ghost.cpu))

    def _read(self, w: World, c: int, _: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        assert told.read is not None
        seen, ghosts = self._got(w, w.host.cpus[c].thread - 1, told.read)
        return seen | (self._incoherent(told.left) if told.left is not None else 0), ghosts

    def _wrote(self, w: World, c: int, _: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        # A write of the guest's goes to the registers; where it does not own them it breaks S3.
        cpu = w.host.cpus[c]
        v = cpu.thread - 1
        assert told.wrote is not None
        seen = 0
        if self.vlbr:
            if w.host.tasks[v].event != ACTIVE and cpu.perf.event == ACTIVE:
                seen = S3 | (H1 if any(cpu.lbr.stack) else 0)
        elif cpu.owner == HOST and after.vcpus[v] is w.host.vcpus[v]:
            seen = S3
        ghost = w.ghosts[v]
        if ghost.expect == told.wrote:
            return seen, w.ghosts
        return seen, put(w.ghosts, v, Ghost(told.wrote, ghost.moved, ghost.cpu))

    def _level(self, w: World, c: int, _: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        v = w.host.cpus[c].thread - 1
        lost = after.vcpus[v].enable != w.host.vcpus[v].enable
        return (G2 if lost else 0) | self._exited(w, c, 0, after, told)[0], w.ghosts

    def _rsm(self, w: World, c: int, _: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        v = w.host.cpus[c].thread - 1
        wrong = after.vcpus[v].enable != w.host.vcpus[v].smm - 1
        return (G2 if wrong else 0) | self._exited(w, c, 0, after, told)[0], w.ghosts

    # Host code, host events, user space

    def _host_branch(self, w: World, c: int, _: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        cpu = w.host.cpus[c]
        asked = cpu.perf.event == ACTIVE and (not cpu.perf.guest if self.vlbr else cpu.owner == HOST)
        return (0 if asked else S5) | (S4 if cpu.lbr.select not in (NOBODY, HOST) else 0), w.ghosts

    def _overflow(self, w: World, c: int, _: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        if after.vcpus is not w.host.vcpus:
            return G2, w.ghosts
        cpu = w.host.cpus[c]
        dead = self.vlbr and not cpu.perf.guest and not cpu.lbr.enable
        return H1 if dead and cpu.phase != GUEST else 0, w.ghosts

    def _nmi(self, w: World, c: int, _: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        assert told.sample is not None
        cpu = w.host.cpus[c]
        h1, h2, h3 = faults(told.sample, exclude_guest=self.opened[c].exclude_guest, in_guest=told.in_guest)
        seen = h1 * H1 | h2 * H2 | h3 * H3
        if told.left is not None:
            seen |= self._incoherent(told.left)
        elif self.vlbr and not cpu.perf.overflow and not cpu.perf.guest and not cpu.lbr.enable:
            seen |= H1  # nothing has been recorded for this event: its trace is dead
        return seen, w.ghosts

    def _get_msrs(self, w: World, c: int, v: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        assert told.read is not None
        expect = w.ghosts[v].expect
        seen = self._got(w, v, told.read)[0]
        if not self.vlbr:
            return seen | (M1_LIVE if told.read != expect else 0), w.ghosts
        active = w.host.tasks[v].event == ACTIVE
        seen |= M1_LIVE if any(expect) and (not active or told.read != expect) else 0
        return seen & (S1 | M1_LIVE if active else M1_LIVE), w.ghosts

    def _reborn(self, w: World, c: int, v: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        ghost = w.ghosts[v]
        return 0, put(w.ghosts, v, Ghost((NOBODY,) * len(ghost.expect), 0, 0))

    def _migrate(self, w: World, c: int, v: int, after: Host, told: Told) -> tuple[int, tuple[Ghost, ...]]:
        ghost = w.ghosts[v]
        ghosts = put(w.ghosts, v, Ghost(ghost.expect, 2 if any(ghost.expect) else 0, ghost.cpu))
        return G2 if after.vcpus[v].enable != w.host.vcpus[v].enable else 0, ghosts
