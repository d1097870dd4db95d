"""`check` and `replay`, as a user calls them."""

from __future__ import annotations

import json
import re
import signal

import pytest

from tests.cli.recording import ARCHLBR, run, start, wait_for_work


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
        (["check", "archlbr", "--jobs", "0"], "--jobs"),
        (["check", "archlbr", "--bound", "records=9"], "bound records=9 is out of range: records is 1 to 4"),
        (["check", "archlbr", "--bound", "cpus=1,3"], "bound cpus=3 is out of range: cpus is 1 to 2"),
        (["check", "archlbr", "--bound", "cpus"], "bound cpus= is out of range"),
        (["check", "archlbr", "--bound", "guests=2"], "unknown bound 'guests': use one of cpus, vcpus, records"),
        (["replay", "archlbr-replay-1:archlbr/lend,records=9:S1:0:a67f894d"], "out of range"),
        (["replay", "archlbr-replay-1:archlbr/lend:Q9:0:139fe5d3"], "names no property of this version"),
        (["replay", "archlbr-replay-1:archlbr/lend:S1:0:b7857ce0"], "no longer applies"),
        (["replay", "x"], "not a replay line"),
        (["replay", "archlbr-replay-1:archlbr/lend:S1:/0:993cb6bb"], "keeps no fair run from S1"),
        (["replay", "archlbr-replay-1:archlbr/lend:L1:0/1:f756e398"], "keeps no fair run from L1"),
        (["replay", "archlbr-replay-1:archlbr/lend:L2-entry:0/1:ac2836db"], "keeps no fair run from L2-entry"),
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


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_says_incomplete_and_exits_with_1(jobs: str) -> None:
    words = ["mediated-lbr", "archlbr", "--scenario", "everything", "--scenario", "everything-roam", "--jobs", jobs]
    going = start([*ARCHLBR, "check", *words, "--format", "json"])
    wait_for_work(going.pid)
    going.send_signal(signal.SIGINT)
    out, err = going.communicate(timeout=60)
    assert going.returncode == 1
    document = json.loads(out)
    assert document["complete"] is False
    assert document["designs"]["mediated-lbr"]["L1"]["verdict"] == "incomplete"
    assert b"INCOMPLETE" in err
    assert len(err.splitlines()) == 1


def test_ctrl_c_ends_walks_and_says_how_many_there_were() -> None:
    going = start([*ARCHLBR, "check", "archlbr", "--walks", "100000"])
    wait_for_work(going.pid)
    going.send_signal(signal.SIGINT)
    out, err = going.communicate(timeout=60)
    assert (going.returncode, err) == (1, b"")
    assert re.search(rb"from 100000 seeds .*; no proof; INCOMPLETE, cut short: \d+ seeds were walked\n", out)


def test_a_verdict_says_over_which_scenarios_it_holds() -> None:
    words = [*ARCHLBR, "check", "archlbr", "--scenario", "lend", "--scenario", "hole"]
    told = run(words)
    assert told.status == 0
    assert told.out.decode().endswith(
        "\narchlbr: every verdict is over 2 scenarios, each explored completely:\n  lend hole\n"
    )
    document = json.loads(run([*words, "--format", "json"]).out)
    assert document["designs"]["archlbr"]["S1"]["scenarios"] == ["lend", "hole"]


def test_coverage_names_the_kinds_of_action_that_were_never_taken() -> None:
    told = run([*ARCHLBR, "check", "archlbr", "--scenario", "steady", "--coverage"])
    text = told.out.decode()
    # No task and no second VM to switch to; a read changes nothing unless it breaks something.
    assert "archlbr: transitions by kind of action; never: switch, read, grant\n" in text
    taken = re.findall(r"\b([a-z_]+) ([\d,]+)(?=[,\n])", text.rpartition("never: ")[2])
    assert sum(int(times.replace(",", "")) for _, times in taken) == STEADY_EDGES


# tests/contract/manifest.json, archlbr/steady.
STEADY_EDGES = 85


def test_bounds_are_part_of_a_scenario_s_name_and_of_a_replay_line() -> None:
    told = run([*ARCHLBR, "check", "vlbr-6.12", "--scenario", "hole", "--bound", "records=2,3", "--property", "G1"])
    assert told.status == 1
    text = told.out.decode()
    assert "over 2 scenarios, each explored completely:\n  hole hole,records=3\n" in text
    alone = run([*ARCHLBR, "check", "vlbr-6.12", "--scenario", "hole", "--bound", "records=3", "--property", "G1"])
    line = re.search(r"^  (archlbr-replay-1:vlbr-6.12/hole,records=3:G1:\S+)$", alone.out.decode(), re.MULTILINE)
    assert line
    again = run([*ARCHLBR, "replay", line[1]])
    assert again.status == 1
    assert again.out.decode().splitlines()[-1].endswith("breaks G1")


def test_the_page_has_a_diagram_for_each_violation_and_nothing_from_elsewhere() -> None:
    told = run([*ARCHLBR, "check", "vlbr-6.12", "--scenario", "lend", "--scenario", "alone", "--format", "html"])
    page = told.out.decode()
    links = re.findall(r'<a class="violated" href="#([^"]+)"', page)
    assert len(links) == len(set(links)) >= 6
    assert {f'<section class="diagram" id="{link}"' in page for link in links} == {True}
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    assert "<script" not in page
