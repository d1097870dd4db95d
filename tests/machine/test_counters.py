"""The counters of a guest on the board: what they count, overflow, the PMI and where it comes, what it freezes.

The expected numbers are counted by hand from the programs' instructions. Counting goes block by block, so each program
begins and ends what is counted at a block's edge (a JMP to the next instruction).
"""

from __future__ import annotations

import pytest
from unicorn import x86_const as x86

from archlbr.lbr.state import recording
from archlbr.machine.models import MODELS
from archlbr.vpmu.designs.hypervisors import HYPERVISORS
from tests.machine.ring0 import CODE, LIDT, LVTPC_NMI, gate, machine, wrmsr

EDGE = "eb00"  # jmp $+2
PMC0, A_PMC0, EVTSEL0, FIXED0 = 0xC1, 0x4C1, 0x186, 0x309
DEBUGCTL, LBR_CTL, FIXED_CTRL, STATUS, CTRL, STATUS_RESET = 0x1D9, 0x14CE, 0x38D, 0x38E, 0x38F, 0x390
OS, USR, INT, EN = 1 << 17, 1 << 16, 1 << 20, 1 << 22
INSTRUCTIONS, CYCLES, BRANCHES, TAKEN, MISPREDICTED = 0xC0, 0x3C, 0xC4, 0x20C4, 0xC5
FULL = 1 << 48
EXIT = "e6f4 ebfe"  # out 0f4h, al
FROM_0, TO_0 = 0x1500, 0x1600
# mov ecx, 10; a block edge; dec ecx; jnz: 20 instructions, 10 branches of which 9 are taken.
LOOP = "b90a000000" + EDGE + "ffc9 75fc"


@pytest.mark.parametrize(
    ("event", "counted"),
    [
        # The edge before the loop is counted with its block; so is the one after it, to which the last JNZ falls.
        (INSTRUCTIONS, 1 + 1 + 20 + 1),
        (0x01C0, 1 + 1 + 20 + 1),
        (CYCLES, 1 + 1 + 20 + 1),
        (BRANCHES, 1 + 10 + 1),
        (TAKEN, 1 + 9 + 1),
        (0xFF, 0),  # an event that the model does not have
    ],
)
def test_a_counter_counts_what_its_event_says(event: int, counted: int) -> None:
    start = wrmsr(EVTSEL0, event | OS | EN) + wrmsr(CTRL, 1) + EDGE
    board, _ = machine(start + LOOP + EDGE + wrmsr(CTRL, 0) + "b000" + EXIT)
    assert board.run(10**9) == 1
    # The block that ends with the first edge holds the WRMSR that enables, so it counts too: 1 branch, 7 instructions
    # (two WRMSR of three MOVs, of which GLOBAL_CTRL's is the last before the edge).
    first = {BRANCHES: 1, TAKEN: 1}.get(event, 0 if event == 0xFF else 9)
    assert board.vcpu.rdmsr(PMC0) == counted + first


def test_fixed_counters_count_instructions_and_cycles() -> None:
    start = wrmsr(FIXED_CTRL, 0x111) + wrmsr(CTRL, 7 << 32) + EDGE
    board, _ = machine(start + LOOP + EDGE + wrmsr(CTRL, 0) + "b000" + EXIT)
    assert board.run(10**9) == 1
    assert [board.vcpu.rdmsr(FIXED0 + x) for x in range(4)] == [32, 32, 32, 0]
    assert board.vcpu.rdpmc(1 << 30) == 32


def test_rings_are_told_apart() -> None:
    start = wrmsr(EVTSEL0, INSTRUCTIONS | USR | EN) + wrmsr(EVTSEL0 + 1, INSTRUCTIONS | OS | EN) + wrmsr(CTRL, 3) + EDGE
    board, _ = machine(start + LOOP + EDGE + wrmsr(CTRL, 0) + "b000" + EXIT)
    assert board.run(10**9) == 1
    assert (board.vcpu.rdmsr(PMC0), board.vcpu.rdmsr(PMC0 + 1)) == (0, 36)


@pytest.mark.parametrize("model", MODELS)
def test_an_overflow_wraps_and_sets_its_bit_and_without_int_nothing_else(model: str) -> None:
    start = wrmsr(A_PMC0, FULL - 5) + wrmsr(EVTSEL0, BRANCHES | OS | EN) + wrmsr(CTRL, 1) + EDGE
    board, _ = machine(LIDT + LVTPC_NMI + start + LOOP + EDGE + wrmsr(CTRL, 0) + "b000" + EXIT, model)
    gate(board, 2, "b001" + EXIT)
    assert board.run(10**9) == 1
    assert (board.vcpu.rdmsr(PMC0), board.vcpu.rdmsr(STATUS)) == (8, 1)
    assert board.vcpu.wrmsr(STATUS_RESET, 1)
    assert board.vcpu.rdmsr(STATUS) == 0


