"""Guests that mean harm: each ends, or goes on, in a defined way, and the process lives."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from archlbr.machine.board import Board
from archlbr.machine.models import MODELS
from tests.machine import fuzz
from tests.machine.elf_image import elf

if TYPE_CHECKING:
    from pathlib import Path

CODE, IDT, HANDLER, STACK = 0x100000, 0x110000, 0x120000, 0x130000
LIDT = "0f011c25" + struct.pack("<I", IDT - 16).hex()


def machine(code: str, handler: str = "", stack: int = 0) -> tuple[Board, bytearray]:
    """A board at `code`, whose every exception leads to `handler`; stack: the gates' IST number."""
    console = bytearray()
    board = Board(MODELS["sapphire-rapids"], 64 << 20, console.append)
    for place, text in ((CODE, code), (HANDLER, handler)):
        content = bytes.fromhex(text)
        board.memory[place : place + len(content)] = content
    board.memory[IDT - 16 : IDT - 6] = struct.pack("<HQ", 0xFFF, IDT)
    for vector in range(32):
        gate = struct.pack("<HHBBHII", HANDLER & 0xFFFF, 0x10, stack, 0x8E, HANDLER >> 16, 0, 0)
        board.memory[IDT + 16 * vector : IDT + 16 * vector + 16] = gate
    board.start(CODE)
    return board, console


def test_a_triple_fault_is_told_from_a_halt() -> None:
    board, _ = machine("0f0b")
    assert (board.run(), board.cause) == (1, f"a triple fault at {CODE:#x}")
    board, _ = machine("fa f4")
    assert (board.run(), board.cause) == (0, "")


def test_spinning_with_interrupts_off_goes_on_until_the_clock_says() -> None:
    board, _ = machine("fa ebfe")
    assert board.run(10**6) is None
    assert 10**6 <= board.now() < 10**6 + 100


@pytest.mark.parametrize("target", [0x70000000, 0xFEE00000], ids=["an empty bus", "the local APIC"])
def test_code_where_no_memory_is_ends_the_machine(target: int) -> None:
    board, _ = machine("b8" + struct.pack("<I", target).hex() + "ffe0")  # mov eax, target; jmp rax
    assert board.run(10**6) == 1
    assert board.cause.endswith(f"at {target:#x}, where no memory is")


def test_data_where_no_memory_is_reads_as_ones() -> None:
    # mov eax, 70000000h; mov [rax], eax; mov al, [rax]; out 0f4h, al
    board, _ = machine("b800000070 8900 8a00 e6f4 ebfe")
    assert board.run(10**6) == 0xFF


def test_page_tables_where_no_memory_is_are_a_triple_fault() -> None:
    board, _ = machine(LIDT + "b800000070 0f22d8 9090")  # mov eax, 70000000h; mov cr3, rax
    assert board.run(10**6) == 1
    assert board.cause.startswith("a triple fault at ")


def test_a_flood_of_the_serial_port_arrives_whole() -> None:
    # mov dx, 3f8h; mov ecx, 50000; mov al, 'x'; out dx, al; loop; out 0f4h, al
    board, console = machine("66baf803 b950c30000 b078 ee e2fd e6f4 ebfe")
    assert board.run(10**9) == ord("x") << 1 & 0xFF | 1
    assert console == b"x" * 50_000


def test_a_fault_handler_that_faults_for_ever_does_not_stop_the_clock() -> None:
    # The task's IST 1 is the stack of every exception, and the gates lead where no page is: #PF after #PF, no block.
    task = CODE + 0x1000
    setup = LIDT + "0f011425" + struct.pack("<I", CODE + 0x2000).hex() + "b820000000 0f00d8 0f0b"  # lgdt; ltr; ud2
    board, _ = machine(setup)
    low = 0x890000000067 | (task & 0xFFFFFF) << 16 | task >> 24 << 56
    descriptors = struct.pack("<6Q", 0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, low, 0)
    board.memory[CODE + 0x3000 : CODE + 0x3000 + 48] = descriptors
    board.memory[CODE + 0x2000 : CODE + 0x200A] = struct.pack("<HQ", 47, CODE + 0x3000)
    board.memory[task + 36 : task + 44] = struct.pack("<Q", STACK)
    for vector in range(32):
        gate = struct.pack("<HHBBHII", 0, 0x10, 1, 0x8E, 0, 0x80, 0)  # at 8000000000H
        board.memory[IDT + 16 * vector : IDT + 16 * vector + 16] = gate
    assert board.run(10**6) is None
    assert (board.cause, board.now() >= 10**6) == ("", True)


def test_a_stack_of_a_task_that_is_not_there_is_a_triple_fault() -> None:
    for load in ("", "31c0 0f00d8"):  # xor eax, eax; ltr ax: no task at all
        board, _ = machine(LIDT + load + "0f0b", "b001 e6f4", stack=1)
        assert board.run(10**6) == 1
        assert board.cause.startswith("a triple fault at ")


def test_a_string_instruction_without_end_does_not_stop_the_clock() -> None:
    board, _ = machine("48c7c1ffffffff be00002000 bf00002000 f3ac e6f4")  # mov rcx, -1; rep lodsb
    assert board.run(10**6) is None
    assert board.now() >= 10**6


