"""Response under weak fairness: what is owed does not stay owed for ever.

`explore` leaves the graph of a complete search here. A response property fails when there is a reachable cycle in which
the debt stands in each state, and which is fair: each class of actions that is promised not to be put off is taken
somewhere on the cycle, or is impossible somewhere on it. It also fails in a state with a debt in which no promised
action is possible: nothing obliges the system to leave it. Both are decided exactly, by the strongly connected
components of the states that owe; the lasso that is printed is a shortest way to the component and a way round in it,
but not always the shortest of all lassos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from archlbr.check.explore import Graph, path_to, successors_of
from archlbr.check.model import A, Model, Property, S

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence


@dataclass(frozen=True, slots=True)
class Lasso(Generic[A]):
    """A run that never pays: the way to the cycle, and the cycle (empty where the system may stay for ever)."""

    stem: tuple[A, ...]
    cycle: tuple[A, ...]


def violation(
    model: Model[S, A], graph: Graph[S, A], claim: Property[S], class_of: Callable[[A], str]
) -> Lasso[A] | None:
    """Return a fair run that owes for ever, or None when there is none.

    class_of: the fairness class of an action; only the classes that the claim names are promised.
    """
    owes = known_by_key(claim)
    expand = successors_of(model)
    owing = [number for number, state in enumerate(graph.states) if owes(state)]
    edges: dict[int, list[tuple[A, int]]] = {}
    inside = set(owing)
    enabled: dict[int, set[str]] = {}
    for number in owing:
        ways = [(action, graph.index[after]) for action, after in expand(graph.states[number])]
        enabled[number] = {class_of(action) for action, _ in ways}
        if not enabled[number].intersection(claim.fair):
            return Lasso(path_to(model, graph, number), ())
        edges[number] = [(action, target) for action, target in ways if target in inside]
    for component in components(owing, {number: [to for _, to in ways] for number, ways in edges.items()}):
        members = set(component)
        taken = {class_of(action) for number in component for action, to in edges[number] if to in members}
        if not taken:
            continue  # one state without a transition to itself
        if all(name in taken or any(name not in enabled[number] for number in component) for name in claim.fair):
            start = min(component)
            return Lasso(path_to(model, graph, start), _tour(start, members, edges, claim.fair, enabled, class_of))
    return None


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
    start: int,
    members: set[int],
    edges: dict[int, list[tuple[A, int]]],
    fair: tuple[str, ...],
    enabled: dict[int, set[str]],
    class_of: Callable[[A], str],
) -> tuple[A, ...]:
    # Round from `start` to itself through an edge, or a state, that satisfies each promise.
    at, tour, passed = start, list[A](), {start}
    for name in fair:
        if any(class_of(action) == name for action in tour) or any(name not in enabled[number] for number in passed):
            continue

        def satisfied(action: A, number: int, name: str = name) -> bool:
            return class_of(action) == name or name not in enabled[number]

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
    edges: dict[int, list[tuple[A, int]]],
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
