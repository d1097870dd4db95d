"""Guests on one processor with the host: real code, real records; whose each is shows in its address.

With `archlbr` nobody is ever given another's record. With the merged and the naive designs the interleavings that the
search finds happen to real code, and the run names them.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from archlbr.check import replay
from archlbr.contract import designs, scenarios
from archlbr.contract.bugs import seeded
from archlbr.contract.interleavings import NAMED, Named
from archlbr.contract.lanes import model_of
from archlbr.contract.observed import followed, observed
from archlbr.contract.properties import BIT, BY_NAME
from archlbr.contract.verdicts import judge
from archlbr.contract.world import Scenario
from archlbr.errors import InternalError
from archlbr.machine.findings import CLAIMS
from archlbr.machine.models import MODELS, SAPPHIRE_RAPIDS, SKYLAKE_SERVER, Model
from archlbr.machine.pcpu import ACTIONS
from archlbr.perf.events import Opened
from archlbr.vpmu.designs.hypervisors import HYPERVISORS, Hypervisor
from tests.machine.sharing_guests import (
    anything,
    finish,
    kept,
    peeking,
    plain,
    quiet,
    reading,
    saving,
    shared,
    steady,
    toggling,
    unread,
)

if TYPE_CHECKING:
    from archlbr.machine.pcpu import Pcpu

ARCHLBR = HYPERVISORS["archlbr"]
FLEXIBLE, PINNED, OF_GUEST, OF_TASK = Opened(), Opened(pinned=1), Opened(exclude_guest=0), Opened(task=1)
EVENTS = {
    "none": (None, {}),
    "flexible": (FLEXIBLE, {}),
    "pinned": (PINNED, {}),
    "toggled": (FLEXIBLE, {"every": 3_000}),
    "opened late": (PINNED, {"opens": 20_000}),
    "of the guest": (OF_GUEST, {}),
    "of the host task": (OF_TASK, {"every": 5_000}),
}


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("model", MODELS)
def test_with_archlbr_no_guest_and_no_sample_holds_a_foreign_address(model: str, name: str) -> None:
    event, timing = EVENTS[name]
    cpu = MODELS[model]
    pcpu = finish(shared(ARCHLBR, cpu, [toggling(cpu), steady(cpu)], event, share=700, **timing))
    assert [kept(pcpu, v) for v in range(2)] == [
        {"own": 640, "host": 0, "other": 0, "zero": 0},
        {"own": 384, "host": 0, "other": 0, "zero": 0},
    ]
    host, guests = pcpu.findings.host, pcpu.findings.guests
    assert [(party.entries, party.foreign, party.lost) for party in guests] == [(640, 0, 0), (384, 0, 0)]
    assert all(party.samples > 0 for party in guests)
    assert (host.foreign, host.stale, pcpu.findings.broken) == (0, 0, {})
    if name not in ("none", "of the host task"):  # no host task runs beside two guests
        assert host.samples > host.none > 0
        assert host.entries > 0


@pytest.mark.parametrize("pause", [0, 900])
@pytest.mark.parametrize("name", EVENTS)
def test_xsaves_gives_no_foreign_address_and_xrstors_brings_none(name: str, pause: int) -> None:
    event, timing = EVENTS[name]
    pcpu = finish(
        shared(ARCHLBR, SAPPHIRE_RAPIDS, [saving(pause=pause), saving(7, 200, pause)], event, share=700, **timing)
    )
    assert [kept(pcpu, v) for v in range(2)] == [
        {"own": 2 * 12 * 32, "host": 0, "other": 0, "zero": 0},
        {"own": 2 * 7 * 32, "host": 0, "other": 0, "zero": 0},
    ]
    assert [(party.entries, party.foreign, party.lost) for party in pcpu.findings.guests] == [(768, 0, 0), (448, 0, 0)]
    assert (pcpu.findings.host.foreign, pcpu.findings.host.stale, pcpu.findings.broken) == (0, 0, {})


@pytest.mark.parametrize(
    ("design", "event", "whose", "broken"),
    [
        ("archlbr", None, "zero", set()),
        ("archlbr", PINNED, "zero", set()),
        ("series-v2", None, "other", {"S2"}),
        ("series-v2", PINNED, "host", {"S1"}),
        ("mediated-lbr", FLEXIBLE, "host", {"S1"}),
    ],
)
def test_xsaves_goes_round_the_msr_bitmap(design: str, event: Opened | None, whose: str, broken: set[str]) -> None:
    # Nothing intercepts XSAVES in series v2 (reference perf-kvm-contract.md A2): a guest without LBRs of its own looks.
    programs = [peeking(), toggling(SAPPHIRE_RAPIDS)]
    pcpu = finish(shared(HYPERVISORS[design], SAPPHIRE_RAPIDS, programs, event, share=700))
    found = kept(pcpu, 0)
    assert sum(found.values()) == 6 * 32
    assert {name for name, count in found.items() if count and name != "zero"} == {whose} - {"zero"}
    assert found[whose] > 100
    assert pcpu.findings.guests[0].foreign == found["host"] + found["other"]
    assert broken <= pcpu.findings.broken.keys()


def test_a_guest_alone_shares_with_a_host_task() -> None:
    cpu = SAPPHIRE_RAPIDS
    pcpu = finish(shared(ARCHLBR, cpu, [steady(cpu)], OF_TASK, share=2_000, every=7_000))
    assert kept(pcpu, 0) == {"own": 384, "host": 0, "other": 0, "zero": 0}
    assert pcpu.findings.host.entries > 0
    assert pcpu.findings.broken == {}


def test_depths_that_differ_move_with_their_guests() -> None:
    cpu = SAPPHIRE_RAPIDS
    programs = [steady(cpu, depth=8), steady(cpu, depth=16)]
    pcpu = finish(shared(ARCHLBR, cpu, programs, FLEXIBLE, share=700))
    assert [kept(pcpu, v)["own"] for v in range(2)] == [12 * 8, 12 * 16]
    assert (pcpu.findings.host.foreign, pcpu.findings.broken) == (0, {})


# What happens to real code under each design: the guests, the host's event, the time, the property, and where what the
# first guest kept shows it: addresses of the host's, of the other guest's, nothing where it had records.
S, A = SKYLAKE_SERVER, SAPPHIRE_RAPIDS
LEAKS: dict[str, tuple[str, Model, list[bytes], Opened | None, dict[str, int], str, str]] = {
    "I1": ("vlbr-6.1", S, [toggling(S)], FLEXIBLE, {"share": 2_000}, "S1", "host"),
    "I3": ("vlbr-6.12", S, [reading(S)], PINNED, {"share": 2_000}, "S1", "host"),
    "I4": ("vlbr-6.12", S, [steady(S), plain()], PINNED, {"share": 2_000, "opens": 5_000}, "G1", "zero"),
    "I5": ("vlbr-6.12", S, [steady(S), unread()], None, {"share": 2_000, "refuses": 1}, "S2", "other"),
    "I5b": ("vlbr-6.12", S, [steady(S), quiet(S)], None, {"share": 2_000}, "S2", "other"),
    "I6": ("vlbr-6.12", S, [steady(S)], FLEXIBLE, {"share": 2_000, "every": 2_500}, "S1", "host"),
    "I7": ("vlbr-6.12", S, [toggling(S, pause=3_000), plain()], None, {"share": 1_000}, "G1", "zero"),
    "I11": ("vlbr-6.12", S, [unread()], FLEXIBLE, {"share": 2_000, "refuses": 1}, "H2", ""),
    "I11b": ("vlbr-6.12", S, [steady(S)], FLEXIBLE, {"share": 2_000, "every": 1_900, "period": 20}, "H2", ""),
    "I12": ("vlbr-6.12", S, [plain(4_000)], OF_GUEST, {"share": 2_000}, "H3", ""),
    "R5": ("request", A, [steady(A)], FLEXIBLE, {"share": 2_000, "every": 900, "period": 7}, "S1", "host"),
    "R6": ("request", A, [steady(A)], FLEXIBLE, {"share": 700, "opens": 700, "period": 7}, "H1", ""),
    "R8": ("request", A, [steady(A)], FLEXIBLE, {"share": 2_000}, "H2", ""),
}


def run_of(name: str) -> Pcpu:
    design, model, programs, event, timing, _, _ = LEAKS[name]
    return finish(shared(HYPERVISORS[design], model, programs, event, **timing))


@pytest.mark.parametrize("name", LEAKS)
def test_an_interleaving_that_the_search_finds_happens_to_real_code(name: str) -> None:
    design, _, programs, event, _, claim, shows = LEAKS[name]
    pcpu = run_of(name)
    assert pcpu.findings.broken[claim] > 0
    for v, party in enumerate(pcpu.findings.guests):
        by_address = kept(pcpu, v)
        assert party.foreign == by_address["host"] + by_address["other"]
    assert not shows or kept(pcpu, 0)[shows] > 0
    seen = observed(
        HYPERVISORS[design].sharing, len(programs), event, pcpu.path[: pcpu.findings.first[claim] + 16], claim
    )
    assert name in [one.name for one in seen]
    one = next(one for one in seen if one.name == name)
    # The line replays, breaks the property with its last step and not before, and is as short as what the search found.
    line = replay.decode(one.line)
    states = replay.run(model_of(line.model), line).states
    assert [bool(state.seen & BIT[claim]) for state in states] == [False] * (len(states) - 1) + [True]
    named = next(entry for entry in NAMED if entry.name == name)
    found = judge(designs.named(design), scenarios.named(named.scenario), (claim,)).found[claim]
    assert len(found) <= len(one.path) <= len(found) + 4


def prevents(named: Named) -> str:
    """Why a machine of one pCPU cannot bring an interleaving about; empty when nothing prevents it."""
    scenario = scenarios.named(named.scenario)
    path = judge(designs.named(named.design), scenario, (named.claim,)).found[named.claim] or ()
    missing = {kind for kind, _, _ in path} - ACTIONS
    event = scenario.events[0]
    if scenario.cpus > 1:
        return f"{scenario.cpus} pCPUs"
    if "overflow" in scenario.may:
        assert min(model.pmu.version for model in MODELS.values()) >= 4
        return "a freeze of perfmon 2 or 3"
    if BY_NAME[named.claim].kind == "response":
        return "a run without an end"
    if missing:
        return ", ".join(sorted(missing))
    if event is not None and event.callstack:
        return "a call-stack event of the host's"
    return "" if named.claim in CLAIMS else f"{named.claim}, which no guest and no sample shows"


PREVENTED = {
    "I2": "H4, which no guest and no sample shows", "I6b": "2 pCPUs", "I6d": "a call-stack event of the host's",
    "I8": "a run without an end", "I9": "a freeze of perfmon 2 or 3", "I10": "a freeze of perfmon 2 or 3",
    "I13": "2 pCPUs", "I14": "nest, unnest", "I15": "C1, which no guest and no sample shows", "I16": "hole",
    "I17": "migrate", "A1": "H4, which no guest and no sample shows", "A2": "xsaves", "A3": "nest", "A4": "rsm, smi",
    "A5": "depth", "R1": "L2-entry, which no guest and no sample shows", "R2": "2 pCPUs", "R3": "a run without an end",
    "R4": "a run without an end", "R7": "a run without an end",
}  # fmt: skip


def test_each_named_interleaving_happens_or_something_prevents_it() -> None:
    found = [named for named in NAMED if named.found]
    prevented = {named.name: prevents(named) for named in found}
    assert {name: reason for name, reason in prevented.items() if reason} == PREVENTED
    assert {name for name, reason in prevented.items() if not reason} == set(LEAKS)


def test_the_machine_does_what_it_is_said_to_do_and_nothing_else() -> None:
    done = {kind for name in ("I4", "I11", "R8") for kind, _, _ in run_of(name).path}
    other = finish(shared(ARCHLBR, A, [toggling(A), steady(A)], FLEXIBLE, share=700, every=3_000))
    assert done | {kind for kind, _, _ in other.path} == ACTIONS


@pytest.mark.parametrize(("design", "program"), [("series-v2", reading(A)), ("mediated-lbr", toggling(A))])
def test_architectural_lbrs_leak_to_both_guests_under_a_naive_design(design: str, program: bytes) -> None:
    pcpu = finish(shared(HYPERVISORS[design], A, [program, program], PINNED, share=700))
    assert pcpu.findings.broken["S1"] > 0
    for v, party in enumerate(pcpu.findings.guests):
        assert kept(pcpu, v)["host"] == party.foreign > 0


@pytest.mark.parametrize("design", HYPERVISORS)
def test_what_a_run_breaks_the_model_breaks_on_the_same_path(design: str) -> None:
    # One record a stack in the model, so it may miss what only older records show; it must not see what did not happen
    # to the guests: S1, S2 and H1 of the run and of the model go together.
    cpu = SKYLAKE_SERVER if design.startswith("vlbr") else SAPPHIRE_RAPIDS
    hypervisor = HYPERVISORS[design]
    pcpu = finish(shared(hypervisor, cpu, [steady(cpu), quiet(cpu, rest=4_000)], FLEXIBLE, share=2_000))
    may = frozenset({"lbr_on", "lbr_off", "read", "nmi"})
    scenario = Scenario("run", "two guests of a machine", may, vcpus=2, events=(FLEXIBLE,), active=1)
    model = designs.model(hypervisor.sharing, scenario)
    path = [(kind, c, 0) if kind == "host_branch" else (kind, c, argument) for kind, c, argument in pcpu.path]
    told = {claim for claim in ("S1", "S2", "H1") if followed(model, path, claim) is not None}
    assert told == {"S1", "S2", "H1"} & set(pcpu.findings.broken)


def test_the_exit_path_runs_before_an_nmi_where_a_design_handles_it_late() -> None:
    pcpu = finish(shared(HYPERVISORS["vlbr-6.1"], S, [plain(4_000)], OF_GUEST, share=2_000))
    host = pcpu.findings.host
    assert set(pcpu.findings.broken) == {"H3"}
    assert host.foreign >= 32 * pcpu.findings.broken["H3"]  # whole stacks of the host's in samples of the guest


@pytest.mark.parametrize("seed", range(6))
def test_random_accesses_of_two_guests_show_nothing_foreign_with_archlbr(seed: int) -> None:
    draw = random.Random(seed)
    cpu = draw.choice([S, A])
    event = draw.choice([None, FLEXIBLE, PINNED, OF_GUEST])
    timing = {"share": draw.choice([100, 500, 2_000]), "every": draw.choice([0, 700]), "period": draw.choice([10, 100])}
    pcpu = finish(shared(ARCHLBR, cpu, [anything(cpu, draw) for _ in range(2)], event, **timing))
    assert [board.status for board in pcpu.guests] == [1, 1]
    assert pcpu.findings.broken == {}
    assert [party.foreign for party in (*pcpu.findings.guests, pcpu.findings.host)] == [0, 0, 0]


@pytest.mark.parametrize("design", HYPERVISORS)
def test_random_accesses_of_two_guests_end_nothing_but_the_guests(design: str) -> None:
    draw = random.Random(design)
    cpu = S if design.startswith("vlbr") else A
    pcpu = finish(
        shared(HYPERVISORS[design], cpu, [anything(cpu, draw) for _ in range(2)], FLEXIBLE, share=500, every=900)
    )
    assert [board.status for board in pcpu.guests] == [1, 1]


# Steps of `archlbr`'s hand-over that are left out or done wrongly, and the property that falls in a run.
BUGS = {
    "stop": "S1", "load": "S2", "load-wipes": "G1", "exit-clear": "S1", "exit-owner": "H2", "save": "G1",
    "save-late": "G1", "start-wipe": "H2", "start-enable": "H1", "claim-wipe": "H2", "claim-owner": "S1",
    "claim-early": "H2", "claim-half": "H2", "put-save": "G1", "nmi-owner": "H2", "nmi-stale": "H1",
}  # fmt: skip
TRIALS: tuple[tuple[list[bytes], Opened | None, dict[str, int]], ...] = (
    ([toggling(A), steady(A)], FLEXIBLE, {"every": 3_000}),
    ([steady(A)], FLEXIBLE, {"every": 2_500, "period": 20}),
    ([steady(A), reading(A)], FLEXIBLE, {}),
    ([toggling(A), steady(A)], FLEXIBLE, {}),
    ([steady(A), reading(A)], None, {}),
)


@pytest.mark.parametrize("bug", BUGS)
def test_a_seeded_bug_shows_in_real_code(bug: str) -> None:
    hypervisor = Hypervisor(ARCHLBR.registers, seeded(bug))
    runs = (finish(shared(hypervisor, A, programs, event, share=700, **timing)) for programs, event, timing in TRIALS)
    assert any(BUGS[bug] in pcpu.findings.broken for pcpu in runs)


@pytest.mark.parametrize("bug", ["vmenter-enable", "vmenter-muted", "load-owner"])
def test_the_vpmus_step_and_the_hosts_must_agree_at_vm_entry(bug: str) -> None:
    hypervisor = Hypervisor(ARCHLBR.registers, seeded(bug))
    with pytest.raises(InternalError, match="VM entry loads the enable bit"):
        finish(shared(hypervisor, A, [steady(A), steady(A)], FLEXIBLE, share=700))


def test_two_runs_are_the_same() -> None:
    one, other = run_of("I6"), run_of("I6")
    assert one.path == other.path
    assert (one.findings, kept(one, 0)) == (other.findings, kept(other, 0))
