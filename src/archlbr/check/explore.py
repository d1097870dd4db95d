"""Breadth-first search of a model: every reachable state, the shortest path to each discovery; and random walks.

`contract` and `cli` feed it models and read its results. The visited set is a dict of the states themselves, so a
complete exploration is exact. What is found is a shortest path in the number of actions, because states are met in the
order of their distance.
"""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from archlbr.check.model import ALWAYS, RESPONSE, A, Model, Property, S
from archlbr.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

    from archlbr.check.reduce import Independence


@dataclass(frozen=True, slots=True)
class Exploration(Generic[A]):
    """What a search found.

    complete: False when a limit or an interrupt stopped it. states, edges: distinct states, transitions that led
    somewhere. depth: the longest distance from the start. found: property -> the shortest path of actions that violates
    an `always` or witnesses a `sometimes`. deadlock: the shortest path to a state without a transition, or None.
    coverage: action -> times taken.
    """

    complete: bool
    states: int
    edges: int
    depth: int
    found: dict[str, tuple[A, ...]]
    deadlock: tuple[A, ...] | None
    coverage: dict[A, int]


class Graph(Generic[S, A]):
    """The states met so far, in the order they were met, and how each was reached."""

    __slots__ = ("actions", "index", "parents", "states")

    def __init__(self) -> None:
        """Hold no state yet."""
        self.states: list[S] = []
        self.index: dict[S, int] = {}
        self.parents = array("q")
        self.actions: list[A | None] = []

    def meet(self, state: S, parent: int, action: A | None) -> None:
        """Add a state that is new."""
        self.index[state] = len(self.states)
        self.states.append(state)
        self.parents.append(parent)
        self.actions.append(action)

    def chain(self, at: int) -> list[int]:
        """Return the numbers of the states on the way to one, the start first."""
        way = [at]
        while self.parents[way[-1]] >= 0:
            way.append(self.parents[way[-1]])
        return way[::-1]


def possible(model: Model[S, A], state: S) -> Iterator[tuple[A, S]]:
    """Yield each action that leads somewhere, with where it leads."""
    for action in model.actions(state):
        after = model.next(state, action)
        if after is not None:
            yield action, after


def successors_of(model: Model[S, A]) -> Callable[[S], Sequence[tuple[A, S]]]:
    """Return what yields a state's transitions: the model's own `successors` where it has one, as `parts.Packed`."""
    own: Callable[[S], Sequence[tuple[A, S]]] | None = getattr(model, "successors", None)
    return own if own is not None else lambda state: list(possible(model, state))


class Judges(Generic[S]):
    """The `always` and `sometimes` claims that no path has decided yet; claims with one key are judged together."""

    __slots__ = ("_alone", "_grouped", "open")

    def __init__(self, properties: Sequence[Property[S]]) -> None:
        """Take the claims; responses are `liveness`'s."""
        self.open = {claim.name for claim in properties if claim.kind != RESPONSE}
        by_key: dict[Callable[[S], Hashable] | None, list[Property[S]]] = {}
        for claim in properties:
            if claim.kind != RESPONSE:
                by_key.setdefault(claim.key, []).append(claim)
        self._alone = by_key.pop(None, [])
        self._grouped: list[tuple[Callable[[S], Hashable], list[Property[S]], dict[Hashable, tuple[str, ...]]]] = [
            (key, claims, {}) for key, claims in by_key.items() if key is not None
        ]

    def decided(self, state: S) -> list[str]:
        """Return the open claims that a state decides, and close them."""
        names = [claim.name for claim in self._alone if bool(claim.predicate(state)) != (claim.kind == ALWAYS)]
        for key, claims, known in self._grouped:
            at = key(state)
            told = known.get(at)
            if told is None:
                told = known[at] = tuple(
                    [claim.name for claim in claims if bool(claim.predicate(state)) != (claim.kind == ALWAYS)]
                )
            if told:
                names += told
        if names:
            names = [name for name in names if name in self.open]
            self.open.difference_update(names)
        return names


def path_to(
    model: Model[S, A], graph: Graph[S, A], at: int, canonical: Callable[[S], S] | None = None
) -> tuple[A, ...]:
    """Return the actions that lead to a state; under symmetry, to one that is the same up to it."""
    chain = graph.chain(at)
    if canonical is None:
        steps = [graph.actions[number] for number in chain[1:]]
        return tuple(action for action in steps if action is not None)
    start = graph.states[chain[0]]
    state = next(first for first in model.initial() if canonical(first) == start)
    way: list[A] = []
    for number in chain[1:]:
        wanted = graph.states[number]
        for action in model.actions(state):
            after = model.next(state, action)
            if after is not None and canonical(after) == wanted:
                way.append(action)
                state = after
                break
        else:
            raise InternalError(
                f"step {len(way) + 1} of a path has no action that leads on: its canonical form does not commute"
                " with the actions, or the model is not deterministic"
            )
    return tuple(way)


