"""A function's blocks, counts and edges, worked out by hand."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from archlbr.report.code import find_function, read_code
from archlbr.report.counts import count
from archlbr.report.flow import HEIGHT, WIDTH, lay_out
from archlbr.report.names import Names
from tests.report.turn import COND, LOOP, TURN, compiled, profile

if TYPE_CHECKING:
    from pathlib import Path

    from archlbr.report.code import FunctionCode

if shutil.which("gcc") is None:
    pytest.skip("gcc is not installed: no ELF file to read code from", allow_module_level=True)


def code_of(tmp_path: Path, symbol: str) -> FunctionCode:
    counts = count(profile(tmp_path, compiled(tmp_path, "-g"), [TURN] * 3))
    names = Names(counts.paths)
    key = find_function(counts, names, symbol)
    assert key is not None
    code = read_code(counts, names, *key)
    names.close()
    assert code is not None
    return code


def test_a_loop_s_blocks_run_as_often_as_its_lines_say(tmp_path: Path) -> None:
    code = code_of(tmp_path, "inner")
    # A sample's lines in it: 401000..401002 behind the call, again behind the loop's branch, then 401000..401004.
    assert [
        (block.start, block.ran, [(row.address, row.raw.hex(), row.text, row.ran) for row in block.instructions])
        for block in code.blocks
    ] == [
        (0x401000, 9, [(0x401000, "ffc9", "dec ecx", 9), (0x401002, "75fc", "jne inner+0x0", 9)]),
        (0x401004, 3, [(0x401004, "c3", "ret", 3)]),
    ]
    assert code.flows == ((0, 0, 6, False), (0, 1, 3, True))


def test_a_branch_carries_what_it_did_and_its_line(tmp_path: Path) -> None:
    code = code_of(tmp_path, "inner")
    branch = code.blocks[0].instructions[1]
    assert branch.heat is not None
    assert (branch.heat.taken, branch.heat.mispredicted, branch.heat.mean_cycles) == (6, 3, None)
    assert str(branch.line) == "turn.s:6"
    assert code.blocks[0].instructions[0].heat is None


def test_the_step_behind_a_call_is_counted_by_its_returns(tmp_path: Path) -> None:
    code = code_of(tmp_path, "outer")
    # mov and call: the oldest entry is the call, so its line began before the stack; the jump's line began at a return.
    assert [(block.start, block.ran) for block in code.blocks] == [(0x401010, 3)]
    assert [row.ran for row in code.blocks[0].instructions] == [0, 0, 3]
    assert code.flows == ((0, 0, 3, False),)


def test_a_block_that_ends_in_a_call_goes_on_as_often_as_it_returns(tmp_path: Path) -> None:
    # Something jumps behind the call, so that a block starts there.
    stacks = [*[TURN] * 3, [(LOOP, 0x40101A, COND)]]
    counts = count(profile(tmp_path, compiled(tmp_path), stacks))
    names = Names(counts.paths)
    key = find_function(counts, names, "outer")
    assert key is not None
    code = read_code(counts, names, *key)
    assert code is not None
    assert [block.start for block in code.blocks] == [0x401010, 0x40101A]
    assert code.flows == ((0, 1, 3, True), (1, 0, 3, False))


def test_boxes_do_not_overlap_and_edges_lead_from_box_to_box(tmp_path: Path) -> None:
    picture = lay_out(code_of(tmp_path, "inner"))
    assert [box.block for box in picture.boxes] == [0, 1]
    first, second = picture.boxes
    assert (second.x, second.y - first.y) == (first.x, HEIGHT + 46)
    down, back = picture.curves
    assert (down.flow.target, back.flow.target, down.back, back.back) == (1, 0, False, True)
    middle = first.x + WIDTH / 2
    assert down.path.startswith(f"M{middle - 14:.0f} {first.y + HEIGHT:.0f}C")
    assert down.path.endswith(f" {middle:.0f} {second.y:.0f}")
    assert picture.width > first.x + WIDTH + 18
    assert picture.left_out == 0
