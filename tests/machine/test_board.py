"""Small ring-0 programs on the board: the console, the way out, time, interrupts, LBR registers and counters."""

from __future__ import annotations

import gc
import struct
import weakref
from typing import TYPE_CHECKING

import pytest
from unicorn import UC_HOOK_BLOCK
from unicorn import x86_const as x86

from archlbr.arch.branches import BranchKind
from archlbr.cpu import words as at
from archlbr.errors import InputError
from archlbr.machine import boot
from archlbr.machine.board import Board
from archlbr.machine.models import MODELS, SAPPHIRE_RAPIDS, SKYLAKE_SERVER, Model, without
from tests.machine.ring0 import CODE, LIDT, LVTPC_NMI, OUT_F4, gate, machine, wrmsr

if TYPE_CHECKING:
    from archlbr.machine.vcpu import Vcpu

COUNT = 0x220000
# The 8259: vectors from 30H, IRQ 0 open. The 8254: channel 0 in mode 2, 10 ms.
PIC, PIT = "b011 e620 b030 e621 b004 e621 b001 e621 b0fe e621", "b034 e643 b09c e640 b02e e640"


def test_the_console_and_the_way_out() -> None:
    # mov dx, 3f8h; mov al, 'h'; out dx, al; mov al, 'i'; out dx, al; mov al, 5; out 0f4h, al; jmp $
    board, console = machine("66baf803 b068 ee b069 ee b005 e6f4 ebfe")
    assert (board.run(10**9), bytes(console)) == (11, b"hi")


def test_time_passes_with_instructions_and_in_hlt() -> None:
    # rdtsc; mov rbx, rax; jmp +0; nop x4; rdtsc; sub rax, rbx; out 0f4h, al
    board, _ = machine("0f31 4889c3 eb00 90909090 0f31 4829d8 e6f4 ebfe")
    status = board.run(10**9)
    assert status is not None
    assert status >> 1 == 3  # time is told at a block's start: RDTSC, MOV and JMP were the block before


def test_a_machine_that_nobody_has_any_more_gives_its_memory_back() -> None:
    # cpuid; mov ecx, 1d9h; rdmsr; wrmsr; hlt
    board, _ = machine("31c0 0fa2 b9d9010000 0f32 0f30 fa f4")
    assert board.run() == 0
    left = [weakref.ref(part) for part in (board, board.engine, board.uc, board.vcpu)]
    clock = weakref.ref(board.words)
    del board
    gc.collect()
    assert [ref() for ref in left] == [None] * 4
    assert clock() is not None  # where any engine's RDTSC reads, until the next machine runs
    assert machine("fa f4")[0].run() == 0
    gc.collect()
    assert clock() is None


def test_halting_for_good_ends_the_machine() -> None:
    board, _ = machine("fa f4")
    assert board.run() == 0


def test_a_timer_interrupt_goes_through_the_idt_and_back() -> None:
    # lidt; the 8259; PIT channel 0 in mode 2; sti; hlt; jmp to hlt. Handler: inc [COUNT]; eoi; iretq
    loop = "fb f4 833c25" + struct.pack("<I", COUNT).hex() + "03 75f4 b007 e6f4 ebfe"
    board, _ = machine(LIDT + PIC + PIT + loop)
    gate(board, 0x30, "ff0425" + struct.pack("<I", COUNT).hex() + "50 b020 e620 58 48cf")
    assert board.run(10**9) == 15
    assert struct.unpack_from("<I", board.memory, COUNT)[0] == 3
    assert 30_000_000 <= board.now() < 30_100_000


def test_hlt_is_no_branch_and_its_wakening_is_one() -> None:
    # The timer of the test above, with LBRs and a counter of branches on: sti; hlt; cmp [COUNT], 3; jne to sti.
    on = wrmsr(0x14CE, 0x7F0003) + wrmsr(0x186, 0x4200C4) + wrmsr(0x38F, 1)
    loop = "fb f4 833c25" + struct.pack("<I", COUNT).hex() + "03 75f4 b007 e6f4 ebfe"
    code = "ff0425" + struct.pack("<I", COUNT).hex() + "50 b020 e620 58 48cf"
    board, _ = machine(LIDT + PIC + PIT + on + loop)
    handler = gate(board, 0x30, code)
    assert board.run(10**9) == 15
    again = CODE + len(bytes.fromhex(LIDT + PIC + PIT + on))
    woken, jne, iretq = again + 2, again + 10, handler + len(bytes.fromhex(code)) - 2
    once = [(woken, handler, 8), (iretq, woken, 8)]
    back = [(jne, again, 0)]
    records = []
    for entry in range(32):
        source, target, info = (board.vcpu.rdmsr(base + entry) or 0 for base in (0x1500, 0x1600, 0x1200))
        records.append((source, target, info >> 56 & 15))
    assert records == (once + back + once + back + once)[::-1] + [(0, 0, 0)] * 24
    # Three IRETQs and three JNEs; the interrupts and HLT are no branch instructions.
    assert board.vcpu.rdmsr(0xC1) == 6


