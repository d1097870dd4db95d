"""Ring-0 code on the engine: register accesses reach the handler, faults go through the guest's IDT."""

from __future__ import annotations

import gc
import struct

import pytest
from unicorn import x86_const as x86

from archlbr.cpu.unicorn import page
from archlbr.cpu.unicorn.supervisor import ENGINES_OWN, SupervisorEngine

GDT, IDT, HANDLERS, ENTRY, CODE, STACK = 0x1000, 0x2000, 0x5000, 0x3000, 0x4000, 0x9000
NOWHERE = 0xFFFF_FFF0


class Registers:
    """A handler that knows one register, one counter and one instruction, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def rdmsr(self, msr: int) -> int | None:
        self.asked.append(("rdmsr", msr))
        if msr == 0xC0000082:
            return ENGINES_OWN
        return 0x12345678_9ABCDEF0 if msr == 0x14CE else None

    def wrmsr(self, msr: int, value: int) -> bool | int:
        self.asked.append(("wrmsr", msr, value))
        return ENGINES_OWN if msr == 0xC0000082 else msr == 0x14CE

    def rdpmc(self, counter: int) -> int | None:
        self.asked.append(("rdpmc", counter))
        if counter == 7:
            raise ZeroDivisionError
        return 0xAB_0000_0005 if counter == 0 else None

    def execute(self, rip: int) -> int:
        self.asked.append(("execute", rip))
        return {CODE: 4, CODE + 2: -13}.get(rip, 0)


@pytest.fixture
def registers() -> Registers:
    return Registers()


@pytest.fixture
def engine(registers: Registers) -> SupervisorEngine:
    machine = SupervisorEngine(registers, lambda leaf, subleaf: (leaf + 1, subleaf + 2, 3, 4))
    uc = machine.uc
    uc.mem_map(0, 0x10000)
    descriptors = struct.pack("<4Q", 0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF)
    uc.mem_write(GDT, descriptors)
    uc.reg_write(x86.UC_X86_REG_GDTR, (0, GDT, len(descriptors) - 1, 0))
    for vector in range(32):
        handler = HANDLERS + 32 * vector
        gate = struct.pack("<HHBBHII", handler & 0xFFFF, 0x10, 0, 0x8E, handler >> 16, 0, 0)
        uc.mem_write(IDT + 16 * vector, gate)
        # mov r15, vector; (pop r14: the error code); pop r13: RIP; hlt
        code = b"\x49\xc7\xc7" + struct.pack("<I", vector) + (b"\x41\x5e" if vector == 13 else b"") + b"\x41\x5d\xf4"
        uc.mem_write(handler, code)
    uc.reg_write(x86.UC_X86_REG_IDTR, (0, IDT, 32 * 16 - 1, 0))
    uc.mem_write(ENTRY, b"\x48\xcf")  # iretq
    uc.mem_write(0x8000, struct.pack("<5Q", CODE, 0x10, 2, STACK, 0x18))
    uc.reg_write(x86.UC_X86_REG_RSP, 0x8000)
    uc.reg_write(x86.UC_X86_REG_R14, 0x99)
    return machine


def run(engine: SupervisorEngine, code: str) -> dict[str, int]:
    engine.uc.mem_write(CODE, bytes.fromhex(code) + b"\xf4")
    engine.run(ENTRY, NOWHERE)
    names = ("RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "R13", "R14", "R15")
    return {name: engine.uc.reg_read(getattr(x86, f"UC_X86_REG_{name}")) for name in names}


def test_rdmsr_splits_a_register_over_edx_and_eax(engine: SupervisorEngine, registers: Registers) -> None:
    after = run(engine, "b9ce140000 0f32")
    assert (after["RDX"], after["RAX"], after["R15"]) == (0x12345678, 0x9ABCDEF0, 0)
    assert registers.asked == [("rdmsr", 0x14CE)]


def test_wrmsr_joins_edx_and_eax(engine: SupervisorEngine, registers: Registers) -> None:
    # mov rax, -1; mov edx, 5; mov ecx, 14ceh; wrmsr: the upper halves of RAX and RDX do not count
    assert run(engine, "48c7c0ffffffff ba05000000 b9ce140000 0f30")["R15"] == 0
    assert registers.asked == [("wrmsr", 0x14CE, 0x5_FFFF_FFFF)]


@pytest.mark.parametrize(("instruction", "ecx"), [("0f32", 0x14CF), ("0f30", 0x14CF), ("0f33", 3)])
def test_a_refused_access_is_a_fault_at_the_instruction(engine: SupervisorEngine, instruction: str, ecx: int) -> None:
    after = run(engine, "b9" + struct.pack("<I", ecx).hex() + instruction)
    assert (after["R15"], after["R14"], after["R13"]) == (13, 0, CODE + 5)


def test_a_register_of_the_engine_stays_the_engines(engine: SupervisorEngine, registers: Registers) -> None:
    # IA32_LSTAR <- 0x7_FFFF_0000, and back
    after = run(engine, "b80000ffff ba07000000 b9820000c0 0f30 31c0 31d2 0f32")
    assert (after["RDX"], after["RAX"], after["R15"]) == (7, 0xFFFF0000, 0)
    assert registers.asked == [("wrmsr", 0xC0000082, 0x7_FFFF_0000), ("rdmsr", 0xC0000082)]


def test_rdpmc_reads_a_counter(engine: SupervisorEngine, registers: Registers) -> None:
    after = run(engine, "31c9 0f33")
    assert (after["RDX"], after["RAX"]) == (0xAB, 5)
    assert registers.asked == [("rdpmc", 0)]


def test_an_unknown_instruction_is_executed_by_the_handler(engine: SupervisorEngine, registers: Registers) -> None:
    after = run(engine, "0fc72f 90")  # XSAVES [rdi], and one byte that the handler's length steps over
    assert after["R15"] == 0
    assert registers.asked == [("execute", CODE)]


def test_an_unknown_instruction_may_fault_at_itself(engine: SupervisorEngine, registers: Registers) -> None:
    after = run(engine, "9090 480fc72f")  # XSAVES64 [rdi], refused with #GP(0)
    assert (after["R15"], after["R14"], after["R13"]) == (13, 0, CODE + 2)
    assert registers.asked == [("execute", CODE + 2)]


def test_an_undefined_instruction_goes_through_the_idt(engine: SupervisorEngine, registers: Registers) -> None:
    after = run(engine, "90 0f0b")
    assert (after["R15"], after["R13"]) == (6, CODE + 1)
    assert registers.asked == [("execute", CODE + 1)]


def test_cpuid_is_answered_by_the_function(engine: SupervisorEngine) -> None:
    after = run(engine, "b81c000000 b901000000 0fa2")
    assert (after["RAX"], after["RBX"], after["RCX"], after["RDX"]) == (0x1D, 3, 3, 4)


def test_what_the_handler_raises_is_raised_when_the_engine_stops(engine: SupervisorEngine) -> None:
    with pytest.raises(ZeroDivisionError):
        run(engine, "b907000000 0f33")


def test_two_engines_ask_their_own_handlers(engine: SupervisorEngine, registers: Registers) -> None:
    other = Registers()
    second = SupervisorEngine(other, lambda leaf, subleaf: (0, 0, 0, 0))
    second.uc.mem_map(CODE, 0x1000)
    second.uc.mem_write(CODE, bytes.fromhex("b9cf140000 0f32"))
    second.run(CODE, CODE + 7)
    assert (registers.asked, other.asked) == ([], [("rdmsr", 0x14CF)])
    del second
    gc.collect()
    run(engine, "b9ce140000 0f32")
    assert (registers.asked, other.asked) == ([("rdmsr", 0x14CE)], [("rdmsr", 0x14CF)])


def test_no_two_words_of_the_shared_page_are_one() -> None:
    words = [value for name, value in vars(page).items() if isinstance(value, int) and name not in ("AT", "SIZE")]
    assert len(set(words)) == len(words) > 20
    assert set(words) <= set(range(page.AT, page.AT + page.SIZE, 8))
