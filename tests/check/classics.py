"""Small classical models whose answers are known, for the explorer's tests."""

from __future__ import annotations

from typing import NamedTuple


class CounterRace:
    """N threads add 1 to a counter by load, add, store; a state is (counter, ((pc, register), ...))."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def initial(self):
        return [(0, ((0, 0),) * self.threads)]

    def actions(self, state):
        return [thread for thread in range(self.threads) if state[1][thread][0] < 2]

    def next(self, state, action):
        counter, threads = state
        pc, register = threads[action]
        counter, moved = (counter, (1, counter)) if pc == 0 else (register + 1, (2, 0))
        return counter, (*threads[:action], moved, *threads[action + 1 :])

    def describe(self, action):
        return f"thread {action} moves"


class PetersonState(NamedTuple):
    pcs: tuple[int, int]
    flags: tuple[int, int]
    turn: int


class Peterson:
    """Peterson's algorithm for two; pc 0 idle, 1 flag raised, 2 waiting, 3 critical. The bug: no turn is given away."""

    def __init__(self, yields: bool = True) -> None:
        self.yields = yields

    def initial(self):
        return [PetersonState((0, 0), (0, 0), 0)]

    def actions(self, state):
        return (0, 1)

    def next(self, state, action):
        pcs, flags, turn = state
        pc, other = pcs[action], 1 - action

        def put(pair, value):
            return (value, pair[1]) if action == 0 else (pair[0], value)

        if pc == 0:
            return PetersonState(put(pcs, 1), put(flags, 1), turn)
        if pc == 1:
            return PetersonState(put(pcs, 2), flags, other if self.yields else action)
        if pc == 2:
            if flags[other] and turn == other:
                return None
            return PetersonState(put(pcs, 3), flags, turn)
        return PetersonState(put(pcs, 0), put(flags, 0), turn)

    def describe(self, action):
        return f"process {action} moves"


class Philosophers:
    """N philosophers, left fork first; a state gives each one 0 thinking, 1 left fork held, 2 eating."""

    def __init__(self, count: int) -> None:
        self.count = count

    def initial(self):
        return [(0,) * self.count]

    def actions(self, state):
        return range(self.count)

    def next(self, state, action):
        at = state[action]
        left, right = state[action - 1], state[(action + 1) % self.count]
        # The left fork is also the left neighbour's right fork; the right one is the right neighbour's left fork.
        if at == 0:
            if left == 2:
                return None
            after = 1
        elif at == 1:
            if right:
                return None
            after = 2
        else:
            after = 0
        return (*state[:action], after, *state[action + 1 :])

    def describe(self, action):
        return f"philosopher {action}"


class Ring:
    """Leader election on a one-way ring (Chang and Roberts): a channel a node, numbers travel, the largest wins.

    State: (channels, leader); channel i holds what node i has to read, in order.
    """

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self.numbers = numbers

    def initial(self):
        return [(tuple((self.numbers[i - 1],) for i in range(len(self.numbers))), -1)]

    def actions(self, state):
        return range(len(self.numbers))

    def next(self, state, action):
        channels, leader = state
        if not channels[action]:
            return None
        number, *rest = channels[action]
        after = list(channels)
        after[action] = tuple(rest)
        mine = self.numbers[action]
        if number == mine:
            return tuple(after), action
        if number > mine:
            onward = (action + 1) % len(self.numbers)
            after[onward] = (*after[onward], number)
        return tuple(after), leader

    def describe(self, action):
        return f"node {action} reads"