def explore(
    model: Model[S, A],
    properties: Sequence[Property[S]],
    *,
    limit: int | None = None,
    until_found: bool = False,
    canonical: Callable[[S], S] | None = None,
    independence: Independence[S, A] | None = None,
    tick: Callable[[int], bool] | None = None,
    graph: Graph[S, A] | None = None,
) -> Exploration[A]:
    """Search a model breadth first.

    limit: the most states to meet. until_found: stop as soon as each `always` and `sometimes` has been decided by a
    path. canonical: a representative of the states that differ by symmetry alone. independence: see `reduce`. tick:
    called with the number of states expanded, each 4,096 of them; a true answer stops the search. graph: receives the
    states, for `liveness`.
    """
    graph = Graph() if graph is None else graph
    states, index, meet = graph.states, graph.index, graph.meet
    expand = successors_of(model)
    judges = Judges(properties)
    found: dict[str, tuple[A, ...]] = {}
    coverage: dict[A, int] = {}
    deadlock: tuple[A, ...] | None = None
    edges = depth = expanded = 0
    complete = True

    def note(names: Iterable[str], number: int) -> None:
        way = path_to(model, graph, number, canonical)
        found.update((name, way) for name in names)

    for first in model.initial():
        state = canonical(first) if canonical else first
        if state not in index:
            meet(state, -1, None)
            if names := judges.decided(state):
                note(names, len(states) - 1)
    level_ends = len(states)
    while expanded < len(states):
        if until_found and not judges.open:
            complete = False
            break
        if expanded == level_ends:
            depth += 1
            level_ends = len(states)
        state = states[expanded]
        ways = expand(state)
        if independence is not None:
            ways = independence.ample(model, state, ways, index)
        for action, after in ways:
            coverage[action] = coverage.get(action, 0) + 1
            if canonical is not None:
                after = canonical(after)
            if after not in index:
                meet(after, expanded, action)
                if names := judges.decided(after):
                    note(names, len(states) - 1)
        edges += len(ways)
        if not ways and deadlock is None:
            deadlock = path_to(model, graph, expanded, canonical)
        expanded += 1
        if limit is not None and len(states) >= limit and expanded < len(states):
            complete = False
            break
        if not expanded & 4095 and tick is not None and tick(expanded):
            complete = False
            break
    return Exploration(complete, len(states), edges, depth, found, deadlock, coverage)


@dataclass(frozen=True, slots=True)
class Walk(Generic[A]):
    """One random walk: the actions taken, and the first violated `always` property, or None. It proves nothing."""

    seed: int
    path: tuple[A, ...]
    violated: str | None


def walk(model: Model[S, A], properties: Sequence[Property[S]], seed: int, steps: int) -> Walk[A]:
    """Take up to `steps` actions chosen by a generator with this seed; end at the first violation or a dead end."""
    choose = random.Random(seed).choice  # noqa: S311  a walk must be repeatable, not secret
    claims = [claim for claim in properties if claim.kind == ALWAYS]
    state = choose(list(model.initial()))
    path: list[A] = []
    for _ in range(steps):
        broken = [claim.name for claim in claims if not claim.predicate(state)]
        if broken:
            return Walk(seed, tuple(path), broken[0])
        ways = list(possible(model, state))
        if not ways:
            break
        action, state = choose(ways)
        path.append(action)
    broken = [claim.name for claim in claims if not claim.predicate(state)]
    return Walk(seed, tuple(path), broken[0] if broken else None)


def check_determinism(model: Model[S, A], seed: int, steps: int) -> None:
    """Walk twice side by side and compare; InternalError at the first difference.

    A pass shows that these steps were the same twice in one process, and no more than that.
    """
    generator = random.Random(seed)  # noqa: S311  a walk must be repeatable, not secret
    state = generator.choice(list(model.initial()))
    for number in range(steps):
        one, two = list(possible(model, state)), list(possible(model, state))
        if one != two:
            raise InternalError(
                f"seed {seed}, step {number}: the same state gave {len(one)} and {len(two)} transitions, or other ones;"
                " the model reads something that is not in its state"
            )
        if not one:
            return
        state = generator.choice(one)[1]
