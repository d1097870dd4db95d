"""Signals as a program sees them: dispositions, default actions, and the frame on its stack.

`machine.userland` delivers a signal by writing the frame this module builds and reads it back at rt_sigreturn(2).
Layouts: struct rt_sigframe in arch/x86/include/asm/sigframe.h, struct sigcontext_64 and ucontext in
arch/x86/include/uapi/asm/{sigcontext,ucontext}.h; placement: get_sigframe() in arch/x86/kernel/signal.c.
"""

from __future__ import annotations

import errno
import signal
import struct
from typing import Final, NamedTuple

COUNT: Final = 64

SIG_DFL: Final = 0
SIG_IGN: Final = 1
SA_NOCLDSTOP: Final = 0x1
SA_SIGINFO: Final = 0x4
SA_ONSTACK: Final = 0x08000000
SA_RESTART: Final = 0x10000000
SA_NODEFER: Final = 0x40000000
SA_RESETHAND: Final = 0x80000000

SS_ONSTACK: Final = 1
SS_DISABLE: Final = 2
SS_AUTODISARM: Final = 1 << 31
MINSIGSTKSZ: Final = 2048

SI_USER: Final = 0
SI_KERNEL: Final = 0x80
SEGV_MAPERR: Final = 1
SEGV_ACCERR: Final = 2
FPE_INTDIV: Final = 1
ILL_OPN: Final = 2
TRAP_BRKPT: Final = 1

# signal(7): what happens without a handler.
IGNORED: Final = frozenset({signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH})
STOPPING: Final = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
UNCATCHABLE: Final = frozenset({signal.SIGKILL, signal.SIGSTOP})
# Raised by the processor at an instruction; they cannot be ignored or blocked then.
SYNCHRONOUS: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP})

_ACTION: Final = struct.Struct("<QQQQ")  # handler, flags, restorer, mask: struct sigaction as rt_sigaction takes it
_STACK: Final = struct.Struct("<QIiQ")  # struct stack_t
_FXSAVE: Final = 512
_RED_ZONE: Final = 128
_INFO: Final = 128
_UCONTEXT: Final = 304
_FRAME: Final = 8 + _UCONTEXT + _INFO
_CONTEXT_AT: Final = 8 + 16 + _STACK.size
_MASK_AT: Final = 8 + _UCONTEXT - 8
_UC_SIGCONTEXT_SS: Final = 0x6  # UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS

_ORDER: Final = [
    "R8",
    "R9",
    "R10",
    "R11",
    "R12",
    "R13",
    "R14",
    "R15",
    "RDI",
    "RSI",
    "RBP",
    "RBX",
    "RDX",
    "RAX",
    "RCX",
    "RSP",
    "RIP",
    "EFLAGS",
]
_CONTEXT: Final = struct.Struct("<18Q4H5Q8Q")
_USER_CS, _USER_SS = 0x33, 0x2B
# The flags a program may set for itself through sigreturn (FIX_EFLAGS in arch/x86/include/asm/sighandling.h).
_FIX_EFLAGS: Final = 0x00050DD5
_DIRECTION_TRAP_RESUME: Final = 1 << 10 | 1 << 8 | 1 << 16


class Action(NamedTuple):
    """What a program asked for a signal: rt_sigaction's structure."""

    handler: int = SIG_DFL
    flags: int = 0
    restorer: int = 0
    mask: int = 0

    def pack(self) -> bytes:
        """Return the structure's bytes."""
        return _ACTION.pack(*self)

    @classmethod
    def unpack(cls, raw: bytes) -> Action:
        """Return the action in rt_sigaction's structure."""
        return cls(*_ACTION.unpack(raw))


