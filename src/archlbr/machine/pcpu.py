"""One processor under several guests: its LBRs change hands as the host's step says, over real registers and real code.

Each guest is a board; host code (`machine.hostcode`) runs between its exits. There is one set of LBR registers: it lies
in the words of whoever runs and moves with the processor. What KVM and perf do to it at each point is the composed step
that `check` explores: this module only says what happens next, and carries out on the words what the step made of the
registers. Design: docs/decisions/034.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

from archlbr.arch import msrs
from archlbr.cpu import words as cpu_words
from archlbr.cpu.unicorn.supervisor import set_clock, set_idle
from archlbr.errors import InternalError
from archlbr.host import state as at
from archlbr.host.step import composed
from archlbr.lbr import compiled as lbr
from archlbr.lbr.bank import HOST, NOBODY, VM
from archlbr.lbr.compiled import words as w
from archlbr.lbr.state import Entry
from archlbr.lbr.tagged import Lbrs, reset
from archlbr.machine import observing
from archlbr.machine.findings import Findings, Party
from archlbr.machine.hostcode import MOST_BRANCHES, HostCode
from archlbr.machine.records import Record, Records
from archlbr.perf.events import ACTIVE, INACTIVE, OFF, PENDING

if TYPE_CHECKING:
    from archlbr.cpu.words import Words
    from archlbr.lbr.bank import Bank
    from archlbr.machine.board import Board
    from archlbr.machine.shared_vcpu import SharedVcpu
    from archlbr.perf.events import Opened
    from archlbr.vpmu.designs.sharing import Sharing

# Rounds of the host's fragment between two steps of KVM's, and of a host task between two looks at what is due.
_BETWEEN, _TASK = 3, 40
_HOST_CTL: Final = msrs.CTL_OS | msrs.CTL_USR | msrs.CTL_KINDS
_LBREN: Final = msrs.CTL_LBREN
_NEVER: Final = 1 << 62
_LONGEST: Final = 100_000  # actions that are kept


# What KVM does next on its way round its run loop, by where the pCPU is; the first that is possible.
_ONWARDS: Final[dict[int, tuple[str, ...]]] = {
    at.EXIT: ("save_guest", "irqs_on"),
    at.EXIT_SAVED: ("start_host",),
    at.EXIT_DONE: ("irqs_on",),
    at.CLAIM: ("grant",),
    at.HOST_ON: ("check", "enter"),
    at.CHECKED: ("irqs_off",),
    at.ENTRY: ("stop_host", "vmenter"),
    at.ENTRY_STOPPED: ("load_guest",),
    at.ENTRY_LOADED: ("vmenter",),
}
_IRQS_ON: Final = (at.HOST_ON, at.CHECKED)
# The host's event counts from when it is asked for, whoever has the LBRs.
_COUNTS: Final = (ACTIVE, PENDING)
# What one processor under guests of this machine brings about, in the words of the step that `check` explores.
ACTIONS: Final = frozenset({
    *(name for names in _ONWARDS.values() for name in names), "switch", "exit", "branch", "read", "lbr_on", "lbr_off",
    "lbr_on_fails", "host_branch", "nmi", "install", "enable", "disable",
})  # fmt: skip


class Timing(NamedTuple):
    """When things happen, in nanoseconds of the clocks of all that run, an instruction each.

    share: how long a guest runs at a time. opens: when the host's event is opened, 0 for before anything else. every:
    how long it is then on and off in turn, 0 for on for good. period: of its samples, in the host's taken branches and,
    where it counts guests, in instructions of a guest. refuses: which event of a guest's perf cannot create when the
    guest sets its enable bit, counted from 1; 0 for none.
    """

    share: int = 1_000_000
    opens: int = 0
    every: int = 0
    period: int = 100
    refuses: int = 0


class Pcpu:
    """A processor that runs `guests` in turn, under a host event or none.

    path: what happened first, as actions of the host's step; `host_branch` with 1 where a guest's records were left.
    """

    def __init__(
        self, sharing: Sharing, guests: list[Board], host: HostCode, event: Opened | None, timing: Timing
    ) -> None:
        self.guests = guests
        self.findings = Findings([Party() for _ in guests])
        self.path: list[tuple[str, int, int]] = []
        self._composed = composed(sharing, at.Setting((event,)))
        self._host, self.event, self._timing = host, event, timing
        self._records = Records(host.board.vcpu.platform.facility)
        self._here = host.board
        self._selects = {NOBODY: 0, HOST: 0}  # LBR_SELECT, by whose filter it is
        active = int(event is not None and not timing.opens)
        self._state = at.initial((reset(self._records.width),), len(guests))
        if active and not (event is not None and event.task):
            installed = self._composed.moves["install"](self._state, 0, 0)
            self._state = self._composed.settled(self._state if installed is None else installed[0])
        self._control(self._state.cpus[0].lbr)
        self._expected = [0] * len(guests)
        self._taken = [0] * len(guests)
        self._left = timing.period
        first = timing.every if active else timing.opens
        self._next_change = first if event is not None and first else _NEVER
        self._turned = 0
        self._asked = 0
        self._host_recorded = False
        self._running = list(range(len(guests)))
        for v in self._running:
            self.vcpu(v).join(self, v)

    def vcpu(self, v: int) -> SharedVcpu:
        """Return a guest's vCPU."""
        return cast("SharedVcpu", self.guests[v].vcpu)

    def now(self) -> int:
        """Return the clocks of all that run, together, in nanoseconds."""
        return self._host.board.now() + sum(board.now() for board in self.guests)

    @property
    def done(self) -> bool:
        """Say whether every guest has ended."""
        return not self._running

    def turn(self) -> None:
        """Run one slice of the next guest; a guest alone takes turns with a host task."""
        order = [v + 1 for v in self._running] + [0] * (len(self.guests) == 1)
        later = [thread for thread in order if self._order(thread) > self._order(self._turned)]
        to = self._turned = later[0] if later else order[0]
        if to != self._state.cpus[0].thread:
            self._act("switch", to)
        self._interrupts()
        if not to:
            self._task()
            return
        v, board = to - 1, self.guests[to - 1]
        self.back(v)
        end = board.now() + self._timing.share
        while board.run(min(end, board.now() + self._step())) is None and board.now() < end:
            self.leave(v, "nmi")
            self.back(v)
        if board.status is not None:
            self._running.remove(v)
        self.leave(v, "exit")
        while self._phase not in _IRQS_ON:
            self._onwards()
        self._interrupts()

    # Guests come in their order, the host task last.
    def _order(self, thread: int) -> int:
        return (thread - 1) % (len(self.guests) + 1)

    # How long a guest may run before a sample is due in it.
    def _step(self) -> int:
        counts = self.event is not None and not self.event.exclude_guest
        return self._timing.period if counts and self._state.cpus[0].perf.event in _COUNTS else self._timing.share

    def _task(self) -> None:
        end = self._host.board.now() + self._timing.share
        while self._host.board.now() < end:
            self._host_code(_TASK)
            self._interrupts()

    # What a guest's access makes happen -------------------------------------------------------------------------------

    @property
    def _phase(self) -> int:
        return self._state.cpus[0].phase

    @property
    def _in_guest(self) -> bool:
        return self._phase == at.GUEST

    def owns(self, v: int) -> int:
        """Return 1 when the LBRs are a vCPU's: its vLBR event is on the PMU, or it is their owner."""
        return int(self._state.tasks[v].event == ACTIVE or self._state.cpus[0].owner == VM + v)

    def leave(self, v: int, name: str) -> None:
        """Let a guest exit: `exit`, `nmi`, or `read` of its records; a change of its enable bit is seen here."""
        self._branched(v)
        before = self._fetched()
        enable = self.vcpu(v).enabled()
        if enable != before.vcpus[v].enable:
            # What the guest writes comes here as such; a PMI's freeze before PMU version 4 clears the bit by itself.
            name = "lbr_off" if not enable else "lbr_on_fails" if self._refuses(v) else "lbr_on"
        self.vcpu(v).left()
        self._act(name, 0, before)
        if self._in_guest:  # KVM emulates without a word to perf
            self._act("exit", 0, before)

    # Where an event of perf's stands for the guest, the enable bit asks for one that is not there yet.
    def _refuses(self, v: int) -> bool:
        if "lbr_on_fails" not in self._composed.moves or self._state.tasks[v].event != OFF:
            return False
        self._asked += 1
        return self._asked == self._timing.refuses

    def back(self, v: int) -> None:
        """Let KVM go on to VM entry, and the guest go on."""
        while not self._in_guest:
            if self._phase in _IRQS_ON:
                self._interrupts()
            self._onwards()
        board = self.guests[v]
        set_clock(board.words[cpu_words.RETIRED :])
        set_idle(board.idle)

    def wrote(self, v: int, *, select: bool = False) -> None:
        """Note that a guest wrote its records, or its filter, in the registers."""
        self._branched(v)
        if not select:
            self._expected[v] = 0
            return
        cpu = self._state.cpus[0]
        self._selects[VM + v] = int(self._words[w.SELECT])
        self._state = self._with(cpu._replace(lbr=Lbrs(cpu.lbr.enable, VM + v, cpu.lbr.stack)))

    def read(self, v: int, slot: int, age: int) -> None:
        """Judge what a guest was given that read FROM of a record. slot: of the registers, -1 where it was given 0."""
        self._branched(v)
        if self._in_guest and self.path[-1][0] != "read":
            self._note("read")  # it passed through, and changed nothing
        owner = NOBODY
        if slot >= 0:
            place = w.RING + w.STRIDE * slot
            owner = self._records.owner(slot, Entry._make(self._words[place : place + w.STRIDE].tolist()), VM + v)
        self.findings.guest_read(v, owner, age, self._expected[v], len(self.path))

    # The step and the words -------------------------------------------------------------------------------------------

    @property
    def _words(self) -> Words:
        return self._here.words[observing.LBR_AT : observing.LBR_END]

    def _with(self, cpu: at.Cpu) -> at.Host:
        return self._state._replace(cpus=(cpu,))

    def _enabled(self) -> int:
        return int(self._words[w.CTL if self._records.architectural else w.DEBUGCTL]) & _LBREN

    # The state with the registers as the words have them.
    def _fetched(self) -> at.Host:
        cpu = self._state.cpus[0]
        stack = self._records.read(self._words, VM + cpu.thread - 1 if self._in_guest else HOST)
        enable = self._enabled()
        if stack is cpu.lbr.stack and enable == cpu.lbr.enable:
            return self._state
        return self._with(cpu._replace(lbr=Lbrs(enable, cpu.lbr.select, stack)))

    def _act(self, name: str, argument: int = 0, before: at.Host | None = None) -> bool:
        before = self._fetched() if before is None else before
        was_in_guest = self._in_guest
        if self._host_recorded:
            self._host_recorded = False
            self._note("host_branch", int(any(record >= VM for record in before.cpus[0].lbr.stack)))
        move = self._composed.moves.get(name)
        moved = move(before, 0, argument) if move is not None else None
        if moved is None:
            return False
        self._note(name, argument)
        was, (self._state, told) = before.cpus[0], moved
        cpu = self._state.cpus[0]
        if any(record and not isinstance(record, Record) for record in cpu.lbr.stack):
            self._exit_path_ran(cpu)
        elif cpu.lbr.stack is not was.lbr.stack:
            depth = self._records.most
            if cpu.owner >= VM and self._records.architectural:
                depth = self.vcpu(cpu.owner - VM).state.guest.depth
            self._records.write(self._words, cpu.lbr.stack, depth)
        if not self._in_guest:
            self._control(cpu.lbr)
        elif not was_in_guest:
            self._entered(cpu)
        if told.sample is not None:
            dead = int(not was_in_guest and not was.lbr.enable and not any(told.sample.records))
            excludes = int(self.event is None or self.event.exclude_guest)
            self.findings.host_sampled(
                told.sample, dead=dead, exclude_guest=excludes, in_guest=int(was_in_guest), at=len(self.path)
            )
        return True

    # The step says that host code has filled the registers, on the exit path before an NMI is handled: let it run.
    def _exit_path_ran(self, cpu: at.Cpu) -> None:
        self._control(cpu.lbr)
        self._move(self._host.board)
        self._host.run(self._records.most)
        self._state = self._fetched()

    # The controls while host code runs. With Architectural LBR, VM exit clears the filter with the enable bit, and the
    # host writes both back; LBR_SELECT is whoever's it was.
    def _control(self, registers: Bank) -> None:
        words = self._words
        if self._records.architectural:
            words[w.CTL] = _HOST_CTL | _LBREN if registers.enable else 0
        else:
            words[w.DEBUGCTL] = registers.enable
            words[w.SELECT] = self._selects.get(registers.select, 0)
        lbr.refresh(words)

    def _entered(self, cpu: at.Cpu) -> None:
        v = cpu.thread - 1
        if not self._records.architectural:
            self._words[w.SELECT] = self._selects.get(cpu.lbr.select, 0)
        self._move(self.guests[v])
        self.vcpu(v).entered(self.owns(v))
        if self._enabled() != cpu.lbr.enable:
            both = f"{self._enabled()} by the vPMU's step, {cpu.lbr.enable} by the host's"
            raise InternalError(f"VM entry loads the enable bit {both}")

    def _note(self, name: str, argument: int = 0) -> None:
        if len(self.path) < _LONGEST:
            self.path.append((name, 0, argument))

    # There is one set of registers: it is where the processor is. Its cycle count goes on with the other's clock.
    def _move(self, to: Board) -> None:
        if to is self._here:
            return
        source, target = self._here.words, to.words
        target[observing.LBR_AT : observing.LBR_END] = source[observing.LBR_AT : observing.LBR_END]
        since = observing.LBR_AT + w.SINCE
        ahead = int(target[cpu_words.RETIRED]) - int(source[cpu_words.RETIRED])
        target[since] = int(target[since]) + ahead & (1 << 64) - 1
        self._here = to

    # What the guest's own enable bit admitted since the last look: it may expect to find that.
    def _branched(self, v: int) -> None:
        taken = int(self.guests[v].words[cpu_words.TAKEN])
        count, self._taken[v] = taken - self._taken[v], taken
        if not count:
            return
        self._note("branch")
        if self._state.vcpus[v].enable and self.vcpu(v).records_all():
            self._expected[v] = min(self._expected[v] + count, self.vcpu(v).state.guest.depth)

    # The host ---------------------------------------------------------------------------------------------------------

    def _onwards(self) -> None:
        self._host_code(_BETWEEN)
        if not any(self._act(name) for name in _ONWARDS[self._phase]):
            raise InternalError(f"nothing leads on from the phase {at.PHASES[self._phase]!r}")

    def _host_code(self, rounds: int) -> None:
        self._move(self._host.board)
        self._host_recorded = self._host_recorded or bool(self._state.cpus[0].lbr.enable)
        while rounds > 0:
            counts = self._state.cpus[0].perf.event in _COUNTS
            few = min(rounds, max(1, self._left // MOST_BRANCHES)) if counts else rounds
            taken = self._host.run(few)
            rounds -= few
            if counts:
                self._left -= taken
                if self._left <= 0:
                    self._left += self._timing.period
                    self._act("nmi")

    # perf's IPIs: the event is opened, then goes off and on.
    def _interrupts(self) -> None:
        if self.now() < self._next_change:
            return
        event, every = self._state.cpus[0].perf.event, self._timing.every
        self._act("disable" if event in _COUNTS else "enable" if event == INACTIVE else "install")
        while self._phase == at.CLAIM:
            self._onwards()
        self._next_change = self._next_change + every if every else _NEVER
