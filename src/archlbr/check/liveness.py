"""Response under fairness: what is owed does not stay owed for ever.

`explore` leaves the graph of a complete search here. A response property fails when there is a reachable cycle in which
the debt stands in each state, and which is fair: each class of actions that is promised not to be put off is taken
somewhere on the cycle, or is impossible somewhere on it; where the promise is strong, everywhere on it. It also fails
in a state with a debt in which no promised action is possible: nothing obliges the system to leave it. Both are decided
exactly, by the strongly connected components of the states that owe; the lasso that is printed is a shortest way to any
such component and a way round in it, but not always the shortest of all lassos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from archlbr.check.explore import Graph, path_to, possible, successors_of
from archlbr.check.model import A, Model, Property, S
from archlbr.check.reduce import least_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Lasso(Generic[A]):
    """A run that never pays: the way to the cycle, and the cycle (empty where the system may stay for ever)."""

    stem: tuple[A, ...]
    cycle: tuple[A, ...]


def violation(
    model: Model[S, A],
    graph: Graph[S, A],
    claim: Property[S],
    class_of: Callable[[A], str],
    images: Callable[[S], Iterable[S]] | None = None,
) -> Lasso[A] | None:
    """Return a fair run that owes for ever, or None when there is none.

    class_of: the fairness class of an action; only the classes that the claim names are promised. images: of a graph
    that was reduced by symmetry, a state and its images; those that owe are unfolded again, since a class may name what
    the symmetry exchanges. The debt, and the promised classes as a set, must not change under it.
    """
    owes, expand = known_by_key(claim), successors_of(model)
    canonical = None if images is None else least_of(images)
    homes: dict[S, int] = {}  # each state that owes, with its place in the graph
    for number, state in enumerate(graph.states):
        if owes(state):
            homes.update((image, number) for image in (images(state) if images is not None else (state,)))
    owing = list(homes)
    places = {state: place for place, state in enumerate(owing)}
    edges: list[list[tuple[A, int]]] = []
    enabled: list[set[str]] = []
    at_rest: set[int] = set()  # where nothing that is promised is possible
    for place, state in enumerate(owing):
        ways = expand(state)
        enabled.append({class_of(action) for action, _ in ways})
        if not enabled[-1].intersection(claim.fair):
            at_rest.add(place)
        edges.append([(action, places[after]) for action, after in ways if after in places])
    lasting: dict[int, set[int]] = {}  # each state of a component with a fair cycle, with its component
    for component in _fair_components(claim, range(len(owing)), edges, enabled, class_of):
        members = set(component)
        lasting.update((place, members) for place in component)
    if not lasting and not at_rest:
        return None
    # The states were met in the order of their distance, and their images with them.
    start = min(*lasting, *at_rest, len(owing))
    stem = path_to(model, graph, homes[owing[start]], canonical)
    if start in at_rest:
        return Lasso(stem, ())
    if canonical is not None:
        start = places[_end(model, graph, stem, canonical)]
    return Lasso(stem, _tour(claim, start, lasting[start], edges, enabled, class_of))


def _fair_components(
    claim: Property[S],
    nodes: Sequence[int],
    edges: list[list[tuple[A, int]]],
    enabled: list[set[str]],
    class_of: Callable[[A], str],
) -> list[list[int]]:
    # The components with a cycle that keeps each promise. A strong promise that one does not keep forbids the states in
    # which its class is possible; what is left falls into components again (Emerson and Lei's algorithm).
    found: list[list[int]] = []
    work = [list(nodes)]
    while work:
        inside = set(here := work.pop())
        for component in components(here, {place: [to for _, to in edges[place] if to in inside] for place in here}):
            members = set(component)
            taken = {class_of(action) for place in component for action, to in edges[place] if to in members}
            if not taken:
                continue  # one state without a transition to itself
            broken = [name for name in claim.fair if name not in taken]
            if any(all(name in enabled[place] for place in component) for name in broken):
                continue  # possible in each state, and never taken
            barred = {name for name in broken if claim.strong and any(name in enabled[place] for place in component)}
            if not barred:
                found.append(component)
            elif left := [place for place in component if not barred & enabled[place]]:
                work.append(left)
    return found


def _end(model: Model[S, A], graph: Graph[S, A], path: tuple[A, ...], canonical: Callable[[S], S]) -> S:
    # Where a path leads: to an image of the state that it was made for.
    state = next(first for first in model.initial() if canonical(first) == graph.states[0])
    for action in path:
        after = model.next(state, action)
        assert after is not None
        state = after
    return state


def owes_for_ever(
    model: Model[S, A], claim: Property[S], states: Sequence[S], cycle: Sequence[A], class_of: Callable[[A], str]
) -> bool:
    """Say whether a cycle is a fair run that owes for ever. states: those on it; cycle: its actions, none to stay."""
    if not all(claim.predicate(state) for state in states):
        return False
    taken = {class_of(action) for action in cycle}
    enabled = [{class_of(action) for action, _ in possible(model, state)} for state in states]
    if not cycle:
        return not enabled[0].intersection(claim.fair)
    possible_on = any if claim.strong else all
    return not any(possible_on(name in here for here in enabled) for name in claim.fair if name not in taken)


def known_by_key(claim: Property[S]) -> Callable[[S], bool]:
    """Return the claim's predicate, asked once for each key where the claim has one."""
    key, predicate = claim.key, claim.predicate
    if key is None:
        return predicate
    known: dict[Hashable, bool] = {}

    def owes(state: S) -> bool:
        at = key(state)
        held = known.get(at)
        if held is None:
            held = known[at] = predicate(state)
        return held

    return owes


