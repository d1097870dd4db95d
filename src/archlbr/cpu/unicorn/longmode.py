"""What Unicorn leaves out of long mode: SYSCALL's transition, a clock behind RDTSC, interrupts from outside.

`supervisor` installs these beside the register accesses. Offsets into the engine's CPUX86State hold for the one pinned
wheel and are checked when it is calibrated. Rules: SDM vol. 2B, SYSCALL; vol. 3A, 6.8; the shape of the state is
target/i386/cpu.h of the engine's QEMU.
"""

from __future__ import annotations

from typing import Final

from numba import types, uint64

from archlbr.cpu.address import Word, call5, load8, load64, store64
from archlbr.cpu.unicorn import page
from archlbr.native import callback, native, native_inline

RAX, RCX, RDX, R11 = 0, 8, 16, 88
RIP, RFLAGS, CC_DST, CC_SRC, CC_SRC2, CC_OP, HFLAGS = 128, 136, 144, 152, 160, 168, 176
SEGMENTS, SEGMENT = 184, 24
CS, SS, FS_BASE = SEGMENTS + SEGMENT, SEGMENTS + 2 * SEGMENT, SEGMENTS + 4 * SEGMENT + 8
CR0, CR3, CR4 = 424, 448, 456
_TASK_RIGHTS: Final = 352 + 16  # TR: its limit, and its flags in the upper half

_LOW: Final = 0xFFFFFFFF
_TF, _IF, _DF, _RF = 1 << 8, 1 << 9, 1 << 10, 1 << 16
_CC_OP_EFLAGS: Final = 1
_SCE: Final = 1  # of EFER: SYSCALL and SYSRET are there
_INVALID_OPCODE: Final = 6
_INT1, _READ = 0xF1, 1  # an opcode, and UC_PROT_READ
_GENERAL_PROTECTION: Final = 13
# What the models of `machine.models` have: VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMMEXCPT; SCE LME LMA NXE.
_CR4_LEGAL, _OSXSAVE, _PAE = 0x7FF, 1 << 18, 1 << 5
_EFER_LEGAL, _LME = 0xD01, 1 << 8
_PE, _NW, _CD, _PG = 1, 1 << 29, 1 << 30, 1 << 31
_PHYSICAL_BITS, _FEATURE_OSXSAVE = 39, 27
_IDT: Final = 2  # of an error code: it names a gate
_CC_BITS: Final = 0x8D5
# Descriptor caches that SYSCALL loads: flat, present, 64-bit code and data of ring 0 (the flags' place is QEMU's).
_CODE_FLAGS: Final = 0x00A09B00
_DATA_FLAGS: Final = 0x00C09300
HF_CS64, _HF_CS32, _HF_SS32, _HF_ADDSEG, _HF_INHIBIT = 1 << 15, 1 << 4, 1 << 5, 1 << 6, 1 << 3
_PRESENT: Final = 1 << 47
_BUSY_TASK: Final = 0x8B00 << 32  # present, a busy task, limit 0
_HF_LMA: Final = 1 << 14
_HF2_NMI: Final = 1 << 34  # bit 2 of hflags2, the upper half of the word

_SYSCALL: Final = types.void(types.uint64, types.int32)
_ONE: Final = types.void(types.uint64)
_ONE_VALUE: Final = types.uint64(types.uint64)
_TWO: Final = types.void(types.uint64, types.uint64)
_WRITE_CR: Final = types.void(types.uint64, types.int32, types.uint64)


@native
def flags_of(env: Word) -> Word:
    """Return RFLAGS, which the engine keeps in pieces."""
    pieces = load64(env + uint64(CC_OP))
    computed = call5(
        load64(uint64(page.COMPUTE_FLAGS)),
        load64(env + uint64(CC_DST)),
        load64(env + uint64(CC_SRC)),
        load64(env + uint64(CC_SRC2)),
        pieces & uint64(_LOW),
        uint64(0),
    )
    return load64(env + uint64(RFLAGS)) | (computed & uint64(_CC_BITS)) | ((pieces >> uint64(32)) & uint64(_DF))


