"""The signal frame against offsets taken from the kernel's headers, and what comes back of it."""

from __future__ import annotations

import errno
import signal
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archlbr.guest.signals import (
    FRAME_SIZE,
    Action,
    AlternateStack,
    Trap,
    build_frame,
    read_frame,
    siginfo,
)

# struct rt_sigframe: pretcode, struct ucontext uc, siginfo_t info (arch/x86/include/asm/sigframe.h).
PRETCODE, UC, INFO, SIZE = 0, 8, 312, 440
# struct ucontext: uc_flags, uc_link, uc_stack {sp, flags, size}, uc_mcontext, uc_sigmask (uapi/asm-generic/ucontext.h).
UC_FLAGS, UC_LINK, SS_SP, SS_FLAGS, SS_SIZE, MCONTEXT, SIGMASK = 8, 16, 24, 32, 40, 48, 304
# struct sigcontext_64 (uapi/asm/sigcontext.h), from MCONTEXT on; the rest is one word each.
REGISTERS = {
    "R8": 0, "R9": 8, "R10": 16, "R11": 24, "R12": 32, "R13": 40, "R14": 48, "R15": 56, "RDI": 64, "RSI": 72,
    "RBP": 80, "RBX": 88, "RDX": 96, "RAX": 104, "RCX": 112, "RSP": 120, "RIP": 128, "EFLAGS": 136,
}  # fmt: skip
CS, GS, FS, SS = 144, 146, 148, 150  # 16 bits each
ERR, TRAPNO, OLDMASK, CR2, FPSTATE, RESERVED, CONTEXT_END = 152, 160, 168, 176, 184, 192, 256

SA_ONSTACK = 0x08000000
SS_ONSTACK, SS_DISABLE, SS_AUTODISARM = 1, 2, 1 << 31

WORD = st.integers(0, (1 << 64) - 1)
STACK_POINTER = st.integers(0x10000, 0x7FFF_FFFF_FFF0)
REGISTER_FILE = st.fixed_dictionaries({name: STACK_POINTER if name == "RSP" else WORD for name in REGISTERS})
ALTERNATE = st.one_of(
    st.just(AlternateStack()),
    st.builds(
        AlternateStack,
        st.integers(1, 1 << 46).map(lambda page: page & ~4095),
        st.sampled_from([0, SS_AUTODISARM]),
        st.integers(2048, 1 << 20),
    ),
)


def word(content: bytes, offset: int) -> int:
    value: int = struct.unpack_from("<Q", content, offset)[0]
    return value


def half(content: bytes, offset: int) -> int:
    value: int = struct.unpack_from("<H", content, offset)[0]
    return value


@given(
    st.integers(1, 64), st.binary(min_size=128, max_size=128),
    st.builds(Action, WORD, st.integers(0, 0xFFFFFFFF), WORD, WORD), REGISTER_FILE,
    WORD, ALTERNATE, st.builds(Trap, st.integers(0, 31), st.integers(0, 31), WORD),
)  # fmt: skip
def test_every_field_lies_where_the_kernel_puts_it(
    number: int,
    info: bytes,
    action: Action,
    registers: dict[str, int],
    mask: int,
    alternate: AlternateStack,
    trap: Trap,
) -> None:
    frame = build_frame(number, info, action, registers, mask, alternate, trap)
    content = frame.content
    assert len(content) == FRAME_SIZE == SIZE
    assert word(content, PRETCODE) == action.restorer
    assert (word(content, UC_FLAGS), word(content, UC_LINK)) == (6, 0)  # UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
    assert (word(content, SS_SP), word(content, SS_SIZE)) == (alternate.base, alternate.size)
    assert struct.unpack_from("<I", content, SS_FLAGS)[0] == alternate.flags
    for name, offset in REGISTERS.items():
        assert word(content, MCONTEXT + offset) == registers[name], name
    assert (half(content, MCONTEXT + CS), half(content, MCONTEXT + SS)) == (0x33, 0x2B)
    assert (half(content, MCONTEXT + GS), half(content, MCONTEXT + FS)) == (0, 0)
    assert word(content, MCONTEXT + ERR) == trap.error
    assert word(content, MCONTEXT + TRAPNO) == trap.vector
    assert word(content, MCONTEXT + OLDMASK) == mask
    assert word(content, MCONTEXT + CR2) == trap.cr2
    assert word(content, MCONTEXT + FPSTATE) == frame.fpu_address
    assert content[MCONTEXT + RESERVED : MCONTEXT + CONTEXT_END] == bytes(64)
    assert word(content, SIGMASK) == mask
    assert content[INFO:] == info


@given(REGISTER_FILE, ALTERNATE, st.sampled_from([0, SA_ONSTACK]), WORD, WORD)
def test_the_frame_goes_below_what_the_program_uses(
    registers: dict[str, int], alternate: AlternateStack, flags: int, handler: int, mask: int
) -> None:
    """get_sigframe(): red zone, alternate stack, floating point at 64 bytes, frame as after a call."""
    action = Action(handler, flags, 0x401000, 0)
    frame = build_frame(11, siginfo(11, 1), action, registers, mask, alternate, Trap())
    top = registers["RSP"] - 128
    on_it = alternate.flags != SS_AUTODISARM and alternate.base < top <= alternate.base + alternate.size
    if flags and alternate.size and not on_it:
        top = alternate.base + alternate.size
    assert frame.fpu_address % 64 == 0
    assert top - 512 - 64 < frame.fpu_address <= top - 512
    assert (frame.address + 8) % 16 == 0
    assert frame.fpu_address - SIZE - 24 < frame.address <= frame.fpu_address - SIZE
    entered = frame.registers
    assert (entered["RDI"], entered["RSI"], entered["RDX"]) == (11, frame.address + INFO, frame.address + UC)
    assert (entered["RAX"], entered["RSP"], entered["RIP"]) == (0, frame.address, handler)
    assert entered["EFLAGS"] == registers["EFLAGS"] & ~(1 << 8 | 1 << 10 | 1 << 16)  # TF, DF, RF
    kept = set(REGISTERS) - {"RDI", "RSI", "RDX", "RAX", "RSP", "RIP", "EFLAGS"}
    assert {name: entered[name] for name in kept} == {name: registers[name] for name in kept}


