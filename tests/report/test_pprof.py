"""pprof files, taken apart by a decoder of the test's own: fields of profile.proto by their numbers."""

from __future__ import annotations

import gzip
import shutil
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from archlbr.profile.perfdata.attr import BRANCH_CALL_STACK, BRANCH_USER
from archlbr.report.pprof import delimited, number, varint
from tests.cli.shell import archlbr
from tests.report.turn import CALL, REL_CALL, TURN, compiled, profile

if TYPE_CHECKING:
    from pathlib import Path

if shutil.which("gcc") is None:
    pytest.skip("gcc is not installed: no ELF file to name places in", allow_module_level=True)


def fields(raw: bytes) -> dict[int, list[Any]]:
    """Return a message's fields by number: numbers, and bytes where there is a length."""
    found: dict[int, list[Any]] = defaultdict(list)
    rest = list(raw)[::-1]

    def integer() -> int:
        value = shift = 0
        while True:
            byte = rest.pop()
            value += (byte % 128) * 2**shift
            shift += 7
            if byte < 128:
                return value

    while rest:
        field, wire = divmod(integer(), 8)
        assert wire in (0, 2), wire
        value: Any = integer()
        if wire == 2:
            value = bytes(rest.pop() for _ in range(value))
        found[field].append(value)
    return found


def integers(raw: bytes) -> list[int]:
    """Return packed numbers: those of a message whose fields are taken for their keys."""
    out, value, shift = [], 0, 0
    for byte in raw:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            out.append(value)
            value = shift = 0
    return out


def opened(path: Path) -> list[tuple[list[tuple[str, str, int]], list[int], str]]:
    """Return each sample: its frames as (function, source file, line), its values, its thread."""
    top = fields(gzip.decompress(path.read_bytes()))
    texts = [raw.decode() for raw in top[6]]
    assert texts[0] == ""
    functions = {row[1][0]: (texts[row[2][0]], texts[row.get(4, [0])[0]]) for row in map(fields, top[5])}
    mappings = {row[1][0]: texts[row[5][0]] for row in map(fields, top[3])}
    places = {}
    for row in map(fields, top[4]):
        line = fields(row[4][0])
        assert row[2][0] in mappings
        places[row[1][0]] = (*functions[line[1][0]], line.get(2, [0])[0])
    samples = []
    for row in map(fields, top[2]):
        label = fields(row[3][0]) if 3 in row else {}
        assert not label or texts[label[1][0]] == "thread"
        frames = [places[place] for place in integers(row[1][0])]
        samples.append((frames, integers(row[2][0]), texts[label[2][0]] if label else ""))
    kinds = [tuple(texts[kind[at][0]] for at in (1, 2)) for kind in map(fields, top[1])]
    assert kinds in ([("samples", "count")], [("branches", "count"), ("mispredictions", "count")])
    assert {len(values) for _, values, _ in samples} == {len(kinds)}
    return samples


def test_branches_have_their_lines_and_counts(tmp_path: Path) -> None:
    name, out = profile(tmp_path, compiled(tmp_path, "-g"), [TURN] * 3), tmp_path / "p.pb.gz"
    assert archlbr("report", "--format", "pprof", "-o", str(out), name) == (0, "", "")
    source = str(tmp_path / "turn.s")
    assert sorted(opened(out)) == [
        ([("inner", source, 6)], [6, 3], ""),
        ([("inner", source, 7)], [3, 3], ""),
        ([("outer", source, 13)], [3, 0], ""),
        ([("outer", source, 14)], [3, 0], ""),
    ]
    again = tmp_path / "again.pb.gz"
    archlbr("report", "--format", "pprof", "-o", str(again), name)
    assert again.read_bytes() == out.read_bytes()


def test_call_stacks_are_innermost_first(tmp_path: Path) -> None:
    calls = [[(CALL, 0x401000, REL_CALL)], [(CALL, 0x401000, REL_CALL)], []]
    name = profile(tmp_path, compiled(tmp_path), calls, branches=BRANCH_USER | BRANCH_CALL_STACK, ip=0x401000)
    out = tmp_path / "p.pb.gz"
    assert archlbr("report", "--format", "pprof", "-o", str(out), name) == (0, "", "")
    assert sorted(opened(out)) == [
        ([("inner", "", 0)], [1], "turn 7"),
        ([("inner", "", 0), ("outer", "", 0)], [2], "turn 7"),
    ]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        # The examples of the encoding's own description: 150, and the text "testing" in field 2.
        (varint(150), "9601"),
        (number(1, 150), "089601"),
        (delimited(2, b"testing"), "120774657374696e67"),
        (number(1, 0), ""),
        (varint(0), "00"),
        (varint(127), "7f"),
        (varint(128), "8001"),
        (varint((1 << 64) - 1), "ff" * 9 + "01"),
    ],
)
def test_the_encoding_is_that_of_its_description(made: bytes, expected: str) -> None:
    assert made.hex() == expected