@callback(_SYSCALL)
def syscall(env: Word, length: Word) -> None:
    """Enter ring 0 at IA32_LSTAR; #UD where it is not enabled; without paging, let the engine's hooks have the call."""
    if load64(env + uint64(CR0)) >> uint64(31) & uint64(1) == 0:
        call5(load64(uint64(page.OWN_SYSCALL)), env, uint64(length), uint64(0), uint64(0), uint64(0))
        return
    if (
        load64(env + load64(uint64(page.EFER))) & uint64(_SCE) == 0
        or load64(env + uint64(HFLAGS)) & uint64(HF_CS64) == 0
    ):
        call5(load64(uint64(page.RAISE)), env, uint64(_INVALID_OPCODE), uint64(0), uint64(0), uint64(0))
    flags = flags_of(env)
    after = load64(env + uint64(RIP)) + uint64(length)
    store64(env + uint64(RCX), after)
    store64(env + uint64(R11), flags & ~uint64(_RF))
    selector = load64(env + load64(uint64(page.STAR))) >> uint64(32) & uint64(0xFFFC)
    kept = load64(env + uint64(RFLAGS)) & ~(load64(env + load64(uint64(page.FMASK))) | uint64(_RF)) | uint64(2)
    store64(env + uint64(RFLAGS), kept & ~uint64(_CC_BITS | _DF) | uint64(2))
    store64(env + uint64(CC_SRC), uint64(0))
    store64(env + uint64(CC_OP), uint64(_CC_OP_EFLAGS) | uint64(1) << uint64(32))  # no condition set, DF clear
    for segment, value, rights in ((CS, selector, _CODE_FLAGS), (SS, selector + uint64(8), _DATA_FLAGS)):
        store64(env + uint64(segment), value)
        store64(env + uint64(segment + 8), uint64(0))
        store64(env + uint64(segment + 16), uint64(_LOW) | uint64(rights) << uint64(32))
    hflags = load64(env + uint64(HFLAGS)) & ~uint64(3 | _HF_ADDSEG)
    store64(env + uint64(HFLAGS), hflags | uint64(HF_CS64 | _HF_CS32 | _HF_SS32))
    store64(env + uint64(RIP), load64(env + load64(uint64(page.LSTAR))))


@callback(_ONE)
def rdtsc(env: Word) -> None:
    """Read the time-stamp counter: the model's clock."""
    ticks = load64(load64(uint64(page.CLOCK))) + load64(uint64(page.CLOCK_IDLE))
    store64(env + uint64(RAX), ticks & uint64(_LOW))
    store64(env + uint64(RDX), ticks >> uint64(32))


@callback(_ONE)
def rdtscp(env: Word) -> None:
    """Read the model's clock and IA32_TSC_AUX; the engine's own reads the host's clock."""
    ticks = load64(load64(uint64(page.CLOCK))) + load64(uint64(page.CLOCK_IDLE))
    store64(env + uint64(RAX), ticks & uint64(_LOW))
    store64(env + uint64(RDX), ticks >> uint64(32))
    store64(env + uint64(RCX), load64(env + load64(uint64(page.TSC_AUX))) & uint64(_LOW))


@callback(_ONE_VALUE)
def rdrand(env: Word) -> Word:
    """Have no random number, with CF clear as the processor says it (SDM vol. 2B, RDRAND): a run repeats."""
    store64(env + uint64(CC_SRC), uint64(0))
    return uint64(0)


@native
def pass_int1(env: Word, read: Word, engine: Word, scratch: Word) -> Word:
    """Put RIP behind the INT1 that stands there, prefixes and all, and say so; 0 for another instruction.

    `read` is uc_vmem_read, which copies code of `engine` to `scratch`. Source: SDM vol. 2A, 2.1.1 and "INT n".
    """
    for index in range(15):
        address = load64(env + uint64(RIP)) + uint64(index)
        call5(read, engine, address, uint64(_READ), scratch, uint64(1))
        byte = load8(scratch)
        if byte == _INT1:
            store64(env + uint64(RIP), address + uint64(1))
            return uint64(1)
        segment, operand, repeat = byte & 0xE7 == 0x26, byte & 0xFC == 0x64, byte & 0xFE == 0xF2
        if not (segment or operand or repeat or byte >> 4 == 4):  # nor a REX prefix
            break
    return uint64(0)


@native
def _long(env: Word) -> Word:
    return load64(env + uint64(HFLAGS)) & uint64(_HF_LMA) != 0


@native
def cr_faults(env: Word, number: Word, value: Word) -> Word:
    """Say whether a MOV to a control register is #GP(0): reserved bits, and what does not go together.

    Source: SDM vol. 2B, MOV to control registers; vol. 3A, 2.5 and 4.1.2.
    """
    if number == 0:
        paging = value & uint64(_PG) != 0
        if value >> uint64(32) != 0 or (paging and value & uint64(_PE) == 0):
            return True
        if value & uint64(_NW) != 0 and value & uint64(_CD) == 0:
            return True
        if paging:
            if (
                load64(env + uint64(CR0)) & uint64(_PG) != 0
                or load64(env + load64(uint64(page.EFER))) & uint64(_LME) == 0
            ):
                return False
            return load64(env + uint64(CR4)) & uint64(_PAE) == 0
        return _long(env) and load64(env + uint64(HFLAGS)) & uint64(HF_CS64) != 0
    if number == 3:
        return value >> uint64(_PHYSICAL_BITS) != 0 and _long(env)
    if number == 4:
        extended = load64(env + load64(uint64(page.FEATURES))) >> uint64(_FEATURE_OSXSAVE) & uint64(1)
        if value & ~uint64(_CR4_LEGAL) & ~(extended * uint64(_OSXSAVE)) != 0:
            return True
        return value & uint64(_PAE) == 0 and _long(env)
    return number == 8 and value >> uint64(4) != 0


