"""`check` and `replay`, as a user calls them."""

from __future__ import annotations

import json
import re
import signal
import time

import pytest

from tests.cli.recording import ARCHLBR, run, start


def test_check_prints_a_table_and_lines_that_replay() -> None:
    told = run([*ARCHLBR, "check", "vlbr-6.1", "archlbr", "--scenario", "steady"])
    assert told.status == 1
    text = told.out.decode()
    assert re.search(r"^S1 +violated +holds$", text, re.MULTILINE)
    assert re.search(r"^S2 +holds +holds$", text, re.MULTILINE)
    line = re.search(r"^  (archlbr-replay-1:vlbr-6.1/steady:S1:\S+)$", text, re.MULTILINE)
    assert line
    again = run([*ARCHLBR, "replay", line[1]])
    assert again.status == 1
    assert again.out.decode().splitlines()[-1].endswith("RDMSR of the records   breaks S1")
    assert b"2 explorations, complete" in told.err


def test_a_lasso_replays_to_where_its_cycle_starts() -> None:
    told = run([*ARCHLBR, "check", "vlbr-6.12", "--scenario", "denied", "--property", "L1", "--format", "json"])
    assert told.status == 1
    cell = json.loads(told.out)["designs"]["vlbr-6.12"]["L1"]
    assert (cell["verdict"], cell["kind"], cell["names"]) == ("violated", "response", ["I8"])
    again = run([*ARCHLBR, "replay", cell["replay"]])
    assert again.status == 1
    assert b"... and for ever:" in again.out


def test_what_holds_exits_with_0() -> None:
    told = run([*ARCHLBR, "check", "archlbr", "--scenario", "lend", "--property", "S1", "--format", "json"])
    assert told.status == 0
    assert json.loads(told.out)["designs"]["archlbr"]["S1"]["verdict"] == "holds"


def test_a_seeded_bug_is_checked_by_its_name() -> None:
    told = run([*ARCHLBR, "check", "archlbr+save", "--scenario", "lend", "--property", "G1"])
    assert told.status == 1
    assert b"archlbr-replay-1:archlbr+save/lend:G1:" in told.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "vlbr-7"], "unknown design 'vlbr-7'"),
        (["check", "archlbr+nothing"], "unknown seeded bug 'nothing'"),
        (["check", "--property", "Q9"], "unknown property 'Q9'"),
        (["check", "--scenario", "nowhere"], "unknown scenario 'nowhere'"),
        (["check", "archlbr", "--scenario", "whole"], "walk it with --walks"),
        (["check", "archlbr", "--walks", "-1"], "--walks"),
        (["replay", "x"], "not a replay line"),
        (["replay", "archlbr-replay-2:vlbr-6.1/steady:S1:0:0"], "another version"),
        (["replay", "archlbr-replay-1:archlbr/steady:S1:0:c0ffee00"], "damaged"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(arguments, message) -> None:
    told = run([*ARCHLBR, *arguments])
    assert told.status == 2
    assert told.out == b""
    assert message in told.err.decode()
    assert len(told.err.splitlines()) == 1


def test_walks_say_what_they_met_and_that_they_prove_nothing() -> None:
    told = run([*ARCHLBR, "check", "archlbr", "--walks", "2"])
    assert told.status == 0
    assert told.out.decode().startswith("archlbr: 4,000 steps from 2 seeds through the whole product; no proof")


def test_ctrl_c_says_incomplete_and_exits_with_1() -> None:
    going = start([*ARCHLBR, "check", "mediated-lbr", "--scenario", "everything", "--format", "json"])
    time.sleep(4)
    going.send_signal(signal.SIGINT)
    out, err = going.communicate(timeout=60)
    assert going.returncode == 1
    document = json.loads(out)
    assert document["complete"] is False
    assert document["designs"]["mediated-lbr"]["L1"]["verdict"] == "incomplete"
    assert b"INCOMPLETE" in err


def test_the_page_has_a_diagram_for_each_violation_and_nothing_from_elsewhere() -> None:
    told = run([*ARCHLBR, "check", "vlbr-6.12", "--scenario", "lend", "--scenario", "alone", "--format", "html"])
    page = told.out.decode()
    links = re.findall(r'<a class="violated" href="#([^"]+)"', page)
    assert len(links) == len(set(links)) >= 6
    assert {f'<section class="diagram" id="{link}"' in page for link in links} == {True}
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    assert "<script" not in page
