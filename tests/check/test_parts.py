"""States taken apart: the packed search is the plain search, and a step that touches more than it says is found out."""

from __future__ import annotations

import pytest

from archlbr.check.explore import Graph, explore
from archlbr.check.liveness import violation
from archlbr.check.model import always, response
from archlbr.check.parts import Packed, Touch, check_parts
from archlbr.errors import InternalError
from tests.check.classics import CounterRace, Peterson, PetersonState


class PartedRace(CounterRace):
    """The race, with the counter and each thread as a part."""

    def split(self, state):
        return (state[0], *state[1])

    def join(self, parts):
        return parts[0], tuple(parts[1:])

    def offering(self):
        return tuple(range(1, 1 + self.threads))

    def touch(self, state, action):
        return Touch((0, 1 + action), (0, 1 + action))


class PartedPeterson(Peterson):
    """Peterson's algorithm, with each process's place and flag and the turn as a part."""

    def split(self, state):
        return (*state.pcs, *state.flags, state.turn)

    def join(self, parts):
        return PetersonState((parts[0], parts[1]), (parts[2], parts[3]), parts[4])

    def offering(self):
        return ()

    def touch(self, state, action):
        return Touch((action, 3 - action, 4), (action, 2 + action, 4))


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_the_packed_race_is_the_race(threads: int) -> None:
    lost = always("all counted", lambda s: any(pc < 2 for pc, _ in s[1]) or s[0] == threads)
    race = PartedRace(threads)
    packed = Packed(race)
    plain, small = Graph(), Graph()
    assert explore(packed, [packed.claim(lost)], graph=small) == explore(race, [lost], graph=plain)
    assert [packed.unpack(number) for number in small.states] == plain.states


def test_a_step_is_made_once_for_what_it_reads() -> None:
    # A thread's load or store reads the counter (0 to 4) and itself: pc 0, or pc 1 with what was loaded (0 to 3).
    packed = Packed(PartedRace(4))
    found = explore(packed, [])
    assert packed.steps <= 4 * 5 * 5 < found.edges


def test_a_response_and_an_exclusion_are_decided_alike() -> None:
    waits = response("entry", lambda s: s.pcs[0] == 2, fair=("1",), parts=(0,))
    excludes = always("exclusion", lambda s: s.pcs != (3, 3), parts=(0, 1))
    for model in (PartedPeterson(), PartedPeterson(yields=False)):
        packed, plain, small = Packed(model), Graph(), Graph()
        assert explore(packed, [packed.claim(excludes)], graph=small) == explore(model, [excludes], graph=plain)
        assert violation(packed, small, packed.claim(waits), str) == violation(model, plain, waits, str)


def test_every_transition_is_made_both_ways() -> None:
    assert check_parts(PartedRace(3)) == explore(PartedRace(3), []).edges
    assert check_parts(PartedPeterson()) == explore(Peterson(), []).edges


def test_a_read_that_is_not_named_is_found_out() -> None:
    class Forgets(PartedPeterson):
        def touch(self, state, action):
            return Touch((action, 4), (action, 2 + action, 4))  # the other's flag is read too

    with pytest.raises(InternalError, match="reads more"):
        check_parts(Forgets())


def test_a_write_that_is_not_named_is_found_out() -> None:
    class Forgets(PartedPeterson):
        def touch(self, state, action):
            return Touch((action, 3 - action, 4), (action, 4))  # the flag is written too

    with pytest.raises(InternalError, match="changes more"):
        explore(Packed(Forgets()), [])


def test_the_packed_model_offers_and_describes_as_the_model_does() -> None:
    packed, model = Packed(PartedPeterson()), Peterson()
    state = packed.initial()[0]
    assert packed.actions(state) == tuple(model.actions(model.initial()[0]))
    assert packed.describe(1) == "process 1 moves"
    assert packed.unpack(packed.next(state, 1)) == model.next(model.initial()[0], 1)
    with pytest.raises(InternalError, match="not offered"):
        packed.next(state, 2)
