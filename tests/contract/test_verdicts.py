"""What the search finds: the named interleavings, the seeded bugs, and that `archlbr` holds."""

from __future__ import annotations

import json

import pytest

from archlbr.check import replay
from archlbr.check.explore import check_determinism, explore
from archlbr.check.model import always
from archlbr.contract import contention, designs, scenarios
from archlbr.contract.bugs import BUGS, seeded
from archlbr.contract.interleavings import NAMED
from archlbr.contract.lanes import model_of
from archlbr.contract.properties import BIT, CLAIMS
from archlbr.contract.table import as_document, explored
from archlbr.contract.verdicts import applies, judge, replay_line
from archlbr.contract.walks import walked

# Steps of each named interleaving; 0 where it is shown not to exist. Read once against the reference's traces.
STEPS = {
    "I1": 10, "I2": 4, "I3": 4, "I4": 12, "I5": 16, "I5b": 20, "I6": 11, "I6b": 19, "I6c": 0, "I6d": 16, "I7": 12,
    "I8": 4, "I9": 5, "I10": 6,
    "I11": 8, "I11b": 12, "I12": 4, "I13": 5, "I14": 15, "I15": 7, "I16": 12, "I17": 14,
    "A1": 3, "A2": 4, "A3": 8, "A4": 6, "A5": 3,
    "R1": 9, "R2": 21, "R3": 12, "R4": 12, "R5": 21, "R6": 8, "R7": 8, "R8": 9, "R9": 0,
}  # fmt: skip


@pytest.mark.parametrize("named", NAMED, ids=lambda named: named.name)
def test_a_named_interleaving_is_found_or_shown_not_to_exist(named) -> None:
    found = judge(designs.named(named.design), scenarios.named(named.scenario))
    assert found.exploration.complete
    assert len(found.found.get(named.claim, ())) == STEPS[named.name]
    assert (named.claim in found.found) == bool(named.found)


def test_i6c_is_there_once_the_counts_are_repaired() -> None:
    # In the merged kernel I15's drift saves the releasing vCPU once more, which spoils the shortcut that I6c needs.
    repaired = designs.named("vlbr-6.12")._replace(own_filter=1)
    found = judge(repaired, scenarios.named("neighbours-traced"))
    assert len(found.found["S1"]) == I6C_STEPS
    assert "C1" not in found.found


I6C_STEPS = 17


