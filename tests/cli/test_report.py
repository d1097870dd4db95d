"""`report` and `validate` on a profile whose every count, address and symbol was laid down by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from archlbr.profile.perfdata.attr import branch_attr
from archlbr.profile.perfdata.features import About
from archlbr.profile.perfdata.writer import Writer
from archlbr.profile.stack import Mapping
from tests.cli.shell import archlbr

if TYPE_CHECKING:
    from pathlib import Path

if shutil.which("gcc") is None:
    pytest.skip("gcc is not installed: no ELF file to name places in", allow_module_level=True)

# `inner` starts at 0x401000, `outer` at 0x401010; the text segment is mapped from file offset 0x1000.
SOURCE = """
.globl _start, inner
.type inner, @function
.text
inner: dec %ecx
  jnz inner
  ret
  .balign 16, 0x90
.size inner, 5
.type outer, @function
outer:
_start: mov $3, %ecx
  call inner
  jmp outer
.size outer, 12
"""
LOOP, RETURN, CALL, JUMP = 0x401002, 0x401004, 0x401015, 0x40101A
COND, REL_JMP, REL_CALL, RET = 0x0 << 56, 0x2 << 56, 0x4 << 56, 0x5 << 56
MISPREDICTED = 1 << 63
# One turn, newest first: the jump back, the return, two turns of the loop, the call.
TURN = [
    (JUMP, 0x401010, REL_JMP),
    (RETURN, 0x40101A, RET | MISPREDICTED),
    (LOOP, 0x401000, COND),
    (LOOP, 0x401000, COND | MISPREDICTED),
    (CALL, 0x401000, REL_CALL),
]


def compiled(folder: Path) -> Path:
    source, program = folder / "turn.s", folder / "turn"
    source.write_text(SOURCE)
    subprocess.run(
        ["gcc", "-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x401000,--build-id=none", "-o", program, source],
        check=True,
    )
    return program


def profile(folder: Path, program: Path, stack: list[tuple[int, int, int]], samples: int) -> str:
    name = str(folder / "perf.data")
    with Writer(name, branch_attr("branches", 5), About(command_line=("archlbr", "record", "turn"))) as writer:
        writer.comm(7, 7, 1, "turn", exec=True)
        writer.mmap2(7, 7, 2, Mapping(0x401000, 0x1000, 0x1000, str(program)))
        stacks = np.array([stack] * samples, dtype=np.uint64)
        times = np.arange(10, 10 + samples, dtype=np.uint64)
        ips = np.full(samples, 0x401010, dtype=np.uint64)
        writer.samples(7, 7, times, ips, 5, stacks, np.full(samples, len(stack)))
    return name


def test_report_counts_and_names_the_hottest_branches(tmp_path: Path) -> None:
    ran = archlbr("report", profile(tmp_path, compiled(tmp_path), TURN, 3))
    assert ran == (
        0,
        "15 branches in 3 samples\n"
        "recorded by: archlbr record turn\n"
        "branches  mispred  kind      from              to\n"
        "  40.00%    50.0%  COND      inner+0x2 (turn)  inner+0x0 (turn)\n"
        "  20.00%   100.0%  RET       inner+0x4 (turn)  outer+0xa (turn)\n"
        "  20.00%     0.0%  REL_CALL  outer+0x5 (turn)  inner+0x0 (turn)\n"
        "  20.00%     0.0%  REL_JMP   outer+0xa (turn)  outer+0x0 (turn)\n",
        "",
    )


def test_report_prints_the_document_of_the_formats(tmp_path: Path) -> None:
    program = compiled(tmp_path)
    ran = archlbr("report", "-n", "1", "--format", "json", profile(tmp_path, program, TURN, 3))
    assert json.loads(ran.out) == {
        "version": 1,
        "samples": 3,
        "branches": 15,
        "command_line": ["archlbr", "record", "turn"],
        "hottest": [
            {
                "from": {"file": str(program), "symbol": "inner", "offset": "0x2"},
                "to": {"file": str(program), "symbol": "inner", "offset": "0x0"},
                "kind": "COND",
                "taken": 6,
                "mispredicted": 3,
            }
        ],
    }


def test_a_file_that_is_gone_is_shown_by_its_addresses(tmp_path: Path) -> None:
    program = compiled(tmp_path)
    name = profile(tmp_path, program, TURN[:1], 1)
    program.unlink()
    ran = archlbr("report", name)
    assert ran.out.splitlines()[2:] == [
        "branches  mispred  kind     from           to",
        " 100.00%     0.0%  REL_JMP  0x101a (turn)  0x1010 (turn)",
    ]


def test_a_branch_outside_every_mapping_is_shown_as_unmapped(tmp_path: Path) -> None:
    ran = archlbr("report", profile(tmp_path, compiled(tmp_path), [(0x9000, 0x401000, REL_JMP)], 1))
    assert ran.out.splitlines()[-1] == " 100.00%     0.0%  REL_JMP  0x9000 ([unmapped])  inner+0x0 (turn)"


def test_a_place_between_two_functions_is_in_neither(tmp_path: Path) -> None:
    # `inner` is 5 bytes; 8 into it is padding, which belongs to nobody.
    ran = archlbr("report", profile(tmp_path, compiled(tmp_path), [(0x401008, 0x401010, REL_JMP)], 1))
    assert ran.out.splitlines()[-1] == " 100.00%     0.0%  REL_JMP  0x401008 (turn)  outer+0x0 (turn)"


def test_validate_holds_on_a_path_the_program_can_take(tmp_path: Path) -> None:
    ran = archlbr("validate", profile(tmp_path, compiled(tmp_path), TURN, 3))
    assert ran == (
        0,
        " 3  samples\n"
        "15  entries in their stacks\n"
        " 0  entries with an end in no mapping\n"
        "12  pairs of neighbours: one entry's TO, the next newer one's FROM\n"
        " 0  pairs whose TO lies after that FROM\n"
        " 0  pairs that are not in one mapping\n"
        "12  pairs whose instructions were read\n"
        " 0  pairs that these instructions contradict\n"
        "holds\n",
        "",
    )


def test_validate_refuses_a_stack_that_is_the_wrong_way_round(tmp_path: Path) -> None:
    ran = archlbr("validate", "--format", "json", profile(tmp_path, compiled(tmp_path), TURN[::-1], 1))
    assert ran.status == 1
    found = json.loads(ran.out)
    assert found["verdict"] == "violated"
    assert found["version"] == 1
    # 40101A..401002 and 401010..401004 run backwards, 401000..401015 runs over a return; the loop's pair is straight.
    assert (found["pairs"], found["backwards"], found["mismatched"]) == (4, 2, 1)


@pytest.mark.parametrize("verb", ["report", "validate"])
def test_a_missing_file_is_one_line(verb: str, tmp_path: Path) -> None:
    name = str(tmp_path / "none")
    assert archlbr(verb, name) == (2, "", f"archlbr: cannot read {name}: No such file or directory\n")


@pytest.mark.parametrize("verb", ["report", "validate"])
def test_a_file_of_another_format_is_one_line(verb: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"not a profile" * 100)
    ran = archlbr(verb, str(other))
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith(f"archlbr: {other}: ")
