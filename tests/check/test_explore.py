"""The explorer against models whose answers are known by hand or by formula."""

from __future__ import annotations

import itertools
from math import factorial

import pytest

from archlbr.check.explore import check_determinism, explore, walk
from archlbr.check.model import always, sometimes
from archlbr.check.reduce import Independence, least_of
from archlbr.errors import InternalError
from tests.check.classics import CounterRace, Peterson, Philosophers, Ring


def test_the_counter_race_s_lost_update_is_found_in_four_steps() -> None:
    lost = always("all counted", lambda s: any(pc < 2 for pc, _ in s[1]) or s[0] == 2)
    found = explore(CounterRace(2), [lost])
    # By hand, by the two pcs: 00 1, 10 and 01 2, 20 and 02 2, 11 1, 21 and 12 2 each, 22 2 (counted 1 or 2).
    assert (found.complete, found.states) == (True, 12)
    assert len(found.found["all counted"]) == 4
    assert found.found["all counted"] == (0, 1, 0, 1)


def test_the_states_of_a_race_are_all_its_interleavings() -> None:
    # Independent of the explorer: enumerate every interleaving of 3 threads x 2 steps and collect what is passed.
    met = set()
    schedules = set(itertools.permutations([0, 0, 1, 1, 2, 2]))
    assert len(schedules) == factorial(6) // 8
    for schedule in schedules:
        counter, threads = 0, [(0, 0)] * 3
        met.add((counter, tuple(threads)))
        for thread in schedule:
            pc, register = threads[thread]
            if pc == 0:
                threads[thread] = (1, counter)
            else:
                counter = register + 1
                threads[thread] = (2, 0)
            met.add((counter, tuple(threads)))
    assert explore(CounterRace(3), []).states == len(met)


def test_peterson_excludes_and_both_get_in() -> None:
    claims = [always("exclusion", lambda s: s.pcs != (3, 3)), sometimes("first in", lambda s: s.pcs[0] == 3)]
    found = explore(Peterson(), claims)
    assert "exclusion" not in found.found
    assert len(found.found["first in"]) == 3
    assert found.deadlock is None


def test_peterson_without_giving_the_turn_away_is_found_wrong_on_a_shortest_path() -> None:
    found = explore(Peterson(yields=False), [always("exclusion", lambda s: s.pcs != (3, 3))])
    assert len(found.found["exclusion"]) == 6


@pytest.mark.parametrize("count", [3, 5, 8])
def test_philosophers_deadlock_when_each_holds_the_left_fork(count: int) -> None:
    found = explore(Philosophers(count), [])
    assert found.deadlock is not None
    assert sorted(found.deadlock) == list(range(count))
    # A 2 is followed by a 0 round the ring: trace of [[1,1,0],[1,1,1],[1,0,0]]^n, counted apart from the explorer.
    legal = sum(
        all(not (s[i] == 2 and s[(i + 1) % count]) for i in range(count))
        for s in itertools.product(range(3), repeat=count)
    )
    assert found.states == legal


def test_a_ring_elects_the_largest_and_only_it() -> None:
    ring = Ring((3, 1, 2))
    claims = [always("largest", lambda s: s[1] in (-1, 0)), sometimes("elected", lambda s: s[1] == 0)]
    found = explore(ring, claims)
    assert found.complete
    assert "largest" not in found.found
    # 3 passes nodes 1, 2 and comes home: three reads; 1 and 2 need not have moved, channels are per node and FIFO.
    assert len(found.found["elected"]) == 5


def test_symmetry_keeps_the_verdict_and_the_path_stays_real() -> None:
    race = CounterRace(3)
    lost = always("all counted", lambda s: any(pc < 2 for pc, _ in s[1]) or s[0] == 3)
    canonical = least_of(lambda s: ((s[0], p) for p in itertools.permutations(s[1])))
    plain, reduced = explore(race, [lost]), explore(race, [lost], canonical=canonical)
    assert reduced.states == len({canonical(s) for s in _states(race)})
    assert reduced.states < plain.states
    way = reduced.found["all counted"]
    assert len(way) == len(plain.found["all counted"])
    state = next(iter(race.initial()))
    for action in way:
        state = race.next(state, action)
    assert not lost.predicate(state)


def _states(model):
    met = list(model.initial())
    for state in met:
        met += [n for a in model.actions(state) if (n := model.next(state, a)) is not None and n not in met]
    return met


class TwoCounters:
    """Two private counters and nothing shared: (size+1)^2 states, of which one order needs 2*size+1."""

    size = 6

    def initial(self):
        return [(0, 0)]

    def actions(self, state):
        return [i for i in (0, 1) if state[i] < self.size]

    def next(self, state, action):
        return (state[0] + 1, state[1]) if action == 0 else (state[0], state[1] + 1)

    def describe(self, action):
        return str(action)


def test_independence_follows_one_order_and_reaches_the_same_end() -> None:
    reduction = Independence(process=lambda a: a, local=lambda _s, _a: True)
    end = sometimes("end", lambda s: s == (6, 6))
    plain, reduced = explore(TwoCounters(), [end]), explore(TwoCounters(), [end], independence=reduction)
    assert (plain.states, reduced.states) == (49, 13)
    assert len(plain.found["end"]) == len(reduced.found["end"]) == 12


def test_coverage_counts_each_transition() -> None:
    found = explore(TwoCounters(), [])
    assert found.coverage == {0: 42, 1: 42}
    assert (found.edges, found.depth) == (84, 12)


def test_a_limit_or_an_interrupt_is_said() -> None:
    assert not explore(Philosophers(8), [], limit=100).complete
    assert not explore(Philosophers(10), [], tick=lambda _n: True).complete


def test_a_walk_repeats_by_its_seed_and_finds_the_race() -> None:
    lost = always("all counted", lambda s: any(pc < 2 for pc, _ in s[1]) or s[0] == 2)
    walks = [walk(CounterRace(2), [lost], seed, 4) for seed in range(20)]
    assert walks == [walk(CounterRace(2), [lost], seed, 4) for seed in range(20)]
    assert {w.violated for w in walks} == {None, "all counted"}


def test_hidden_state_is_found_out() -> None:
    class Hidden(TwoCounters):
        calls = 0

        def next(self, state, action):
            Hidden.calls += 1
            return (state[0], Hidden.calls)

    check_determinism(TwoCounters(), 1, 12)
    with pytest.raises(InternalError, match="not in its state"):
        check_determinism(Hidden(), 1, 12)