@native
def efer_faults(env: Word, value: Word) -> Word:
    """Say whether WRMSR of IA32_EFER is #GP(0): reserved bits, or another LME under paging (SDM vol. 3A, 2.2.1)."""
    changed = value ^ load64(env + load64(uint64(page.EFER)))
    paging = load64(env + uint64(CR0)) & uint64(_PG) != 0
    return value & ~uint64(_EFER_LEGAL) != 0 or (paging and changed & uint64(_LME) != 0)


@callback(_WRITE_CR)
def write_cr(env: Word, number: Word, value: Word) -> None:
    """Write a control register, and count it: CR3, and the paging bits of the others, change translations."""
    if cr_faults(env, uint64(number), value):
        call5(load64(uint64(page.RAISE)), env, uint64(_GENERAL_PROTECTION), uint64(0), uint64(0), uint64(0))
    store64(uint64(page.REMAPS), load64(uint64(page.REMAPS)) + uint64(1))
    call5(load64(uint64(page.OWN_WRITE_CR)), env, uint64(number), value, uint64(0), uint64(0))


@callback(_TWO)
def invlpg(env: Word, address: Word) -> None:
    """Drop a translation, and count it."""
    store64(uint64(page.REMAPS), load64(uint64(page.REMAPS)) + uint64(1))
    call5(load64(uint64(page.OWN_INVLPG)), env, address, uint64(0), uint64(0), uint64(0))


@native
def retire(env: Word, length: Word) -> None:
    """Go behind an instruction that was executed for the engine: the shadow of STI or MOV SS ends, and RF is clear."""
    store64(env + uint64(RIP), load64(env + uint64(RIP)) + length)
    store64(env + uint64(HFLAGS), load64(env + uint64(HFLAGS)) & ~uint64(_HF_INHIBIT))
    store64(env + uint64(RFLAGS), load64(env + uint64(RFLAGS)) & ~uint64(_RF))


@native
def steps(env: Word) -> Word:
    """Say whether a trap follows each instruction: TF."""
    return load64(env + uint64(RFLAGS)) & uint64(_TF) != 0


@native
def interruptible(env: Word) -> Word:
    """Say whether the guest takes a maskable interrupt now: IF, and no shadow of STI or MOV SS."""
    shadow = load64(env + uint64(HFLAGS)) & uint64(_HF_INHIBIT)
    return load64(env + uint64(RFLAGS)) & uint64(_IF) != 0 and shadow == 0


@native
def nmi_blocked(env: Word) -> Word:
    """Say whether an NMI waits for IRET."""
    return load64(env + uint64(HFLAGS)) & uint64(_HF2_NMI) != 0


@native
def mend_task(env: Word) -> None:
    """Give a processor without a task one of limit 0: the engine aborts where the manual has #TS.

    Called before each delivery, which may need a stack of the task's (SDM vol. 3A, 6.14.5).
    """
    if load64(env + uint64(_TASK_RIGHTS)) & uint64(_PRESENT) == 0:
        store64(env + uint64(_TASK_RIGHTS), uint64(_BUSY_TASK))


@native
def interrupt(env: Word, vector: Word) -> None:
    """Deliver an interrupt from outside; called from hooks only, since a fault on the way unwinds the stack."""
    if vector == 2:
        store64(env + uint64(HFLAGS), load64(env + uint64(HFLAGS)) | uint64(_HF2_NMI))
    call5(load64(uint64(page.HARDWARE_INTERRUPT)), env, vector, uint64(1), uint64(0), uint64(0))


@native
def mark_resumed(env: Word) -> None:
    """Set RF, which delivery pushes: an instruction that faulted meets no instruction breakpoint when it runs again."""
    store64(env + uint64(RFLAGS), load64(env + uint64(RFLAGS)) | uint64(_RF))


@native
def ring(env: Word) -> Word:
    """Return the CPL."""
    return load64(env + uint64(HFLAGS)) & uint64(3)


@native_inline
def code_size(env: Word) -> Word:
    """Return 0 for 64-bit code, 1 for 32-bit code, 2 for 16-bit code: CS.L and CS.D."""
    flags = load64(env + uint64(HFLAGS))
    return uint64(0) if flags & uint64(HF_CS64) != 0 else uint64(2) - (flags >> uint64(4) & uint64(1))


@native
def is_software(env: Word) -> Word:
    """Return 1 when the exception that is about to be delivered is INT n, INT3 or INTO."""
    return load64(env + load64(uint64(page.ERROR_CODE))) >> uint64(32) & uint64(1)


@native
def mend_error_code(env: Word, event: Word) -> None:
    """Give a fault of a delivery the manual's error code: a vector counts 8, not 16, and EXT is there.

    event: 1 when INT n was being delivered, 2 for anything else. Source: SDM vol. 3A, 6.13; the engine's do_interrupt64
    multiplies the vector by 16 and leaves EXT out.
    """
    place = env + load64(uint64(page.ERROR_CODE))
    word = load64(place)
    code = word & uint64(_LOW)
    if code & uint64(7) == _IDT and load64(env + uint64(HFLAGS)) & uint64(_HF_LMA) != 0:
        code = (code & ~uint64(7)) >> uint64(1) | uint64(_IDT)
    store64(place, (word & ~uint64(_LOW)) | code | event >> uint64(1))