def test_lbr_records_of_ring_0_hold_what_ran() -> None:
    # CTL <- OS, all kinds, enabled; jmp +2; call +1 over a nop; then read FROM_0, TO_0 into r8, r9
    code = wrmsr(0x14CE, 0x7F0003) + "eb02 9090 e801000000 90 "
    read = "b900150000 0f32 4989c0 b900160000 0f32 4989c1 b901150000 0f32 4989c2 b000 e6f4 ebfe"
    board, _ = machine(code + read)
    assert board.run(10**9) == 1
    base = CODE + len(bytes.fromhex(wrmsr(0x14CE, 0)))
    seen = [board.uc.reg_read(getattr(x86, f"UC_X86_REG_R{index}")) for index in (8, 9, 10)]
    assert seen == [base + 4, base + 10, base]


def test_a_counter_overflows_into_an_nmi_and_freezes_the_lbrs() -> None:
    # A counter of near taken branches of ring 0, five before its end; the NMI handler writes GLOBAL_STATUS to F4H.
    counting = (
        wrmsr(0x1D9, 1 << 11) + wrmsr(0x14CE, 0x7F0003) + wrmsr(0x4C1, (1 << 48) - 5) + wrmsr(0x186, 0x5220C4)
        + wrmsr(0x38F, 1)
    )  # fmt: skip
    board, _ = machine(LIDT + LVTPC_NMI + counting + "ebfe")
    # rdmsr 38eh; shr edx, 26: LBR_FRZ; shl dl, 1; or al, dl; out 0f4h, al
    gate(board, 2, "b98e030000 0f32 c1ea1a d0e2 08d0 e6f4 ebfe")
    assert board.run(10**9) == 7  # bit 0: the counter; bit 1: LBR_FRZ; as QEMU shifts them for the exit status
    assert board.vcpu.rdmsr(0x1500) == board.vcpu.rdmsr(0x1600)  # the newest record is the JMP to itself, not the NMI


def test_a_timer_that_is_set_interrupts_code_that_never_halts() -> None:
    # The 8259, PIT channel 0 in mode 0 for 11932 ticks, 10 ms; sti; jmp $
    board, _ = machine(LIDT + PIC + "b030 e643 b09c e640 b02e e640 fb ebfe")
    gate(board, 0x30, "b003 e6f4 ebfe")
    assert board.run(10**9) == 7
    assert 10_000_000 <= board.now() < 10_001_000


@pytest.mark.parametrize("event", [0x5220C4, 0x5200C4])  # branches taken, branches
def test_a_pmi_comes_right_behind_the_branch_that_overflowed(event: int) -> None:
    # Twelve jumps, each over a byte to the next; the counter overflows with the fifth.
    counting = (
        wrmsr(0x1D9, 1 << 11) + wrmsr(0x14CE, 0x7F0003) + wrmsr(0x4C1, (1 << 48) - 5) + wrmsr(0x186, event)
        + wrmsr(0x38F, 1)
    )  # fmt: skip
    before = LIDT + LVTPC_NMI + counting
    board, _ = machine(before + "eb0190" * 12 + "ebfe")
    gate(board, 2, OUT_F4 + "ebfe")
    board.run(10**9)
    first = CODE + len(bytes.fromhex(before))
    (interrupted,) = struct.unpack_from("<Q", board.memory, board.uc.reg_read(x86.UC_X86_REG_RSP))
    assert interrupted == first + 5 * 3
    assert [board.vcpu.rdmsr(0x1500 + index) for index in range(3)] == [first + 3 * index for index in (4, 3, 2)]
    assert [board.vcpu.rdmsr(0x1600 + index) for index in range(3)] == [first + 3 * index for index in (5, 4, 3)]


