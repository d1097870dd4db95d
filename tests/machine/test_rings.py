"""A kernel of two rings: each way between them with its exact record, and its whole trace beside QEMU's."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from archlbr.arch.branches import BR_TYPE, BranchKind
from archlbr.machine.board import Board
from archlbr.machine.models import MODELS
from tests.guests.images import build, needs_compiler, symbols
from tests.machine.stepped import branches, needs_qemu

if TYPE_CHECKING:
    from pathlib import Path

ALL_ONES = (1 << 64) - 1

# What rings.S does once, by its labels, in program order: from, to, kind.
ONCE = [
    ("f_iret", "user", "OTHER"),
    ("f_jump", "t_jump", "REL_JMP"),
    ("f_indirect", "t_indirect", "IND_JMP"),
    ("f_call", "leaf", "REL_CALL"),
    ("f_ret", "t_ret", "RET"),
    ("f_icall", "leaf", "IND_CALL"),
    ("f_ret", "t_iret", "RET"),
    ("f_cond", "t_cond", "COND"),
    ("f_syscall", "entry", "OTHER"),
    ("f_sysret", "t_sysret", "OTHER"),
    ("f_int3", "breakpoint", "OTHER"),
    ("f_int3_back", "t_int3", "OTHER"),
    ("f_ud", "invalid", "OTHER"),
    ("f_ud_back", "t_ud", "OTHER"),
    ("f_page", "page", "OTHER"),
    ("f_page_back", "t_page", "OTHER"),
    ("f_gate", "protection", "OTHER"),
    ("f_which", "t_which", "COND"),
    ("f_gate_back", "t_gate", "OTHER"),
    ("f_priv", "protection", "OTHER"),
    ("f_priv_back", "t_priv", "OTHER"),
    ("f_far", "t_far", "OTHER"),
    ("f_ljmp", "t_ljmp", "OTHER"),
    ("f_loop", "f_loop", "COND"),
    ("f_loop", "f_loop", "COND"),
    ("f_last", "entry", "OTHER"),
    ("f_leaving", "t_leaving", "COND"),
    ("f_double", "double", "OTHER"),
]
IN_RING_0 = {"f_iret", "f_sysret", "f_int3_back", "f_ud_back", "f_page_back", "f_which", "f_gate_back", "f_priv_back",
             "f_leaving", "f_double", "entry", "breakpoint", "invalid", "page", "protection", "t_which", "t_leaving",
             "double"}  # fmt: skip


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("rings"), "rings", "flat.S", "rings.S")


def run(image: Path, word: str) -> tuple[Board, list[tuple[int, int, str]]]:
    """Boot the image; the machine, and the branches from the first entry to ring 3 to the last double fault."""
    rows: list[tuple[int, int, str]] = []
    board = Board(MODELS["sapphire-rapids"], 64 << 20, lambda _byte: None)
    board.start_image(image.read_bytes(), "rings", b"", word)
    board.trace(lambda found: rows.extend((source, target, BranchKind(kind).name) for source, target, kind in found))
    assert board.run(10**8) is not None
    first = [row[0] for row in rows].index(symbols(image)["f_iret"])
    return board, rows[first:]


def at(image: Path, labels: list[tuple[str, str, str]]) -> list[tuple[int, int, str]]:
    places = symbols(image)
    return [(places[source], places[target], kind) for source, target, kind in labels]


def records(board: Board) -> list[tuple[int, int, int]]:
    """The LBR registers, oldest first: FROM, TO, BR_TYPE."""
    read = [[board.vcpu.rdmsr(base + entry) or 0 for base in (0x1500, 0x1600, 0x1200)] for entry in range(32)]
    return [(source, target, info >> 56 & 15) for source, target, info in reversed(read) if target]


@needs_compiler
def test_each_way_between_the_rings_is_one_exact_branch(image: Path) -> None:
    board, rows = run(image, "once")
    assert board.status == 3 << 1 | 1
    assert rows[: len(ONCE)] == at(image, ONCE)
    expected = [(source, target, BR_TYPE[BranchKind[kind]]) for source, target, kind in at(image, ONCE)]
    assert records(board)[-len(ONCE) :] == expected


@needs_compiler
@pytest.mark.parametrize(("word", "rings"), [("kernel", (0,)), ("user", (3,))])
def test_a_ring_that_is_filtered_out_leaves_no_address(image: Path, word: str, rings: tuple[int, ...]) -> None:
    board, _ = run(image, word)
    expected = []
    for labels, (source, target, kind) in zip(ONCE, at(image, ONCE), strict=True):
        of, into = (0 if label in IN_RING_0 else 3 for label in labels[:2])
        if into in rings:
            expected.append((source if of in rings else ALL_ONES, target, BR_TYPE[BranchKind[kind]]))
    assert 0 < len(expected) < len(ONCE)
    assert records(board)[-len(expected) :] == expected


@needs_compiler
def test_an_nmi_comes_at_the_next_block_on_a_stack_of_its_own(image: Path) -> None:
    board, rows = run(image, "nmi")
    sent = [
        ("f_toblock", "t_toblock", "REL_JMP"),
        ("t_toblock", "nmi", "OTHER"),
        ("f_nmi_back", "t_toblock", "OTHER"),
        ("f_sysret2", "t_sysret", "OTHER"),
    ]
    begin = rows.index(at(image, sent[:1])[0])
    assert rows[begin : begin + 4] == at(image, sent)
    places = symbols(image)
    assert struct.unpack_from("<I", board.memory, places["count"])[0] == 1
    # The frame that the NMI left: RIP, CS, RFLAGS, RSP, SS. RSP is the user's, since SYSCALL changes no stack.
    frame = struct.unpack_from("<5Q", board.memory, places["ist_top"] - 40)
    assert (board.status, frame[4]) == (7, 0x10)


@needs_compiler
def test_a_triple_fault_ends_the_machine(image: Path) -> None:
    board, rows = run(image, "triple")
    assert (board.status, board.cause) == (1, f"a triple fault at {symbols(image)['f_double']:#x}")
    assert rows[-1] == at(image, ONCE[-2:])[0]


@needs_compiler
@needs_qemu
def test_the_whole_trace_is_the_one_that_qemu_steps(image: Path, tmp_path: Path) -> None:
    places = symbols(image)
    stepped = branches(image, "many", tmp_path, places["f_iret"], places["finish"])
    board, rows = run(image, "many")
    end = max(index for index, row in enumerate(rows) if row[1] == places["finish"])
    assert len(stepped) > 12_000
    assert rows[: end + 1] == stepped
    assert board.status == 7