class AlternateStack(NamedTuple):
    """A thread's sigaltstack(2); size 0: it has none. The rules are do_sigaltstack()'s, kernel/signal.c."""

    base: int = 0
    flags: int = 0
    size: int = 0

    def holds(self, rsp: int) -> bool:
        """Whether a stack pointer lies on this stack (on_sig_stack() in include/linux/sched/signal.h)."""
        return not self.flags & SS_AUTODISARM and self.base < rsp <= self.base + self.size

    def seen(self, rsp: int) -> AlternateStack:
        """Return what sigaltstack tells a program that asks for its stack."""
        mode = SS_ONSTACK if self.holds(rsp) else 0
        return self._replace(flags=(mode if self.size else SS_DISABLE) | self.flags & SS_AUTODISARM)

    def changed(self, new: AlternateStack, rsp: int) -> AlternateStack | int:
        """Return the stack that `new` asks for, or the errno of the refusal."""
        if self.holds(rsp):
            return errno.EPERM
        mode = new.flags & ~SS_AUTODISARM
        if mode not in (0, SS_ONSTACK, SS_DISABLE):
            return errno.EINVAL
        if mode == SS_DISABLE:
            return AlternateStack(0, new.flags, 0)
        return new if new.size >= MINSIGSTKSZ else errno.ENOMEM

    def pack(self) -> bytes:
        """Return the bytes of stack_t."""
        return _STACK.pack(self.base, self.flags, 0, self.size)

    @classmethod
    def unpack(cls, raw: bytes) -> AlternateStack:
        """Return the stack in a stack_t."""
        base, flags, _, size = _STACK.unpack(raw)
        return cls(base, flags, size)


# What a new thread has, and what is left of an SS_AUTODISARM stack in its handler (sas_ss_reset()).
DISARMED: Final = AlternateStack(0, SS_DISABLE, 0)


class Trap(NamedTuple):
    """What the processor knows of a fault: vector, error code, CR2."""

    vector: int = 0
    error: int = 0
    cr2: int = 0


class Frame(NamedTuple):
    """A signal frame to write: the bytes, where they go, and the registers the handler starts with."""

    address: int
    content: bytes
    fpu_address: int
    registers: dict[str, int]


class Restored(NamedTuple):
    """What rt_sigreturn puts back."""

    registers: dict[str, int]
    mask: int
    fpu_address: int
    stack: AlternateStack


def siginfo(number: int, code: int, address: int = 0) -> bytes:
    """Return the siginfo of a fault at a data or code address."""
    return struct.pack("<iiiiQ", number, 0, code, 0, address).ljust(_INFO, b"\0")


def build_frame(
    number: int,
    info: bytes,
    action: Action,
    registers: dict[str, int],
    mask: int,
    alternate: AlternateStack,
    trap: Trap,
) -> Frame:
    """Return the frame that enters a handler for `number` from the interrupted `registers`."""
    sp = registers["RSP"] - _RED_ZONE
    if action.flags & SA_ONSTACK and alternate.size and not alternate.holds(sp):
        sp = alternate.base + alternate.size
    fpu = (sp - _FXSAVE) & -64
    frame = ((fpu - _FRAME) & -16) - 8
    segments = (_USER_CS, 0, 0, _USER_SS)
    context = _CONTEXT.pack(
        *[registers[name] for name in _ORDER], *segments, trap.error, trap.vector, mask, trap.cr2, fpu, *[0] * 8
    )
    content = struct.pack("<QQQ", action.restorer, _UC_SIGCONTEXT_SS, 0) + alternate.pack() + context
    content += struct.pack("<Q", mask) + info[:_INFO].ljust(_INFO, b"\0")
    entered = dict(registers)
    entered.update(
        RDI=number,
        RSI=frame + 8 + _UCONTEXT,
        RDX=frame + 8,
        RAX=0,
        RSP=frame,
        RIP=action.handler,
        EFLAGS=registers["EFLAGS"] & ~_DIRECTION_TRAP_RESUME,
    )
    return Frame(frame, content, fpu, entered)


FRAME_SIZE: Final = _FRAME
STACK_SIZE: Final = _STACK.size


def read_frame(content: bytes, flags: int) -> Restored:
    """Return what a frame of FRAME_SIZE bytes restores; `flags` are the current EFLAGS."""
    words = _CONTEXT.unpack_from(content, _CONTEXT_AT)
    registers = dict(zip(_ORDER, words[:18], strict=True))
    registers["EFLAGS"] = (flags & ~_FIX_EFLAGS) | (registers["EFLAGS"] & _FIX_EFLAGS)
    mask = struct.unpack_from("<Q", content, _MASK_AT)[0]
    stack = AlternateStack.unpack(content[8 + 16 : 8 + 16 + _STACK.size])
    return Restored(registers, mask, words[26], stack)