@given(REGISTER_FILE, WORD, ALTERNATE, WORD)
def test_what_sigreturn_puts_back(
    registers: dict[str, int], mask: int, alternate: AlternateStack, current: int
) -> None:
    frame = build_frame(10, bytes(128), Action(0x401000), registers, mask, alternate, Trap())
    restored = read_frame(frame.content, current)
    assert (restored.mask, restored.fpu_address) == (mask, frame.fpu_address)
    assert (restored.stack.base, restored.stack.flags, restored.stack.size) == alternate
    # FIX_EFLAGS: AC, RF, OF, DF, TF, SF, ZF, AF, PF, CF are the program's; IF, IOPL and the rest are not.
    theirs = sum(1 << bit for bit in (18, 16, 11, 10, 8, 7, 6, 4, 2, 0))
    assert restored.registers.pop("EFLAGS") == registers["EFLAGS"] & theirs | current & ~theirs
    assert restored.registers == {name: value for name, value in registers.items() if name != "EFLAGS"}


@given(st.binary(min_size=SIZE, max_size=SIZE))
def test_a_frame_the_program_has_written_to(content: bytes) -> None:
    restored = read_frame(content, 0x202)
    for name, offset in REGISTERS.items():
        if name != "EFLAGS":
            assert restored.registers[name] == word(content, MCONTEXT + offset)
    assert restored.mask == word(content, SIGMASK)
    assert restored.fpu_address == word(content, MCONTEXT + FPSTATE)
    assert restored.stack == (
        word(content, SS_SP),
        struct.unpack_from("<I", content, SS_FLAGS)[0],
        word(content, SS_SIZE),
    )


def test_the_siginfo_of_a_fault() -> None:
    info = siginfo(int(signal.SIGSEGV), 1, 0xDEADBEEF000)
    # si_signo, si_errno, si_code, padding, si_addr (uapi/asm-generic/siginfo.h)
    assert info == struct.pack("<iiiiQ", 11, 0, 1, 0, 0xDEADBEEF000) + bytes(104)


@given(WORD, WORD, WORD, WORD)
def test_an_action_is_the_kernel_s_structure(handler: int, flags: int, restorer: int, mask: int) -> None:
    """struct sigaction: sa_handler, sa_flags, sa_restorer, sa_mask (arch/x86/include/uapi/asm/signal.h)."""
    raw = struct.pack("<4Q", handler, flags, restorer, mask)
    assert Action.unpack(raw) == Action(handler, flags, restorer, mask)
    assert Action(handler, flags, restorer, mask).pack() == raw


@given(ALTERNATE)
def test_an_alternate_stack_is_the_kernel_s_structure(stack: AlternateStack) -> None:
    raw = struct.pack("<QIIQ", stack.base, stack.flags, 0, stack.size)
    assert stack.pack() == raw
    assert AlternateStack.unpack(raw) == stack


@pytest.mark.parametrize(
    ("rsp", "on_it"), [(0x10000, False), (0x10001, True), (0x11000, True), (0x12000, True), (0x12001, False)]
)
def test_which_stack_pointers_are_on_the_alternate_stack(rsp: int, on_it: bool) -> None:
    """on_sig_stack(): sp > base and sp - base <= size, and never with SS_AUTODISARM (include/linux/sched/signal.h)."""
    stack = AlternateStack(0x10000, 0, 0x2000)
    assert stack.holds(rsp) == on_it
    assert not stack._replace(flags=SS_AUTODISARM).holds(rsp)
    assert not AlternateStack(rsp - 1, 0, 0).holds(rsp)
    assert stack.seen(rsp).flags == (SS_ONSTACK if on_it else 0)
    new = AlternateStack(0x90000, 0, 4096)
    assert stack.changed(new, rsp) == (errno.EPERM if on_it else new)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ((0x1000, 0, 2048), (0x1000, 0, 2048)),
        ((0x1000, 0, 2047), errno.ENOMEM),
        ((0x1000, SS_ONSTACK, 4096), (0x1000, SS_ONSTACK, 4096)),
        ((0x1000, SS_AUTODISARM, 4096), (0x1000, SS_AUTODISARM, 4096)),
        ((0x1000, SS_DISABLE, 4096), (0, SS_DISABLE, 0)),
        ((0x1000, SS_DISABLE, 0), (0, SS_DISABLE, 0)),
        ((0x1000, SS_DISABLE | SS_AUTODISARM, 0), (0, SS_DISABLE | SS_AUTODISARM, 0)),
        ((0x1000, SS_DISABLE | SS_ONSTACK, 4096), errno.EINVAL),
        ((0x1000, 4, 4096), errno.EINVAL),
    ],
)
def test_what_sigaltstack_makes_of_a_request(asked: tuple[int, int, int], answer: object) -> None:
    """do_sigaltstack() in kernel/signal.c."""
    assert AlternateStack().changed(AlternateStack(*asked), 0x7FFF0000) == answer