def test_every_register_with_random_values() -> None:
    # For each of 8192 registers from 0 and from C0000000H: WRMSR of the clock, times a constant; RDMSR. #GP goes on.
    # mov esp; lidt; xor esi, esi
    #   1: mov ecx, esi; bt esi, 13; jnc 2f; and ecx, 1fffh; or ecx, 0c0000000h
    #   2: cmp ecx, 0c0000080h; je 3f; cmp ecx, 1bh; je 3f; rdtsc; imul eax, eax, 9e3779b1h; mov edx, eax; wrmsr; rdmsr
    #   3: inc esi; cmp esi, 4000h; jb 1b; mov al, 1; out 0f4h, al. The handler: add rsp, 8; add qword [rsp], 2; iretq
    code = (
        "bc00001300" + LIDT + "31f6 89f1 0fbae60d 730c 81e1ff1f0000 81c9000000c0 81f9800000c0 7416 83f91b 7411"
        "0f31 69c0b179379e 89c2 0f30 0f32 9090 ffc6 81fe00400000 72c9 b001 e6f4 ebfe"
    )
    board, _ = machine(code, "4883c408 4883042402 48cf")
    assert (board.run(10**8), board.cause) == (3, "")


def test_code_that_patches_itself_and_spaces_that_share_an_address_have_exact_branches() -> None:
    # Two address spaces map 40000000H to two pages: JMP +0 and JMP +2, each then back by JMP RBX. After both, the
    # second page's displacement is patched through its other address, and it runs again.
    tables, shared = 0x200000, 0x40000000
    rows: list[tuple[int, int]] = []
    code = (
        "bc00001300" + "b800002000 0f22d8" + "bb19001000" + "b800000040" + "ffe0"
        + "b800002100 0f22d8" + "bb2d001000" + "b800000040" + "ffe0"
        + "c604250100400004" + "bb41001000" + "b800000040" + "ffe0" + "b001 e6f4 ebfe"
    )  # fmt: skip
    board, _ = machine(code)
    for table, page in ((tables, 0x3F0000), (tables + 0x10000, 0x400000)):
        board.memory[table : table + 8] = struct.pack("<Q", table + 0x1000 | 3)
        board.memory[table + 0x1000 : table + 0x1010] = struct.pack("<QQ", table + 0x2000 | 3, table + 0x3000 | 3)
        board.memory[table + 0x2000 : table + 0x2018] = struct.pack("<QQQ", 0x83, 0x200083, 0x400083)
        board.memory[table + 0x3000 : table + 0x3008] = struct.pack("<Q", table + 0x4000 | 3)
        board.memory[table + 0x4000 : table + 0x4008] = struct.pack("<Q", page | 3)
        body = bytes.fromhex("eb00" if page == 0x3F0000 else "eb02") + b"\x90" * 6 + b"\xff\xe3"  # jmp rbx
        board.memory[page : page + len(body)] = body
    board.trace(lambda found: rows.extend((int(source), int(target)) for source, target, _ in found))
    assert (board.run(10**6), board.cause) == (3, "")
    back = shared + 8
    assert rows == [
        (CODE + 0x17, shared), (shared, shared + 2), (back, CODE + 0x19),
        (CODE + 0x2B, shared), (shared, shared + 4), (back, CODE + 0x2D),
        (CODE + 0x3F, shared), (shared, shared + 6), (back, CODE + 0x41),
    ]  # fmt: skip


def test_a_few_rounds_of_random_code_and_registers() -> None:
    ended = [fuzz.apart(seed) for seed in range(1000, 1016)]
    assert all(isinstance(end, fuzz.Round) for end in ended), ended
    assert sum(end.instructions for end in ended if isinstance(end, fuzz.Round)) > 5_000
    assert sum(end.accesses for end in ended if isinstance(end, fuzz.Round)) > 100


def run(image: bytes, folder: Path, *arguments: str) -> tuple[int, bytes, str, float]:
    path = folder / "image"
    path.write_bytes(image)
    began = time.monotonic()
    command = [sys.executable, "-m", "archlbr", "run", "--kernel", str(path), *arguments]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr.decode(), time.monotonic() - began


def image_of(code: str) -> bytes:
    content = bytes.fromhex(code)
    return elf(size=len(content), taken=len(content))[:120] + content


def test_run_ends_with_one_line_where_the_machine_cannot_go_on(tmp_path: Path) -> None:
    status, out, err, _ = run(image_of("0f0b"), tmp_path)
    assert (status, out, err) == (1, b"", "archlbr: the machine ended: a triple fault at 0x100000\n")


def test_a_timeout_bounds_a_run(tmp_path: Path) -> None:
    status, out, err, _ = run(image_of("fa ebfe"), tmp_path, "--timeout", "1")
    assert (status, out, err) == (124, b"", "archlbr: the machine ran for 1 s without an end\n")


CRASHING = """
import os, signal, sys
from archlbr.cli import isolation
isolation.GRACE = 0.5 if sys.argv[1] == "hang" else 60.0
words = sys.argv[2:]
status = isolation.divide(words)
if status is None:
    folder = words[words.index("-o") + 1].rsplit("/", 1)[0]
    open(f"{folder}/.out.{os.getpid()}.tmp", "w").close()
    if sys.argv[1] == "hang":
        signal.pause()
    elif sys.argv[1] == "fine":
        os._exit(7)
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("how", "status", "line"),
    [
        ("SIGSEGV", 1, "archlbr: the engine died of SIGSEGV while guest code ran"),
        ("SIGABRT", 1, "archlbr: the engine died of SIGABRT while guest code ran"),
        ("SIGKILL", 137, ""),
        ("hang", 124, "archlbr: the machine ran for 0.5 s without an end"),
        ("fine", 7, ""),
    ],
)
def test_a_crash_of_the_engine_is_a_line_and_leaves_no_file(tmp_path: Path, how: str, status: int, line: str) -> None:
    words = [sys.executable, "-c", CRASHING, how, "run", "-o", str(tmp_path / "out"), "--timeout=0.5"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == bool(line)
    assert how == "fine" or os.listdir(tmp_path) == []