def components(nodes: Sequence[int], edges: dict[int, list[int]]) -> list[list[int]]:
    """Return the strongly connected components (Tarjan's algorithm, without recursion)."""
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    on_stack: set[int] = set()
    stack: list[int] = []
    result: list[list[int]] = []
    for root in nodes:
        if root in order:
            continue
        work = [(root, iter(edges[root]))]
        order[root] = low[root] = len(order)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, successors = work[-1]
            for target in successors:
                if target not in order:
                    order[target] = low[target] = len(order)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, iter(edges[target])))
                    break
                if target in on_stack:
                    low[node] = min(low[node], order[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    component: list[int] = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        component.append(member)
                        if member == node:
                            break
                    result.append(component)
    return result


def _tour(
    claim: Property[S],
    start: int,
    members: set[int],
    edges: list[list[tuple[A, int]]],
    enabled: list[set[str]],
    class_of: Callable[[A], str],
) -> tuple[A, ...]:
    # Round from `start` to itself through an edge that keeps each promise, or for a weak one a state that does.
    taken = {class_of(action) for place in members for action, to in edges[place] if to in members}
    at, tour, passed = start, list[A](), {start}
    for name in claim.fair:
        rests = not claim.strong and any(name not in enabled[place] for place in passed)
        if rests or (claim.strong and name not in taken) or any(class_of(action) == name for action in tour):
            continue

        def satisfied(action: A, number: int, name: str = name) -> bool:
            return class_of(action) == name or (not claim.strong and name not in enabled[number])

        way, at = _walk(at, members, edges, satisfied)
        tour += way
        passed.add(at)
    if at != start or not tour:
        way, at = _walk(at, members, edges, lambda _action, number: number == start)
        tour += way
    return tuple(tour)


def _walk(
    start: int,
    members: set[int],
    edges: list[list[tuple[A, int]]],
    goal: Callable[[A, int], bool],
) -> tuple[list[A], int]:
    # The shortest walk of at least one step inside the component whose last step (action, target) meets the goal.
    queue: list[tuple[int, list[A]]] = [(start, [])]
    met = {start}
    for number, way in queue:
        for action, target in edges[number]:
            if target in members:
                if goal(action, target):
                    return [*way, action], target
                if target not in met:
                    met.add(target)
                    queue.append((target, [*way, action]))
    raise AssertionError("a strongly connected component has a way between any two of its states")
