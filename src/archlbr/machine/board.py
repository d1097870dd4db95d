"""A whole machine: one processor, memory, interrupt controllers, timers, a serial port.

`cli.run` builds a `Board` and runs it. Guest code executes on the supervisor engine under the hooks of
`machine.observing`; the board serves what the hooks stop for: the clock, interrupts, a counter's overflow. Time is the
model's clock, one nanosecond a retired instruction plus what was slept in HLT, so that a run repeats.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from unicorn import UcError
from unicorn import unicorn_const as uc
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

from archlbr.cpu import words as at
from archlbr.cpu.decode import Decoder
from archlbr.cpu.unicorn import longmode
from archlbr.cpu.unicorn.hooks import plant
from archlbr.cpu.unicorn.supervisor import SupervisorEngine, set_clock, set_idle
from archlbr.errors import InputError, InternalError
from archlbr.machine import boot, entry, faulting, observing
from archlbr.machine.devices import lapic
from archlbr.machine.devices.cmos import Cmos
from archlbr.machine.devices.fwcfg import FirmwareConfiguration
from archlbr.machine.devices.lapic import LocalApic
from archlbr.machine.devices.pic import Pic
from archlbr.machine.devices.pit import Pit
from archlbr.machine.devices.ports import Ports
from archlbr.machine.devices.serial import Serial
from archlbr.machine.extended import Extended
from archlbr.machine.images import Start, load
from archlbr.machine.vcpu import Vcpu
from archlbr.vpmu.designs.hypervisors import ARCHLBR_HYPERVISOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from archlbr.cpu.words import Words
    from archlbr.machine.models import Model
    from archlbr.vpmu.designs.hypervisors import Hypervisor

DEBUG_EXIT: Final = 0xF4
# The exit status of a machine that cannot go on.
FAILED: Final = 1
# The local APIC's timer counts at the crystal's 25 MHz (CPUID leaf 15H of the model).
_TIMER_PERIOD: Final = 40
_NEVER: Final = 1 << 62
# The processor's physical addresses have 39 bits (CPUID leaf 80000008H).
_PHYSICAL_END: Final = 1 << 39


def _drop(_byte: int) -> None:
    return


def _memory(size: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, size)
    except OSError as error:
        raise InputError(
            f"{size >> 20} MiB of memory cannot be had from this host: {error.strerror}; give less with --memory"
        ) from error


def _drop_rows(_rows: Words) -> None:
    return


class Board:
    """A machine of one processor with `memory` bytes; `transmit` and `deliver` get what the two serial ports send.

    hypervisor: how the LBRs are virtualized. vcpu: `shared_vcpu.SharedVcpu` for one that shares its processor.
    """

    def __init__(
        self,
        model: Model,
        memory: int,
        transmit: Callable[[int], None],
        deliver: Callable[[int], None] = _drop,
        hypervisor: Hypervisor = ARCHLBR_HYPERVISOR,
        vcpu: type[Vcpu] = Vcpu,
    ) -> None:
        self.status: int | None = None
        self.cause = ""  # why the machine ended, when the guest did not end it
        self.idle = 0
        self.halted = 0
        self.stopping = False
        self._traced: Words | None = None
        self._deliver: Callable[[Words], None] = _drop_rows
        self._ram = _memory(memory)
        self.memory = memoryview(self._ram)
        self.words = np.zeros(observing.OBSERVING_WORDS, np.uint64)
        self.vcpu = vcpu(model, self.words, hypervisor)
        self.engine = SupervisorEngine(self.vcpu, self.vcpu.cpuid)
        self.vcpu.extended = Extended(self.engine, self.vcpu)
        self.uc: Any = self.engine.uc
        self.uc.mem_map_ptr(0, memory, uc.UC_PROT_ALL, ctypes.addressof(ctypes.c_char.from_buffer(self._ram)))
        self.apic = LocalApic(self.now, _TIMER_PERIOD)
        self.pic = Pic()
        self.pit = Pit(self.now, lambda level: self.pic.raise_line(0, level))
        self.serial = Serial(0x3F8, transmit, lambda level: self.pic.raise_line(4, level))
        self.second = Serial(0x2F8, deliver, lambda level: self.pic.raise_line(3, level))
        self.cmos = Cmos(self.now)
        self.ports = Ports()
        self.ports.claim(Pic.PORTS, self.pic.read, self.pic.write)
        self.ports.claim(Pit.PORTS, self.pit.read, self.pit.write)
        for port in (self.serial, self.second):
            self.ports.claim(port.ports, port.read, port.write)
        self.ports.claim(Cmos.PORTS, self.cmos.read, self.cmos.write)
        self.firmware = FirmwareConfiguration(memory)
        self.ports.claim(FirmwareConfiguration.PORTS, self.firmware.read, self.firmware.write)
        self.ports.claim((DEBUG_EXIT,), lambda _port: 0xFF, self._exit)
        self.uc.mmio_map(lapic.BASE, 4096, self._read_apic, None, self._write_apic, None)
        # An empty bus: reads are all ones, writes go nowhere, and nothing can be executed.
        for start, end in ((memory, lapic.BASE), (lapic.BASE + 4096, _PHYSICAL_END)):
            self.uc.mmio_map(start, end - start, lambda *_: (1 << 64) - 1, None, lambda *_: None, None)
        self.uc.hook_add(uc.UC_HOOK_INSN, self._in, None, 1, 0, x86.UC_X86_INS_IN)
        self.uc.hook_add(uc.UC_HOOK_INSN, self._out, None, 1, 0, x86.UC_X86_INS_OUT)
        self._scratch = (ctypes.c_char * 4096)()
        self._decoder = Decoder()
        self._decoder.install(self.words)
        self.words[observing.DECODERS : observing.DECODERS + 3] = self._decoder.handles
        self._link()

    def now(self) -> int:
        """Return the model's clock in nanoseconds."""
        return int(self.words[at.RETIRED]) + self.idle

    def start_linux(self, image: bytes, initrd: bytes, append: str) -> None:
        """Load a kernel and point the processor at its 64-bit entry; InputError when it cannot be loaded."""
        start = boot.load_linux(self.memory, image, initrd, append)
        self.start(start.rip, start.rsi)

    def start(self, rip: int, rsi: int = 0) -> None:
        """Point the processor at 64-bit code in ring 0, with the first 4 GiB mapped to themselves."""
        entry.enter(self.uc, self.engine.env, self.memory, Start(rip, rsi=rsi))

    def start_image(self, image: bytes, name: str, initrd: bytes, append: str) -> None:
        """Load a kernel of any kind (`images.load`) and point the processor at its entry."""
        entry.enter(self.uc, self.engine.env, self.memory, load(self.memory, image, name, initrd, append))

    def trace(self, deliver: Callable[[Words], None] | None, low: int = 0, high: int = 1 << 64) -> None:
        """Write down every branch from addresses in [low, high), from outside of what the guest can see; None ends it.

        `deliver` gets uint64[n, 3] of FROM, TO, kind, which is overwritten when the machine runs on.
        """
        words = self.words
        if self._traced is None:
            self._traced = np.zeros((observing.TRACE_ROWS + observing.TRACE_SPARE, 3), np.uint64)
        self._deliver = deliver or _drop_rows
        words[observing.TRACE_AT] = self._traced.ctypes.data if deliver else 0
        words[observing.TRACE_LOW] = low
        words[observing.TRACE_SPAN] = min(high - low, (1 << 64) - 1)

    def _hand_over(self, rows: Words) -> None:
        words = self.words
        if words[observing.TRACE_LOST]:
            raise InternalError(f"{words[observing.TRACE_LOST]} branches found no room in the trace")
        used = int(words[observing.TRACE_USED]) // observing.TRACE_ROW
        words[observing.TRACE_USED] = 0
        self._deliver(rows[:used])

    def run(self, until: int = _NEVER) -> int | None:
        """Run until the guest ends the machine, or the clock (ns) reaches `until`: None then, else the exit status."""
        words = self.words
        rip = self.uc.reg_read(x86.UC_X86_REG_RIP)
        set_clock(words[at.RETIRED :])
        set_idle(self.idle)
        while self.status is None and self.now() < until and not self.stopping:
            if self.halted:
                self._sleep(until)
                continue
            self._serve(until)
            if self._takes_now():
                self._take_interrupt()
            words[at.REASON] = at.REASON_NONE
            words[at.LIMIT] = 0
            self._execute(rip)
            if self._traced is not None and words[observing.TRACE_USED]:
                self._hand_over(self._traced)
            reason = int(words[at.REASON])
            taken = reason == observing.REASON_TAKEN
            rip = int(words[observing.HANDLER]) if taken else self.uc.reg_read(x86.UC_X86_REG_RIP)
            if reason == observing.REASON_READY:
                self._take_interrupt()
            elif reason == at.REASON_NONE and self.status is None:
                if words[observing.DELIVERING]:
                    self._end(f"a triple fault at {rip:#x}")
                else:
                    self.halted = 1
        self.uc.reg_write(x86.UC_X86_REG_RIP, rip)
        return self.status

    def stop(self) -> None:
        """Let `run` return before the next block, for good; a signal's handler may call this at any time."""
        self.stopping = True
        self.words[at.LIMIT] = self.words[at.DEADLINE] = 0

    def _execute(self, rip: int) -> None:
        try:
            self.engine.run(rip, 0)
        except UcError as error:
            # The bus answers every data access: what is left is code where no memory is.
            self._end(f"{error} at {self.uc.reg_read(x86.UC_X86_REG_RIP):#x}, where no memory is")
        words = self.words
        if words[observing.PASSES] >= observing.PATIENT_PASSES:
            self.idle += int(words[observing.PASSES])
            words[observing.PASSES] = 0
            set_idle(self.idle)

    def _end(self, cause: str) -> None:
        self.status, self.cause = FAILED, cause

    def _serve(self, until: int) -> None:
        now = self.now()
        self.pit.serve(now)
        self.apic.serve(now)
        self.vcpu.serve()
        if self.vcpu.overflowed:
            self.vcpu.overflowed = 0
            self.apic.performance_interrupt()
        due = min(clock for clock in (self.pit.due, self.apic.due, until) if clock >= 0)
        self.words[at.DEADLINE] = max(0, due - self.idle)
        self._look_at_lines()

    def _look_at_lines(self) -> None:
        self.words[observing.WANTED] = 2 if self.apic.nmi else 1 if self._waiting() else 0

    def _waiting(self) -> bool:
        return bool(self.apic.enabled and self.apic.pending()) or (self.apic.passes_pic and self.pic.pending())

    # The hook stopped before a block, at which what is wanted can be delivered at once: a PMI has no skid beyond the
    # block in which the counter overflowed.
    def _takes_now(self) -> bool:
        words, env = self.words, np.uint64(self.engine.env)
        if not words[at.UNUSUAL] or words[observing.INJECT] or not words[observing.WANTED]:
            return False
        return not longmode.nmi_blocked(env) if self.apic.nmi else bool(longmode.interruptible(env))

    def _take_interrupt(self) -> None:
        if self.apic.nmi:
            self.apic.nmi, vector = 0, 2
        elif self.apic.enabled and (vector := self.apic.pending()):
            self.apic.acknowledge(vector)
        else:
            vector = self.pic.acknowledge()
        self.words[observing.INJECT] = vector + 1

    # HLT: time passes until something interrupts, or `until`: then it sleeps on in the next run. With interrupts off
    # nothing will.
    def _sleep(self, until: int) -> None:
        masked = not self.uc.reg_read(x86.UC_X86_REG_EFLAGS) >> 9 & 1
        if masked and not self.apic.nmi:
            self.status = 0  # only an NMI could wake it, and no counter counts while it sleeps
        while self.status is None and not (self.apic.nmi or self._waiting()):
            due = min(clock for clock in (self.pit.due, self.apic.due, until) if clock >= 0)
            if due >= _NEVER:
                self.status = 0
                return
            self.idle += max(0, due - self.now())
            set_idle(self.idle)
            self.pit.serve(self.now())
            self.apic.serve(self.now())
            if self.now() >= until:
                return
        self.halted = 0

    def _link(self) -> None:
        words = self.words
        words[observing.ENV] = self.engine.env
        words[observing.CPU] = self.engine.cpu
        words[observing.ENGINE] = self.uc._uch.value
        words[observing.SCRATCH] = ctypes.addressof(self._scratch)
        words[observing.MARK_WORD : observing.MARK_WORD + observing.MARKS] = observing.NOTHING
        words[observing.MARK_AT : observing.MARK_AT + observing.MARKS] = observing.NEVER
        for place, name in (
            (observing.VMEM_READ, "uc_vmem_read"),
            (observing.DELIVER, "x86_cpu_do_interrupt_x86_64"),
            (at.EMU_STOP, "uc_emu_stop"),
        ):
            words[place] = ctypes.cast(getattr(uclib, name), ctypes.c_void_p).value or 0
        here = words.ctypes.data
        for kind, function in (
            (uc.UC_HOOK_BLOCK, observing.observing),
            (uc.UC_HOOK_EDGE_GENERATED, observing.translated),
        ):
            plant(self.uc._uch, kind, function.address, here)
        self.engine.deliver_with(faulting.excepting.address, faulting.undefined.address, here)

    def _in(self, _engine: Any, port: int, size: int, _data: object) -> int:
        value = self.ports.read(port, size)
        self._look_at_lines()  # what was read may have lowered a line
        return value

    def _out(self, _engine: Any, port: int, size: int, value: int, _data: object) -> None:
        self.ports.write(port, size, value)
        self._look_at_lines()  # an interrupt is taken before the next block, not when the hook stops next
        self.words[at.LIMIT] = 0
        if port in Pit.PORTS:
            self.words[at.DEADLINE] = 0  # a timer may be due sooner now: the hook stops and the board looks

    def _exit(self, _port: int, value: int) -> None:
        if self.status is None:
            self.status = value << 1 & 0xFF | 1  # isa-debug-exit of QEMU
            self.uc.emu_stop()

    def _read_apic(self, _engine: Any, offset: int, _size: int, _data: object) -> int:
        return self.apic.read(offset & 0xFF0)

    def _write_apic(self, _engine: Any, offset: int, _size: int, value: int, _data: object) -> None:
        self.apic.write(offset & 0xFF0, value)
        self.words[at.LIMIT] = 0
        self.words[at.DEADLINE] = 0  # a timer may be due sooner now: the hook stops and the board looks