@pytest.mark.parametrize(("event", "before"), [(BRANCHES, 6), (TAKEN, 6)])
def test_a_pmi_of_a_branch_counter_comes_before_the_next_block(event: int, before: int) -> None:
    # An endless loop of one branch: mov ebx, 0; loop: inc ebx; jmp loop. The handler's EBX says how many ran.
    start = wrmsr(A_PMC0, FULL - before) + wrmsr(EVTSEL0, event | OS | INT | EN) + wrmsr(CTRL, 1) + "bb00000000" + EDGE
    board, _ = machine(LIDT + LVTPC_NMI + start + "ffc3 ebfc")
    gate(board, 2, "88d8" + EXIT)  # mov al, bl
    # The edge is the first branch; the five after it are the loop's: no skid.
    assert board.run(10**9) == (before - 1) << 1 | 1


def test_a_pmi_of_an_instruction_counter_comes_at_the_end_of_its_block() -> None:
    # The same loop with seven more instructions in the block: inc ebx; nop x 7; jmp. 100 instructions are reached in
    # a block's middle; the PMI comes at its end: the skid is the rest of the block, less than 9 instructions.
    start = wrmsr(EVTSEL0, INSTRUCTIONS | OS | INT | EN) + "bb00000000" + EDGE
    start += wrmsr(A_PMC0, FULL - 100) + wrmsr(CTRL, 1) + EDGE
    board, _ = machine(LIDT + LVTPC_NMI + start + "ffc3 90909090909090 ebf5")
    gate(board, 2, "88d8" + EXIT)
    # The block of the two WRMSRs and their edge counts 9 instructions; 11 blocks of 9 make 108.
    assert board.run(10**9) == 11 << 1 | 1
    assert board.vcpu.rdmsr(PMC0) == 8


# Seven rounds: mov edx, 15; mov ecx, 7; mov ebx, 0; an edge; loop: inc ebx; shr edx, 1; jc L; nop; L: dec ecx; jnz.
# JC goes TTTTNNN, JNZ TTTTTTN. By the rules of decision 011, a two-bit counter each that starts at "not taken", JC is
# missed in rounds 1, 2, 5 and 6, JNZ in 1, 2 and 7: three of the seven fall through. Where the guest goes on, in order:
ROUNDS = "ba0f000000 b907000000 bb00000000" + EDGE + "ffc3 d1ea 7201 90 ffc9 75f5"
MISSES = [("L", 1), ("loop", 1), ("L", 2), ("loop", 2), ("nop", 5), ("nop", 6), ("end", 7)]


def test_a_missed_branch_counts_whether_it_is_taken_or_not() -> None:
    start = wrmsr(EVTSEL0, MISPREDICTED | OS | EN) + wrmsr(CTRL, 1)
    # After the last miss comes a block that ends in no branch: mov rax, cr3; mov cr3, rax.
    board, _ = machine(start + ROUNDS + "0f20d8 0f22d8" + EDGE + wrmsr(CTRL, 0) + "b000" + EXIT)
    assert board.run(10**9) == 1
    assert board.vcpu.rdmsr(PMC0) == len(MISSES)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("period", range(1, len(MISSES) + 1))
def test_a_counter_of_missed_branches_interrupts_right_after_one(period: int, model: str) -> None:
    start = wrmsr(A_PMC0, FULL - period) + wrmsr(EVTSEL0, MISPREDICTED | OS | INT | EN) + wrmsr(CTRL, 1)
    code = LIDT + LVTPC_NMI + start + ROUNDS
    board, _ = machine(code + EDGE + "b07f" + EXIT, model)
    gate(board, 2, "488b3424 88d8" + EXIT)  # mov rsi, [rsp]: where the NMI came; mov al, bl
    end = CODE + len(bytes.fromhex(code))
    places = {"loop": end - 11, "nop": end - 5, "L": end - 4, "end": end}
    place, rounds = MISSES[period - 1]
    assert board.run(10**9) == rounds << 1 | 1
    assert board.uc.reg_read(x86.UC_X86_REG_RSI) == places[place]