def test_a_branch_to_where_no_page_is_has_happened_before_the_fault() -> None:
    # mov rax, 200000000H, above what is mapped; call rax. #PF goes on to its handler.
    before = LIDT + wrmsr(0x14CE, 0x7F0003) + "48b80000000002000000"
    board, _ = machine(before + "ffd0 ebfe")
    handler = gate(board, 14, OUT_F4 + "ebfe")
    board.run(10**9)
    call, nowhere = CODE + len(bytes.fromhex(before)), 0x2_0000_0000
    assert [board.vcpu.rdmsr(0x1500 + index) for index in range(3)] == [nowhere, call, 0]
    assert [board.vcpu.rdmsr(0x1600 + index) for index in range(2)] == [handler, nowhere]
    assert [board.vcpu.rdmsr(0x1200 + index) >> 56 & 0xF for index in range(2)] == [8, 3]  # other, indirect call


def test_a_trace_from_outside_has_the_branches_of_its_range() -> None:
    # jmp +1; call +1; jz +1, taken; jz +0, to its own successor and so untaken; int3. LBRs are off.
    board, _ = machine(LIDT + "eb0190 e80100000090 31c0 740190 7400 cc")
    start = CODE + len(bytes.fromhex(LIDT))
    handler = gate(board, 3, "eb00" + OUT_F4 + "ebfe")
    rows: list[list[int]] = []
    board.trace(lambda found: rows.extend(found.tolist()), start, start + 100)
    board.run(10**9)
    assert rows == [
        [start, start + 3, int(BranchKind.REL_JMP)],
        [start + 3, start + 9, int(BranchKind.REL_CALL)],
        [start + 11, start + 14, int(BranchKind.COND)],
        [start + 16, handler, int(BranchKind.OTHER)],
    ]


def test_the_longest_block_is_decoded_to_its_end() -> None:
    # 4,063 bytes, after which one more instruction has room: a jmp +0 of 15 bytes. The block lies on two pages.
    start = CODE + 4090
    board, _ = machine("b9" + struct.pack("<I", start).hex() + "ffe1")  # mov ecx, start; jmp rcx
    longest, rest = "66" * 6 + "2e0f1f840000000000", "0f1f80" + "00" * 4  # NOPs of 15 bytes and of 7
    code = bytes.fromhex(longest * 270 + rest + "0f1f4000" + "6690" + "2e" * 10 + "e900000000" + OUT_F4 + "ebfe")
    board.memory[start : start + len(code)] = code
    rows: list[list[int]] = []
    sizes: list[int] = []
    board.trace(lambda found: rows.extend(found.tolist()))
    board.uc.hook_add(UC_HOOK_BLOCK, lambda _uc, _address, size, _user: sizes.append(size))
    board.run(10**9)
    jump = start + 4063
    assert sizes[1] == 4078
    assert rows == [[CODE + 5, start, int(BranchKind.IND_JMP)], [jump, jump + 15, int(BranchKind.REL_JMP)]]
    assert board.words[at.RETIRED] == 2 + 270 + 3 + 1


@pytest.mark.parametrize("model", MODELS)
def test_a_debug_exception_clears_the_enable_bit_and_is_not_recorded(model: str) -> None:
    # The trap flag is set; the #DB after the NOP finds recording off. INT 1 is no #DB and leaves it on.
    architectural = model == "sapphire-rapids"
    on, read = (wrmsr(0x14CE, 0x7F0003), "b9ce140000") if architectural else (wrmsr(0x1D9, 1), "b9d9010000")
    trap = "9c 810c2400010000 9d 90"  # pushfq; or dword [rsp], 100h; popfq; nop
    for cause, bit in ((trap, 0), ("cd01", 1)):
        board, _ = machine(LIDT + on + "eb00" + cause + "ebfe", model)
        handler = gate(board, 1, read + "0f32 2401 e6f4 ebfe")  # rdmsr; and al, 1; out 0f4h, al
        assert board.run(10**9) == bit << 1 | 1
        newest = 0x1600 if architectural else 0x6C0 + (board.vcpu.rdmsr(0x1C9) or 0)
        assert (board.vcpu.rdmsr(newest) == handler) == bool(bit)


@pytest.mark.parametrize(
    ("instruction", "vector"),
    [
        ("480fc72f", 6),  # xsaves64 [rdi]: CR4.OSXSAVE is 0, as for those below
        ("480fc71f", 6),  # xrstors64 [rdi]
        ("480fae27", 6),  # xsave64 [rdi]
        ("480fae2f", 6),  # xrstor64 [rdi]
        ("0f01d0", 6),  # xgetbv
        ("0f01d1", 6),  # xsetbv
        ("0f05", 6),  # syscall, which IA32_EFER does not enable
        ("0f01c1", 6),  # vmcall
        ("b963000000 0f33", 13),  # rdpmc of no counter
        ("b9c9010000 0f32", 13),  # rdmsr of MSR_LASTBRANCH_TOS
    ],
)
def test_an_instruction_that_cannot_be_executed_faults_at_itself_and_is_recorded(instruction: str, vector: int) -> None:
    rows: list[tuple[int, int, int]] = []
    board, _ = machine(LIDT + "bf00003000" + instruction + "b04d e6f4 ebfe")
    handler = gate(board, vector, "b021 e6f4 ebfe")
    board.trace(lambda found: rows.extend((int(a), int(b), int(c)) for a, b, c in found))
    assert board.run(10**6) == 0x21 << 1 | 1
    site = CODE + 13 + (5 if vector == 13 else 0)
    assert rows == [(site, handler, 7)]


