"""Entering and leaving a program's signal handlers, and turning the processor's faults into signals.

`machine.userland` calls `fault` when the engine stops at an exception and `deliver` when signals wait for a thread;
both write the frame of `guest.signals` on the guest's stack. Rules: arch/x86/kernel/{signal,traps}.c,
arch/x86/mm/fault.c, kernel/signal.c.
"""

from __future__ import annotations

import ctypes
import signal
from typing import TYPE_CHECKING, Final

import capstone

from archlbr.cpu.engine import Stop, StopReason
from archlbr.guest import signals as linux
from archlbr.guest import syscalls as nr

if TYPE_CHECKING:
    from archlbr.machine.userland import Process, Thread

_SETMASK: Final = 2

# Exception vector to signal, code (arch/x86/kernel/traps.c). #GP carries no address and SI_KERNEL.
_VECTORS: Final = {
    0: (signal.SIGFPE, linux.FPE_INTDIV),
    1: (signal.SIGTRAP, linux.TRAP_BRKPT),
    3: (signal.SIGTRAP, linux.SI_KERNEL),
    4: (signal.SIGSEGV, linux.SI_KERNEL),
    6: (signal.SIGILL, linux.ILL_OPN),
    16: (signal.SIGFPE, linux.FPE_INTDIV),
    17: (signal.SIGBUS, 1),
    19: (signal.SIGFPE, linux.FPE_INTDIV),
}
_GENERAL_PROTECTION: Final = 13
_LAST_EXCEPTION: Final = 31
_IDT: Final = 2
_INT_LENGTH: Final = 2
_PAGE_FAULT: Final = 14
_ADDRESSED: Final = (0, 6, 16, 19)
# Those that come after their instruction; the others are faults, whose frame has RF set (SDM vol. 3B, 18.3.1.1).
_TRAPS: Final = (1, 3, 4)
_RESUME_FLAG: Final = 1 << 16


def fault(process: Process, thread: Thread, stop: Stop) -> None:
    """Deliver the signal of an exception at `stop.rip`; it cannot be blocked or ignored."""
    trap = linux.Trap(stop.vector)
    if stop.reason == StopReason.FAULT and stop.access != "fetch" and not _canonical(stop.address):
        number = int(signal.SIGSEGV)
        info = linux.siginfo(number, linux.SI_KERNEL)
        trap = linux.Trap(_GENERAL_PROTECTION)
    elif stop.reason == StopReason.FAULT:
        mapped = process.memory.find(stop.address) is not None
        number = int(signal.SIGSEGV)
        info = linux.siginfo(number, linux.SEGV_ACCERR if mapped else linux.SEGV_MAPERR, stop.address)
        error = (1 if mapped else 0) | (2 if stop.access == "write" else 0) | 4 | (16 if stop.access == "fetch" else 0)
        trap = linux.Trap(_PAGE_FAULT, error, stop.address)
    elif stop.reason == StopReason.INVALID or stop.vector == 6:
        number = signal.SIGILL
        info = linux.siginfo(number, linux.ILL_OPN, stop.rip)
        trap = linux.Trap(6)
        _name_instruction(process, stop.rip)
    else:
        number, code = _VECTORS.get(stop.vector, (signal.SIGSEGV, linux.SI_KERNEL))
        info = linux.siginfo(number, code, stop.rip if stop.vector in _ADDRESSED else 0)
        if stop.vector > _LAST_EXCEPTION:
            # INT n through a gate that ring 3 may not use: a fault whose error code names it (SDM vol. 3A, 6.13).
            trap = linux.Trap(_GENERAL_PROTECTION, stop.vector << 3 | _IDT)
            thread.rip = stop.rip - _INT_LENGTH
        elif stop.vector not in _VECTORS:
            trap = linux.Trap(_GENERAL_PROTECTION)
    action = process.signals.actions[number]
    if action.handler in (linux.SIG_DFL, linux.SIG_IGN) or _mask(process) >> (number - 1) & 1:
        process.status = -number
        return
    _enter(process, thread, number, info, action, trap, 0 if trap.vector in _TRAPS else _RESUME_FLAG)


def _canonical(address: int) -> bool:
    return address < 1 << 47 or address >= (1 << 64) - (1 << 47)


