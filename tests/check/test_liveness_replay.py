"""Response properties and replay lines."""

from __future__ import annotations

import pytest

from archlbr.check import replay
from archlbr.check.explore import Graph, explore
from archlbr.check.liveness import owes_for_ever, violation
from archlbr.check.model import always, response
from archlbr.check.reduce import least_of
from archlbr.errors import InputError
from tests.check.classics import CounterRace, Peterson, Philosophers


def lasso(model, claim, class_of=str):
    graph = Graph()
    assert explore(model, [], graph=graph).complete
    return violation(model, graph, claim, class_of)


def test_who_waits_in_peterson_gets_in_if_both_processes_move() -> None:
    waits = response("entry", lambda s: s.pcs[0] == 2, fair=("0", "1"))
    assert lasso(Peterson(), waits) is None


def test_who_is_never_scheduled_never_gets_in() -> None:
    assert lasso(Peterson(), response("entry", lambda s: s.pcs[0] == 2, fair=("1",))) is not None  # 0 may stop for ever
    assert lasso(Peterson(), response("entry", lambda s: s.pcs[0] == 2, fair=("0", "1"))) is None


def test_a_philosopher_starves_though_all_are_fair() -> None:
    hungry = response("eats", lambda s: s[0] == 1, fair=("0", "1", "2"))
    found = lasso(Philosophers(3), hungry)
    assert found is not None


class Switch:
    """A lamp that may be switched to and fro (0, 1), or broken for good by action 2."""

    def initial(self):
        return [0]

    def actions(self, state):
        return [1] if state == 1 else [0, 2] if state == 0 else [3]

    def next(self, state, action):
        return {0: 1, 1: 0, 2: 2, 3: 2}[action]

    def describe(self, action):
        return str(action)


def test_a_cycle_that_takes_each_fair_action_or_disables_it_is_a_violation() -> None:
    found = lasso(Switch(), response("never broken", lambda s: s == 2, fair=("3",)))
    assert found is not None
    assert (found.stem, found.cycle) == ((2,), (3,))


def test_an_action_put_off_for_ever_is_no_fair_run() -> None:
    class Patient(Switch):
        def next(self, state, action):
            return {0: 0, 1: 0, 2: 1, 3: 2}[action]

    owed = response("leaves 0", lambda s: s == 0, fair=("2",))
    assert lasso(Patient(), owed) is None
    lazy = lasso(Patient(), response("leaves 0", lambda s: s == 0, fair=("0",)))
    assert lazy is not None
    assert lazy.cycle == (0,)


class Door(Switch):
    """State 0 and 1 alternate by action 0; in 1 alone action 1 leads out to 2, where nothing is owed."""

    def actions(self, state):
        return [0, 1] if state == 1 else [0]

    def next(self, state, action):
        return 2 if state == 2 or action == 1 else 1 - state


def test_what_is_possible_only_now_and_then_wants_a_strong_promise() -> None:
    weak = lasso(Door(), response("gets out", lambda s: s < 2, fair=("0", "1")))
    assert weak is not None
    assert weak.stem == ()
    assert weak.cycle == (0, 0)
    assert lasso(Door(), response("gets out", lambda s: s < 2, fair=("0", "1"), strong=1)) is None


def test_a_strong_promise_forbids_states_and_what_is_left_may_still_cycle() -> None:
    class Porch(Door):
        # State 3, beside 0, has a cycle of its own that never passes 1.
        def actions(self, state):
            return [0, 2] if state == 0 else [0] if state == 3 else super().actions(state)

        def next(self, state, action):
            return 3 if state == 3 or action == 2 else super().next(state, action)

    found = lasso(Porch(), response("gets out", lambda s: s != 2, fair=("0", "1"), strong=1))
    assert found is not None
    assert (found.stem, found.cycle) == ((2,), (0,))