def test_without_arch_lbr_its_registers_fault_and_cpuid_hides_it() -> None:
    def vcpu(model: Model) -> Vcpu:
        return Board(model, 64 << 20, bytearray().append).vcpu

    whole, hidden = vcpu(SAPPHIRE_RAPIDS), vcpu(without(SAPPHIRE_RAPIDS, "arch-lbr"))
    assert (whole.cpuid(7, 0)[3] >> 19 & 1, whole.rdmsr(0x14CE)) == (1, 0)
    assert (hidden.cpuid(7, 0)[3] >> 19 & 1, hidden.rdmsr(0x14CE), hidden.wrmsr(0x14CE, 1)) == (0, None, False)
    assert hidden.state.rules.why == "CPUID.7.EDX[19] is 0"
    without_pmu = vcpu(without(SKYLAKE_SERVER, "pmu"))
    assert without_pmu.cpuid(0xA, 0) == (0, 0, 0, 0)
    assert without_pmu.cpuid(1, 0)[2] >> 15 & 1 == 0
    assert without_pmu.rdmsr(0x38F) is None


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "this is no Linux bzImage (no HdrS at 202H); give a vmlinuz"),
        (
            bytes(0x202) + b"HdrS" + bytes(0x100),
            "boot protocol 0x0 has no 64-bit entry; give a 64-bit kernel of 3.8 or newer",
        ),
    ],
)
def test_what_is_no_kernel_is_refused(image: bytes, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        boot.load_linux(memoryview(bytearray(1 << 20)), image, b"", "")
    assert str(caught.value) == reason


def test_rdtscp_reads_the_model_s_clock_and_tsc_aux() -> None:
    # IA32_TSC_AUX <- 7; jmp +0; rdtscp
    board, _ = machine(wrmsr(0xC0000103, 7) + "eb00 0f01f9 4889c3 b000 e6f4 ebfe")
    assert board.run(10**9) == 1
    assert [board.uc.reg_read(register) for register in (x86.UC_X86_REG_RBX, x86.UC_X86_REG_RCX)] == [5, 7]


@pytest.mark.parametrize("instruction", ["480fc7f0", "480fc7f8"])  # rdrand rax; rdseed rax
def test_there_is_no_random_number_so_that_a_run_repeats(instruction: str) -> None:
    # stc; rdrand rax; setc cl
    board, _ = machine(f"f9 {instruction} 0f92c1 4889c3 b000 e6f4 ebfe")
    assert board.run(10**9) == 1
    assert board.uc.reg_read(x86.UC_X86_REG_RBX) == 0
    assert board.uc.reg_read(x86.UC_X86_REG_RCX) & 0xFF == 0


def test_hlt_sleeps_on_when_the_run_stops_and_begins_again() -> None:
    # The 8254 in mode 2, 10 ms; sti; hlt; out 0f4h, 5: it wakes at 10 ms, whoever stops it before.
    board, _ = machine(LIDT + PIC + PIT + "fb f4 b005 e6f4 ebfe")
    gate(board, 0x30, "48cf")
    stops = 0
    while board.run(board.now() + 1_000_000) is None:
        stops += 1
    assert (board.status, stops) == (11, 10)
    assert 10_000_000 < board.now() < 10_001_000


@pytest.mark.parametrize("model", [SAPPHIRE_RAPIDS, SKYLAKE_SERVER], ids=lambda model: model.name)
def test_cpuid_offers_rdtscp_and_no_events_of_a_cache_that_is_not_there(model: Model) -> None:
    # mov eax, LEAF; cpuid; mov eax, REGISTER; out 0f4h, eax's byte 0 after a shift
    for leaf, register, shift, wanted in ((0xA, "89d8", 0, 0b11000), (0x80000001, "89d0", 27, 0b101)):
        code = "b8" + struct.pack("<I", leaf).hex() + f"31c9 0fa2 {register} c1e8{shift:02x}" + OUT_F4 + "ebfe"
        board, _ = machine(code, model.name)
        assert board.run(10**6) == (wanted << 1 | 1) & 0xFF
