"""A profile whose stacks no program could have taken is found out, whatever the fault."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from archlbr.profile.perfdata.attr import BRANCH_USER, branch_attr
from archlbr.profile.perfdata.reader import Reader
from archlbr.profile.perfdata.writer import Writer
from archlbr.profile.stack import Mapping
from archlbr.profile.validate import Verdict, validate
from tests.foreign.tools import need
from tests.profile.examples import ATTR, LIBRARY, PROGRAM, stacks, times

if TYPE_CHECKING:
    from pathlib import Path

    from archlbr.profile.perfdata.attr import Attr

BASE = 0x10000
# Offsets of the instructions below.
#   0 nop; 1 je 4; 3 nop; 4 call 11; 9 syscall; 11 ret; 12 jmp 15; 14 nop; 15 jmp *%rax; 17 int3...
CODE = bytes.fromhex("90 7401 90 e802000000 0f05 c3 eb01 90 ffe0 cc cc cc")
COND, IND_JMP, REL_JMP, IND_CALL, REL_CALL, RET, OTHER = (code << 56 for code in (0, 1, 2, 3, 4, 5, 8))


def verdict(
    folder: Path,
    *rows: list[tuple[int, int, int]],
    mappings: tuple[Mapping, ...] = (),
    attr: Attr = ATTR,
    code_bytes: bytes = CODE,
) -> Verdict:
    """Return what the check finds in stacks of (from, to, info), offsets into the code, newest first."""
    (folder / "code").write_bytes(b"\0" * 0x1000 + code_bytes)
    code = Mapping(BASE, 0x1000, 0x1000, str(folder / "code"))
    read, counts = stacks(*[[(source + BASE, target + BASE, info) for source, target, info in row] for row in rows])
    with Writer(folder / "perf.data", attr) as profile:
        for mapping in (code, *mappings):
            profile.mmap2(7, 7, 0, mapping)
        profile.samples(7, 7, times(*range(5000, 5000 + len(rows))), times(*[1] * len(rows)), 1, read, counts)
    with Reader(folder / "perf.data") as found:
        return validate(found)


def test_straight_lines_hold(tmp_path: Path) -> None:
    # From 0: je taken; call; ret to the syscall; the syscall is stepped over; ret; to 12; jmp; jmp *.
    row = [(15, 0, IND_JMP), (12, 15, REL_JMP), (11, 12, RET), (4, 9, REL_CALL)]
    found = verdict(tmp_path, row, [(1, 4, COND), (15, 0, IND_JMP)], [])
    assert found == Verdict(samples=3, entries=6, pairs=4, disassembled=4)
    assert found.holds


@pytest.mark.parametrize(
    ("older_to", "newer_from", "info", "why"),
    [
        (12, 15, IND_JMP, "steps over a jump"),
        (4, 11, RET, "steps over a call"),
        (9, 12, REL_JMP, "steps over a return"),
        (2, 4, REL_CALL, "begins inside an instruction and runs past its branch"),
        (0, 2, COND, "ends inside an instruction"),
        (0, 3, COND, "ends at an instruction that is no branch"),
        (17, 19, COND, "ends at an interrupt instruction with a branch's type"),
    ],
)  # fmt: skip
def test_instructions_that_contradict_a_stack_are_found(
    tmp_path: Path, older_to: int, newer_from: int, info: int, why: str
) -> None:
    found = verdict(tmp_path, [(newer_from, 0, info), (15, older_to, IND_JMP)])
    assert found == Verdict(samples=1, entries=2, pairs=1, disassembled=1, mismatched=1), why
    assert not found.holds


def test_an_interrupt_may_follow_any_instruction(tmp_path: Path) -> None:
    found = verdict(tmp_path, [(3, 0, OTHER), (15, 0, IND_JMP)])
    assert found == Verdict(samples=1, entries=2, pairs=1, disassembled=1)


def test_a_not_taken_branch_may_be_stepped_over(tmp_path: Path) -> None:
    assert verdict(tmp_path, [(4, 11, REL_CALL), (15, 0, IND_JMP)]).holds


@pytest.mark.parametrize(
    "branch", ["e2fd", "e3fd", "0f84fdffffff", "ffd0", "ff20", "c20800", "48cf"],
    ids=["loop", "jrcxz", "je near", "call *", "jmp *()", "ret imm", "iretq"],
)  # fmt: skip
def test_every_form_of_branch_ends_a_line(tmp_path: Path, branch: str) -> None:
    code = bytes.fromhex("90" + branch) + b"\xcc" * 8
    found = verdict(tmp_path, [(1, 0, COND), (15, 0, IND_JMP)], code_bytes=code)
    assert found == Verdict(samples=1, entries=2, pairs=1, disassembled=1)


@pytest.mark.parametrize(("displacement", "mismatched"), [("00000000", 0), ("01000000", 1)])
def test_a_call_to_the_next_instruction_is_no_branch(tmp_path: Path, displacement: str, mismatched: int) -> None:
    """CALL +0 leaves no record (reference architecture.md 7, fact 8); any other call does."""
    code = bytes.fromhex("e8" + displacement + "90c3") + b"\xcc" * 8
    found = verdict(tmp_path, [(6, 0, RET), (15, 0, IND_JMP)], code_bytes=code)
    assert (found.disassembled, found.mismatched) == (1, mismatched)


def test_oldest_first_is_found(tmp_path: Path) -> None:
    row = [(15, 0, IND_JMP), (12, 15, REL_JMP), (11, 12, RET), (4, 9, REL_CALL)]
    found = verdict(tmp_path, row[::-1])
    # 12 to 4, 15 to 11, and 0 to 12 over a call.
    assert (found.pairs, found.backwards, found.mismatched) == (3, 2, 1)
    assert not found.holds


def test_a_line_from_one_mapping_into_another_is_found(tmp_path: Path) -> None:
    beside = Mapping(BASE + 0x1000, 0x1000, 0, "/nowhere")
    found = verdict(tmp_path, [(0x1004, 0, COND), (15, 0, IND_JMP)], mappings=(beside,))
    assert found == Verdict(samples=1, entries=2, pairs=1, out_of_range=1)
    assert not found.holds


def test_a_line_in_no_mapping_is_found(tmp_path: Path) -> None:
    found = verdict(tmp_path, [(0x5004, 0, COND), (15, 0x5000, IND_JMP)])
    assert found == Verdict(samples=1, entries=2, pairs=1, out_of_range=1, unmapped=2)


def test_a_file_that_cannot_be_read_is_only_not_disassembled(tmp_path: Path) -> None:
    read, counts = stacks([(0x401010, 0x401000, 0), (0x401200, 0x401008, 0)])
    with Writer(tmp_path / "perf.data", ATTR) as profile:
        profile.mmap2(7, 7, 0, PROGRAM)
        profile.mmap2(7, 7, 0, LIBRARY)
        profile.samples(7, 7, times(1), times(1), 1, read, counts)
    with Reader(tmp_path / "perf.data") as found:
        assert validate(found) == Verdict(samples=1, entries=2, pairs=1)


def test_samples_are_not_joined_to_each_other(tmp_path: Path) -> None:
    assert verdict(tmp_path, [(1, 4, COND)], [(15, 0, IND_JMP)]) == Verdict(samples=2, entries=2)


def test_a_filter_that_leaves_branches_out_makes_no_straight_lines(tmp_path: Path) -> None:
    calls = branch_attr("branches:u", 1, BRANCH_USER | 1 << 4)
    found = verdict(tmp_path, [(4, 11, REL_CALL), (15, 12, IND_JMP)], attr=calls)
    assert found == Verdict(samples=1, entries=2, complete=False)


def test_our_offsets_are_the_assembler_s(tmp_path: Path) -> None:
    """The bytes above are what objdump reads them as."""
    (tmp_path / "code").write_bytes(CODE)
    command = [need("objdump"), "-D", "-b", "binary", "-m", "i386:x86-64", "code"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines() if line.count("\t") == 2]
    assert [(int(row[0].strip(" :"), 16), row[2].split()[0]) for row in rows][:9] == [
        (0, "nop"), (1, "je"), (3, "nop"), (4, "call"), (9, "syscall"), (11, "ret"), (12, "jmp"), (14, "nop"),
        (15, "jmp"),
    ]  # fmt: skip