def test_the_way_to_the_nearest_cycle_is_given() -> None:
    class Stairs:
        # 0 .. 9 upwards, by action 0 and from 7 on by action 2, beside which each step may stay by action 1.
        def initial(self):
            return [0]

        def actions(self, state):
            return [2, 1] if state >= 7 else [0]

        def next(self, state, action):
            return state if action == 1 else min(state + 1, 9)

        def describe(self, action):
            return str(action)

    found = lasso(Stairs(), response("comes down", lambda _s: True, fair=("0", "1")))
    assert found is not None
    assert (len(found.stem), found.cycle) == (7, (1,))


@pytest.mark.parametrize("fair", [("0", "1", "2"), ()])
def test_symmetry_finds_the_same_lassos(fair: tuple[str, ...]) -> None:
    def images(state):
        return [state[place:] + state[:place] for place in range(len(state))]

    model = Philosophers(3)
    for owes in (lambda s: 1 in s, lambda s: 2 in s, lambda s: s == (1, 1, 1), lambda s: s.count(2) > 1):
        for strong in (0, 1):
            claim = response("debt", owes, fair, strong=strong)
            whole = lasso(model, claim)
            graph = Graph()
            explore(model, [], canonical=least_of(images), graph=graph)
            reduced = violation(model, graph, claim, str, images)
            assert (whole is None) == (reduced is None)
            if whole is not None and reduced is not None:
                assert len(whole.stem) == len(reduced.stem)
                assert owing_for_ever(model, reduced, claim)


def owing_for_ever(model, found, claim) -> bool:
    state = model.initial()[0]
    for action in found.stem:
        state = model.next(state, action)
    states = [state]
    for action in found.cycle:
        states.append(model.next(states[-1], action))
    return states[-1] == state and owes_for_ever(model, claim, states, found.cycle, str)


def test_what_is_no_lasso_is_told_from_one() -> None:
    weak = response("gets out", lambda s: s < 2, fair=("0", "1"))
    strong = response("gets out", lambda s: s < 2, fair=("0", "1"), strong=1)
    assert owes_for_ever(Door(), weak, (0, 1, 0), (0, 0), str)
    assert not owes_for_ever(Door(), strong, (0, 1, 0), (0, 0), str)  # 1 is possible in state 1
    assert not owes_for_ever(Door(), weak, (0,), (), str)  # 0 is promised, and possible
    assert not owes_for_ever(Door(), weak, (2, 2), (0,), str)  # nothing is owed
    assert not owes_for_ever(Switch(), response("r", lambda s: s == 2, fair=("2",)), (0, 1, 0), (0, 1), str)
    assert owes_for_ever(Switch(), response("r", lambda s: s == 2, fair=("0",)), (2,), (), str)


def test_a_debt_in_a_dead_end_is_a_violation() -> None:
    found = lasso(Philosophers(3), response("moves", lambda s: s == (1, 1, 1), fair=()))
    assert found is not None
    assert (sorted(found.stem), found.cycle) == ([0, 1, 2], ())


def line_of_the_race() -> str:
    race = CounterRace(2)
    path = explore(race, [always("a", lambda s: any(pc < 2 for pc, _ in s[1]) or s[0] == 2)]).found["a"]
    return replay.encode(replay.Line("race", "a", replay.choices_of(race, path)))


def test_a_line_replays_to_the_same_end() -> None:
    line = replay.decode(line_of_the_race())
    assert line == replay.Line("race", "a", (0, 1, 0, 0))
    run = replay.run(CounterRace(2), line)
    assert run.actions == (0, 1, 0, 1)
    assert run.states[-1] == (1, ((2, 0), (2, 0)))


def test_a_line_keeps_large_choices_and_the_loop() -> None:
    line = replay.Line("m/x", "L1", (0, 35, 36, 1295, 1296), 3)
    assert replay.decode(replay.encode(line)) == line


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: "hello", "not a replay line"),
        (lambda text: text.replace("replay-1", "replay-9"), "another version"),
        (lambda text: text.replace("0.1", "1.1"), "damaged"),
        (lambda text: text[:-1], "damaged"),
        (lambda text: replay.encode(replay.Line("race", "a", (0, 7))), "no longer applies"),
    ],
)
def test_a_bad_line_is_refused_in_one_line(spoil, message) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        replay.run(CounterRace(2), replay.decode(spoil(line_of_the_race())))
    assert "\n" not in str(refusal.value)
