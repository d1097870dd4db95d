"""`diff` on profiles whose every count was laid down by hand."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.cli.shell import archlbr
from tests.report.turn import COND, LOOP, TURN, compiled, profile

if TYPE_CHECKING:
    from pathlib import Path

if shutil.which("gcc") is None:
    pytest.skip("gcc is not installed: no ELF file to name places in", allow_module_level=True)

# Against TURN: two of its five branches are gone, and there is one it does not have.
OTHER = [*TURN[:1], *TURN[2:4], (LOOP, 0x401002, COND)]


def pair(folder: Path) -> tuple[str, str]:
    program = compiled(folder)
    return (
        profile(folder, program, [TURN] * 2, name="first.data"),
        profile(folder, program, [OTHER] * 3, name="second.data"),
    )


def test_a_profile_is_the_same_as_itself(tmp_path: Path) -> None:
    first, _ = pair(tmp_path)
    assert archlbr("diff", first, first) == (
        0,
        "overlap 1.0000\n"
        "10 branches on 4 edges, then 10 on 4\n"
        "gained 0 edges (0.00% of the second's branches), lost 0 (0.00% of the first's)\n"
        "no edge differs\n",
        "",
    )


def test_edges_gained_lost_and_moved_are_told(tmp_path: Path) -> None:
    # Shares before: loop .4, jump, call, return .2 each. After: loop .5, jump .25, the new one .25. Overlap .4 + .2.
    assert archlbr("diff", *pair(tmp_path)) == (
        0,
        "overlap 0.6000\n"
        "10 branches on 4 edges, then 12 on 3\n"
        "gained 1 edges (25.00% of the second's branches), lost 2 (40.00% of the first's)\n"
        "before   after  change  from              to\n"
        "     -  25.00%  +25.00  inner+0x2 (turn)  inner+0x2 (turn)\n"
        "20.00%       -  -20.00  inner+0x4 (turn)  outer+0xa (turn)\n"
        "20.00%       -  -20.00  outer+0x5 (turn)  inner+0x0 (turn)\n"
        "40.00%  50.00%  +10.00  inner+0x2 (turn)  inner+0x0 (turn)\n"
        "20.00%  25.00%   +5.00  outer+0xa (turn)  outer+0x0 (turn)\n",
        "",
    )


def test_functions_are_compared_by_name(tmp_path: Path) -> None:
    ran = archlbr("diff", "--by", "function", *pair(tmp_path))
    # inner to inner .4 then .75, outer to outer .2 then .25; the call and the return are gone.
    assert ran.out.splitlines()[0] == "overlap 0.6000"
    assert ran.out.splitlines()[3:] == [
        "before   after  change  from          to",
        "40.00%  75.00%  +35.00  inner (turn)  inner (turn)",
        "20.00%       -  -20.00  inner (turn)  outer (turn)",
        "20.00%       -  -20.00  outer (turn)  inner (turn)",
        "20.00%  25.00%   +5.00  outer (turn)  outer (turn)",
    ]


def test_a_program_that_was_moved_is_the_same_file(tmp_path: Path) -> None:
    first, _ = pair(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    second = profile(elsewhere, compiled(elsewhere), [TURN] * 2)
    assert archlbr("diff", first, second).out.splitlines()[0] == "overlap 1.0000"


def test_two_builds_of_two_names_are_compared_by_function(tmp_path: Path) -> None:
    first, _ = pair(tmp_path)
    renamed = (tmp_path / "turn").rename(tmp_path / "faster")
    second = profile(tmp_path, renamed, [TURN], name="third.data")
    assert archlbr("diff", first, second).out.splitlines()[0] == "overlap 0.0000"
    compiled(tmp_path)
    assert archlbr("diff", "--by", "function", first, second).out.splitlines()[0] == "overlap 1.0000"


def test_the_document_of_the_formats(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    found = json.loads(archlbr("diff", "-n", "1", "--format", "json", first, second).out)
    inner = {"file": str(tmp_path / "turn"), "symbol": "inner", "offset": "0x2"}
    assert found == {
        "version": 1,
        "overlap": pytest.approx(0.6),
        "branches": [10, 12],
        "edges": [4, 3],
        "gained": 1,
        "lost": 2,
        "gained_share": 0.25,
        "lost_share": 0.4,
        "other_builds": [],
        "changes": [{"from": inner, "to": inner, "before": 0, "after": 3}],
    }


def test_another_build_is_said_to_be_one(tmp_path: Path) -> None:
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    names = [
        profile(folder, compiled(folder, f"-Wl,--build-id=0x{number}"), [TURN], build_id=bytes.fromhex(number))
        for folder, number in zip(folders, ("aa11", "bb22"), strict=True)
    ]
    lines = archlbr("diff", *names).out.splitlines()
    assert lines[3:] == ["turn is another build in the second: compare by function (--by function)", "no edge differs"]


def test_a_profile_without_branches_is_one_line(tmp_path: Path) -> None:
    first, _ = pair(tmp_path)
    empty = profile(tmp_path, tmp_path / "turn", [[]], name="empty.data")
    assert archlbr("diff", first, empty) == (
        2,
        "",
        "archlbr: a profile without branches cannot be compared: record it with a smaller period\n",
    )