def deliver(process: Process, thread: Thread) -> None:
    """Let the signals that wait for a thread take effect, until one enters a handler or ends the process."""
    arrivals, thread.arrivals = thread.arrivals, []
    mask = _mask(process)
    for index, arrival in enumerate(arrivals):
        action = process.signals.actions[arrival.number]
        if mask >> (arrival.number - 1) & 1:
            # It came before the guest blocked it: keep it until the guest takes it again.
            thread.arrivals.append(arrival)
            continue
        if action.handler == linux.SIG_IGN:
            continue
        if action.handler == linux.SIG_DFL:
            if arrival.number in linux.IGNORED or arrival.number in linux.STOPPING:
                continue
            process.status = -arrival.number
            return
        _enter(process, thread, arrival.number, arrival.info, action, linux.Trap())
        mask = _mask(process)
        if process.status is not None:
            thread.arrivals.extend(arrivals[index + 1 :])
            return


def sigreturn(process: Process, thread: Thread) -> None:
    """Put back what the newest frame on the guest's stack holds."""
    engine = process.engine
    registers = engine.registers()
    frame = registers["RSP"] - 8  # the handler's RET has taken the return address
    raw = process.memory.read(frame, linux.FRAME_SIZE)
    restored = linux.read_frame(raw, registers["EFLAGS"]) if raw is not None else None
    if restored is None or restored.registers["RIP"] >= 1 << 47:
        process.status = -signal.SIGSEGV
        return
    image = process.memory.read(restored.fpu_address, 512) if restored.fpu_address else None
    if image is not None:
        engine.write_fpu(image)
    engine.write_registers(restored.registers)
    thread.rip = restored.registers["RIP"]
    stack = thread.alternate.changed(restored.stack, restored.registers["RSP"])
    if not isinstance(stack, int):  # restore_altstack() says nothing of a refusal
        thread.alternate = stack
    _set_mask(process, restored.mask)
    process.recorder.kernel_returned(thread.rip, True)


def _enter(
    process: Process,
    thread: Thread,
    number: int,
    info: bytes,
    action: linux.Action,
    trap: linux.Trap,
    resume_flag: int = 0,
) -> None:
    engine = process.engine
    registers = engine.registers()
    registers["RIP"] = thread.rip
    registers["EFLAGS"] |= resume_flag
    mask = _mask(process)
    frame = linux.build_frame(number, info, action, registers, mask, thread.alternate, trap)
    image = engine.read_fpu()
    if not (process.memory.write(frame.fpu_address, image) and process.memory.write(frame.address, frame.content)):
        process.status = -signal.SIGSEGV  # no room for the frame: force_sigsegv() in kernel/signal.c
        return
    if action.flags & linux.SA_RESETHAND:
        process.signals.set(number, linux.Action())
    blocked = mask | action.mask | (0 if action.flags & linux.SA_NODEFER else 1 << (number - 1))
    _set_mask(process, blocked & ~(1 << (signal.SIGKILL - 1) | 1 << (signal.SIGSTOP - 1)))
    # What came before, a branch or a half-run block, is no predecessor of the handler's first block.
    engine.resume_before(None)
    engine.write_registers(frame.registers)
    thread.rip = frame.registers["RIP"]
    if thread.alternate.flags & linux.SS_AUTODISARM:
        thread.alternate = linux.DISARMED
    process.recorder.kernel_returned(thread.rip, True)


# The guest's mask is the host thread's own: rt_sigprocmask passes through.
def _mask(process: Process) -> int:
    word = ctypes.c_uint64()
    process.kernel.call(nr.RT_SIGPROCMASK, _SETMASK, 0, ctypes.addressof(word), 8)
    return word.value


def _set_mask(process: Process, mask: int) -> None:
    word = ctypes.c_uint64(mask)
    process.kernel.call(nr.RT_SIGPROCMASK, _SETMASK, ctypes.addressof(word), 0, 8)


def _name_instruction(process: Process, rip: int) -> None:
    code = process.memory.read(rip, 16) or process.memory.read(rip, 1) or b""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    for _, _, mnemonic, operands in decoder.disasm_lite(code, rip, 1):
        if code[:1] in (b"\xc4", b"\xc5", b"\x62"):
            process.messages.append(
                f"{process.path} uses AVX ({mnemonic} {operands} at {rip:#x}), which this processor does not offer; "
                "build it without -mavx and -march=native"
            )
        elif mnemonic not in ("ud2", "ud1", "ud0"):
            process.messages.append(
                f"{process.path} uses {mnemonic} ({operands} at {rip:#x}), which this processor does not offer"
            )
        return
