"""`report` and `validate` on a profile whose every count, address and symbol was laid down by hand."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from archlbr.profile.perfdata.attr import BRANCH_CALL_STACK, BRANCH_USER
from tests.cli.shell import Ran, archlbr
from tests.report.turn import CALL, REL_CALL, REL_JMP, TIMED, TURN, compiled, profile

if TYPE_CHECKING:
    from pathlib import Path

if shutil.which("gcc") is None:
    pytest.skip("gcc is not installed: no ELF file to name places in", allow_module_level=True)


def test_report_counts_and_names_the_hottest_branches(tmp_path: Path) -> None:
    ran = archlbr("report", profile(tmp_path, compiled(tmp_path), [TURN] * 3))
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
    ran = archlbr("report", "-n", "1", "--format", "json", profile(tmp_path, program, [TURN] * 3))
    inner, outer = ({"file": str(program), "symbol": name} for name in ("inner", "outer"))
    assert json.loads(ran.out) == {
        "version": 1,
        "samples": 3,
        "branches": 15,
        "command_line": ["archlbr", "record", "turn"],
        "hottest": [
            {
                "from": {**inner, "offset": "0x2"},
                "to": {**inner, "offset": "0x0"},
                "kind": "COND",
                "taken": 6,
                "mispredicted": 3,
                "cycles": None,
                "line": None,
            }
        ],
        "functions": [{"function": inner, "taken": 9, "mispredicted": 6, "cycles": None, "calls": 3}],
        "edges": [{"from": inner, "to": outer, "kind": "RET", "taken": 3, "mispredicted": 3, "cycles": None}],
        "lines": [],
        "kinds": [
            {"kind": "COND", "taken": 6, "mispredicted": 3, "cycles": None},
            {"kind": "REL_JMP", "taken": 3, "mispredicted": 0, "cycles": None},
            {"kind": "REL_CALL", "taken": 3, "mispredicted": 0, "cycles": None},
            {"kind": "RET", "taken": 3, "mispredicted": 3, "cycles": None},
        ],
    }


def rows(ran: Ran) -> list[str]:
    """Return the table under the two lines of every report."""
    assert (ran.status, ran.err) == (0, "")
    return ran.out.splitlines()[2:]


def test_functions_are_ranked_by_the_branches_in_them(tmp_path: Path) -> None:
    assert rows(archlbr("report", "--by", "function", profile(tmp_path, compiled(tmp_path), [TURN] * 3))) == [
        "branches  mispred  calls  function",
        "  60.00%    66.7%  3      inner (turn)",
        "  40.00%     0.0%  0      outer (turn)",
    ]


def test_edges_lead_from_function_to_function(tmp_path: Path) -> None:
    assert rows(archlbr("report", "--by", "edge", profile(tmp_path, compiled(tmp_path), [TURN] * 3))) == [
        "branches  mispred  kind      from          to",
        "  20.00%   100.0%  RET       inner (turn)  outer (turn)",
        "  20.00%     0.0%  REL_CALL  outer (turn)  inner (turn)",
    ]


def test_an_edge_may_lead_from_one_file_to_another_where_neither_has_a_function(tmp_path: Path) -> None:
    name = profile(tmp_path, compiled(tmp_path), [[(0x9000, 0x401008, REL_JMP)]])
    assert rows(archlbr("report", "--by", "edge", name))[1:] == [" 100.00%     0.0%  REL_JMP  [unmapped]  [turn]"]


def test_lines_show_their_source(tmp_path: Path) -> None:
    assert rows(archlbr("report", "--by", "line", profile(tmp_path, compiled(tmp_path, "-g"), [TURN] * 3))) == [
        "branches  mispred  line       function      source",
        "  40.00%    50.0%  turn.s:6   inner (turn)  jnz inner",
        "  20.00%   100.0%  turn.s:7   inner (turn)  ret",
        "  20.00%     0.0%  turn.s:13  outer (turn)  call inner",
        "  20.00%     0.0%  turn.s:14  outer (turn)  jmp outer",
    ]


def test_without_debug_information_the_lines_say_what_to_do(tmp_path: Path) -> None:
    assert rows(archlbr("report", "--by", "line", profile(tmp_path, compiled(tmp_path), [TURN]))) == [
        "no source line is known: compile with -g, and keep the files where they were"
    ]


def test_kinds_add_up_to_all(tmp_path: Path) -> None:
    assert rows(archlbr("report", "--by", "kind", profile(tmp_path, compiled(tmp_path), [TURN]))) == [
        "branches  mispred  kind",
        "  40.00%    50.0%  COND",
        "  20.00%     0.0%  REL_JMP",
        "  20.00%     0.0%  REL_CALL",
        "  20.00%   100.0%  RET",
    ]


def test_cycles_are_the_mean_of_the_entries_that_have_them(tmp_path: Path) -> None:
    timed = [(source, target, info | TIMED | 2 * number + 3) for number, (source, target, info) in enumerate(TURN)]
    # The loop's two entries carry 7 and 9; without the valid bit, the fourth sample's carry none.
    stacks = [timed, timed, timed, TURN]
    assert rows(archlbr("report", "-n", "2", profile(tmp_path, compiled(tmp_path), stacks))) == [
        "branches  mispred  cycles  kind  from              to",
        "  40.00%    50.0%     8.0  COND  inner+0x2 (turn)  inner+0x0 (turn)",
        "  20.00%   100.0%     5.0  RET   inner+0x4 (turn)  outer+0xa (turn)",
    ]


def test_a_function_s_instructions_are_shown_with_their_counts(tmp_path: Path) -> None:
    ran = archlbr("report", "--annotate", "inner", profile(tmp_path, compiled(tmp_path, "-g"), [TURN] * 3))
    assert ran == (
        0,
        "inner (turn)\n"
        "count  mispred   address  instruction      line\n"
        "                          B0:\n"
        "    9           0x401000    dec ecx        turn.s:5\n"
        "    9    50.0%  0x401002    jne inner+0x0  turn.s:6\n"
        "                          B1:\n"
        "    3   100.0%  0x401004    ret            turn.s:7\n",
        "",
    )


def test_a_function_nobody_was_in_is_one_line(tmp_path: Path) -> None:
    name = profile(tmp_path, compiled(tmp_path), [TURN])
    ran = archlbr("report", "--annotate", "nobody", name)
    assert ran == (
        2,
        "",
        f"archlbr: no branch of {name} lies in a function named nobody: archlbr report --by function\n",
    )


# In call-stack mode the entries are the calls that have not returned: `outer` called `inner`, from two places once.
STACK = BRANCH_USER | BRANCH_CALL_STACK
CALLS = [[(CALL, 0x401000, REL_CALL)], [(CALL, 0x401000, REL_CALL)], []]


def test_call_stacks_are_a_tree(tmp_path: Path) -> None:
    name = profile(tmp_path, compiled(tmp_path), CALLS, branches=STACK, ip=0x401000)
    assert archlbr("report", "--by", "stack", name) == (
        0,
        "3 samples, callers first\n"
        "  total     own  function\n"
        " 66.67%   0.00%  outer (turn)\n"
        " 66.67%  66.67%    inner (turn)\n"
        " 33.33%  33.33%  inner (turn)\n",
        "",
    )


def test_callers_stand_above_callees(tmp_path: Path) -> None:
    # Newest first: `outer` called `inner`, and before that `inner` had called `outer`.
    deep = [(CALL, 0x401000, REL_CALL), (0x401002, 0x401010, REL_CALL)]
    name = profile(tmp_path, compiled(tmp_path), [deep], branches=STACK, ip=0x401000)
    assert archlbr("report", "--by", "stack", name).out.splitlines()[2:] == [
        "100.00%   0.00%  inner (turn)",
        "100.00%   0.00%    outer (turn)",
        "100.00% 100.00%      inner (turn)",
    ]


def test_speedscope_gets_the_same_stacks(tmp_path: Path) -> None:
    program = compiled(tmp_path)
    name = profile(tmp_path, program, CALLS, branches=STACK, ip=0x401000)
    out = tmp_path / "stacks.json"
    assert archlbr("report", "--format", "speedscope", "-o", str(out), name) == (0, "", "")
    document = json.loads(out.read_text())
    names = [frame["name"] for frame in document["shared"]["frames"]]
    assert {frame["file"] for frame in document["shared"]["frames"]} == {str(program)}
    (profiled,) = document["profiles"]
    stacks = [tuple(names[frame] for frame in stack) for stack in profiled["samples"]]
    assert dict(zip(stacks, profiled["weights"], strict=True)) == {("outer", "inner"): 2, ("inner",): 1}
    assert (profiled["type"], profiled["startValue"], profiled["endValue"], profiled["unit"]) == (
        "sampled",
        0,
        3,
        "none",
    )
    assert profiled["name"] == "turn 7"
    assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"


def test_a_frame_outside_every_file_has_one_pair_of_brackets(tmp_path: Path) -> None:
    name = profile(tmp_path, compiled(tmp_path), [[]], branches=STACK, ip=0x100)
    document = json.loads(archlbr("report", "--format", "speedscope", name).out)
    assert document["shared"]["frames"] == [{"name": "[unmapped]"}]


@pytest.mark.parametrize("words", [("--by", "stack"), ("--format", "html"), ("--format", "speedscope")])
def test_a_stack_deeper_than_any_lbrs_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    deepest = profile(tmp_path, compiled(tmp_path), [[(CALL, 0x401000, REL_CALL)] * 64], branches=STACK, name="64")
    assert archlbr("report", *words, deepest).status == 0
    name = profile(tmp_path, tmp_path / "turn", [[(CALL, 0x401000, REL_CALL)] * 2000], branches=STACK)
    assert archlbr("report", *words, name) == (
        2,
        "",
        f"archlbr: {name} has a call stack of 2,000 entries, more than any LBRs hold: archlbr report --by branch\n",
    )


def test_call_stacks_of_a_profile_of_branches_are_refused(tmp_path: Path) -> None:
    name = profile(tmp_path, compiled(tmp_path), [TURN])
    for words in (("--by", "stack"), ("--format", "speedscope")):
        assert archlbr("report", *words, name) == (
            2,
            "",
            f"archlbr: {name} holds no call stacks: record with -j stack, or show its branches\n",
        )


def test_a_file_that_is_gone_is_shown_by_its_addresses(tmp_path: Path) -> None:
    program = compiled(tmp_path)
    name = profile(tmp_path, program, [TURN[:1]])
    program.unlink()
    ran = archlbr("report", name)
    assert ran.out.splitlines()[2:] == [
        "branches  mispred  kind     from           to",
        " 100.00%     0.0%  REL_JMP  0x101a (turn)  0x1010 (turn)",
    ]


def test_a_branch_outside_every_mapping_is_shown_as_unmapped(tmp_path: Path) -> None:
    ran = archlbr("report", profile(tmp_path, compiled(tmp_path), [[(0x9000, 0x401000, REL_JMP)]]))
    assert ran.out.splitlines()[-1] == " 100.00%     0.0%  REL_JMP  0x9000 ([unmapped])  inner+0x0 (turn)"


def test_a_place_between_two_functions_is_in_neither(tmp_path: Path) -> None:
    # `inner` is 5 bytes; 8 into it is padding, which belongs to nobody.
    ran = archlbr("report", profile(tmp_path, compiled(tmp_path), [[(0x401008, 0x401010, REL_JMP)]]))
    assert ran.out.splitlines()[-1] == " 100.00%     0.0%  REL_JMP  0x401008 (turn)  outer+0x0 (turn)"


def test_validate_holds_on_a_path_the_program_can_take(tmp_path: Path) -> None:
    ran = archlbr("validate", profile(tmp_path, compiled(tmp_path), [TURN] * 3))
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
        "BOLT: turn has no build-id: that it is the program that ran is not checked; link with -Wl,--build-id\n"
        "BOLT: turn has no relocations: BOLT reorders blocks but moves no functions; link with -Wl,--emit-relocs\n"
        "llvm-profgen, AutoFDO: turn has no line information: nothing ties addresses to source; "
        "compile with -g or -gline-tables-only\n"
        "holds\n",
        "",
    )


def test_validate_refuses_a_stack_that_is_the_wrong_way_round(tmp_path: Path) -> None:
    ran = archlbr("validate", "--format", "json", profile(tmp_path, compiled(tmp_path), [TURN[::-1]]))
    assert ran.status == 1
    found = json.loads(ran.out)
    assert found["verdict"] == "violated"
    assert found["version"] == 1
    assert [row["name"] for row in found["complaints"]] == ["no-build-id", "no-relocations", "no-lines"]
    assert found["complaints"][1] == {
        "name": "no-relocations",
        "tools": ["BOLT"],
        "what": "turn has no relocations: BOLT reorders blocks but moves no functions",
        "advice": "link with -Wl,--emit-relocs",
    }
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