def test_the_newest_record_at_a_missed_taken_branch_says_so() -> None:
    start = wrmsr(DEBUGCTL, 1 << 11) + wrmsr(LBR_CTL, 0x7F0003) + wrmsr(A_PMC0, FULL - 4)
    start += wrmsr(EVTSEL0, MISPREDICTED | OS | INT | EN) + wrmsr(CTRL, 1)
    code = LIDT + LVTPC_NMI + start + ROUNDS
    board, _ = machine(code + EDGE + "b07f" + EXIT)
    gate(board, 2, "b000" + EXIT)
    assert board.run(10**9) == 1
    end = CODE + len(bytes.fromhex(code))
    read = [[board.vcpu.rdmsr(base + entry) or 0 for base in (FROM_0, TO_0, 0x1200)] for entry in range(6)]
    jc, jnz, loop, edge = (end - 7, end - 4), (end - 2, end - 11), end - 11, end - 13
    assert [(source, target, info >> 63) for source, target, info in read] == [
        (*jnz, 1), (*jc, 1), (*jnz, 1), (*jc, 1), (edge, loop, 0), (0, 0, 0)
    ]  # fmt: skip


def test_freezing_the_lbrs_keeps_the_newest_branch_and_the_status_thaws() -> None:
    start = wrmsr(DEBUGCTL, 1 << 11) + wrmsr(LBR_CTL, 0x7F0003) + wrmsr(A_PMC0, FULL - 6)
    start += wrmsr(EVTSEL0, TAKEN | OS | INT | EN) + wrmsr(CTRL, 1) + EDGE
    code = LIDT + LVTPC_NMI + start
    board, _ = machine(code + "ebfe")
    loop = CODE + len(bytes.fromhex(code))
    gate(board, 2, EDGE * 3 + "b000" + EXIT)
    assert board.run(10**9) == 1
    vcpu = board.vcpu
    assert vcpu.rdmsr(STATUS) == 1 << 58 | 1
    assert [vcpu.rdmsr(FROM_0), vcpu.rdmsr(TO_0), vcpu.rdmsr(LBR_CTL)] == [loop, loop, 0x7F0003]
    assert [vcpu.rdmsr(FROM_0 + 4), vcpu.rdmsr(FROM_0 + 5)] == [loop, loop - 2]  # five of the loop, and the edge
    assert vcpu.wrmsr(STATUS_RESET, 1 << 58 | 1)
    assert vcpu.rdmsr(STATUS) == 0
    assert recording(vcpu.platform.facility, vcpu.fetched().lbr) == 1


@pytest.mark.parametrize("model", MODELS)
def test_freezing_the_counters_stops_them_until_the_status_is_reset(model: str) -> None:
    start = wrmsr(DEBUGCTL, 1 << 12) + wrmsr(FIXED_CTRL, 1) + wrmsr(A_PMC0, FULL - 6)
    start += wrmsr(EVTSEL0, TAKEN | OS | INT | EN) + wrmsr(CTRL, 1 | 1 << 32) + EDGE
    board, _ = machine(LIDT + LVTPC_NMI + start + "ebfe", model)
    gate(board, 2, EDGE * 3 + wrmsr(STATUS_RESET, 1 << 59) + EDGE + EDGE + wrmsr(CTRL, 0) + "b000" + EXIT)
    assert board.run(10**9) == 1
    # At the PMI the counter is 0. The handler's three edges count nothing, the two after the reset do.
    assert board.vcpu.rdmsr(STATUS) == 1
    assert board.vcpu.rdmsr(PMC0) == 2


def test_a_full_width_write_and_a_narrow_one() -> None:
    board, _ = machine("f4")
    vcpu = board.vcpu
    assert vcpu.wrmsr(A_PMC0, FULL - 1)
    assert vcpu.rdmsr(PMC0) == FULL - 1
    assert vcpu.wrmsr(PMC0, 0x8000_0000)  # sign-extended from 32 bits
    assert vcpu.rdmsr(A_PMC0) == FULL - 0x8000_0000
    assert vcpu.wrmsr(A_PMC0, FULL) is False


def test_series_v2_shows_a_pmu_of_version_2_whose_pmi_clears_lbren() -> None:
    start = wrmsr(DEBUGCTL, 1 << 11) + wrmsr(LBR_CTL, 0x7F0003) + wrmsr(A_PMC0, FULL - 6)
    start += wrmsr(EVTSEL0, TAKEN | OS | INT | EN) + wrmsr(CTRL, 1) + EDGE
    code = LIDT + LVTPC_NMI + start
    board, _ = machine(code + "ebfe", hypervisor=HYPERVISORS["series-v2"])
    gate(board, 2, EDGE * 3 + "b000" + EXIT)
    assert board.run(10**9) == 1
    assert board.vcpu.cpuid(0xA, 0)[0] & 0xFF == 2
    assert (board.vcpu.rdmsr(STATUS), board.vcpu.rdmsr(LBR_CTL)) == (1, 0x7F0002)
    loop = CODE + len(bytes.fromhex(code))
    assert (board.vcpu.rdmsr(FROM_0), board.vcpu.rdmsr(TO_0)) == (loop, loop)