# Steps to each seeded bug; docs/decisions/030 quotes them.
BUG_STEPS = {
    "stop": 4, "load": 7, "load-wipes": 18, "load-select": 13, "load-owner": 12, "resident-nobody": 13,
    "vmenter-enable": 10, "vmenter-l2": 13, "exit-clear": 10, "exit-wants": 7, "exit-owner": 16, "save": 22,
    "save-late": 22, "start-wipe": 17, "start-enable": 2, "start-select": 9, "reenter-done": 9, "claim-save": 18,
    "claim-wipe": 14, "claim-owner": 12, "claim-early": 13, "claim-half": 8, "claim-defer": 7, "disable-enable": 3,
    "task-stop": 4, "frames": 5, "put-save": 18, "put-owner": 19, "put-user": 13, "get-here": 3, "migrate-records": 19,
    "migrate-enable": 8, "nmi-owner": 13, "nmi-stale": 4, "nmi-guest": 15, "freeze-loaded": 13, "rsm-sets": 9,
    "nest-drops": 18, "nest-clears": 13, "load-empty": 3, "vmenter-muted": 12, "claim-stuck": 7, "nmi-late": 5,
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_seeded_bug_is_found(bug) -> None:
    scenario = scenarios.named(bug.scenario)
    found = judge(seeded(bug.name), scenario)
    assert len(found.found[bug.claim]) == BUG_STEPS[bug.name]
    line = replay_line(seeded(bug.name), scenario, found, bug.claim)
    run = replay.run(model_of(f"archlbr+{bug.name}/{bug.scenario}"), replay.decode(line))
    if bug.claim not in ("L1", "L2", "L3"):
        assert run.states[-1].seen & BIT[bug.claim]


# Steps to what breaks a contention row of 2023 (None: it holds), in the order of the rows.
CONTENTION = {
    "vlbr-6.1": [3, 6, 4, None, None],
    "vlbr-6.12": [3, None, 4, None, None],
    "series-v2": [3, None, 4, None, None],
}


@pytest.mark.parametrize("name", CONTENTION)
def test_the_contention_rows_of_2023(name: str) -> None:
    paths = [contention.broken(designs.named(name), row) for row in contention.ROWS]
    assert [path and len(path) for path in paths] == CONTENTION[name]


def test_there_are_more_than_enough_bugs_and_each_is_one() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 25


def test_each_property_of_archlbr_has_a_bug_that_breaks_it() -> None:
    asked = {claim.name for claim in CLAIMS if applies(designs.named("archlbr"), claim.name)}
    assert asked - {bug.claim for bug in BUGS} == {"L2-sched"}  # claim-defer breaks it with L2


@pytest.mark.parametrize(
    "scenario", [s for s in scenarios.SCENARIOS if not s.name.startswith("everything")], ids=lambda s: s.name
)
def test_archlbr_holds(scenario) -> None:
    found = judge(designs.named("archlbr"), scenario)
    assert found.exploration.complete
    assert found.found == {}
    assert found.exploration.deadlock is None


def test_what_archlbr_holds_is_not_vacuous() -> None:
    table = explored([designs.named("archlbr")], ["lend", "alone"])
    assert {
        name: table.cells["archlbr"][name].verdict for name in ("guest records", "host records", "both record")
    } == {
        "guest records": "holds",
        "host records": "holds",
        "both record": "holds",
    }


def test_the_document_is_what_programs_read() -> None:
    document = json.loads(json.dumps(as_document(explored([designs.named("vlbr-6.1")], ["steady"]))))
    assert document["version"] == 1
    assert document["complete"] is True
    cell = document["designs"]["vlbr-6.1"]["S1"]
    assert (cell["verdict"], cell["kind"], cell["depth"], cell["names"]) == ("violated", "always", 10, ["I1"])
    assert cell["replay"].startswith("archlbr-replay-1:vlbr-6.1/steady:S1:")
    assert document["designs"]["vlbr-6.1"]["L2"]["verdict"] == "holds"


@pytest.mark.parametrize("name", list(designs.DESIGNS))
def test_a_step_reads_nothing_but_its_state(name: str) -> None:
    for scenario in scenarios.SCENARIOS:
        check_determinism(designs.model(designs.named(name), scenario), 7, 60)


def test_walks_through_the_whole_product_repeat_cover_and_find() -> None:
    held = walked(designs.named("archlbr"), 12, 500)
    assert held == walked(designs.named("archlbr"), 12, 500)
    assert held.lines == ()
    # What is left changes no state unless it breaks something.
    assert held.never == ("get_msrs", "nmi", "read", "xsaves")
    broken = walked(designs.named("vlbr-6.12"), 12, 500)
    assert broken.lines
    for line in broken.lines:
        told = replay.decode(line)
        assert replay.run(model_of(told.model), told).states[-1].seen & BIT[told.claim]


def test_a_search_that_stops_early_says_so() -> None:
    found = judge(designs.named("mediated-lbr"), scenarios.named("everything"), tick=lambda states: states > 4096)
    assert not found.exploration.complete


def test_a_claim_alone_is_what_it_is_among_all() -> None:
    design, scenario = designs.named("vlbr-6.12"), scenarios.named("lend")
    host = designs.model(design, scenario)
    alone = explore(host, [always("H2", lambda world: not world.seen & BIT["H2"])])
    assert alone.found["H2"] == judge(design, scenario).found["H2"]
