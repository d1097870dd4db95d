"""What can be explored, and what can be claimed of it.

`explore`, `liveness`, `reduce` and `replay` take a `Model`; `contract` builds models over the host's step. The states
themselves are kept, never fingerprints of them: two states are the same when they are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)
A = TypeVar("A", bound=Hashable)

ALWAYS, SOMETIMES, RESPONSE = "always", "sometimes", "response"


class Model(Protocol[S, A]):
    """A system in four functions, all pure and deterministic.

    initial: the states it may start in, in a fixed order. actions: what may happen in a state, in a fixed order.
    next: the state after an action, or None where the action does nothing. describe: an action in words.
    """

    def initial(self) -> Iterable[S]:
        """Return the states the system may start in."""
        ...

    def actions(self, state: S) -> Sequence[A]:
        """Return what may happen in a state."""
        ...

    def next(self, state: S, action: A) -> S | None:
        """Return the state after an action, None where it does nothing."""
        ...

    def describe(self, action: A) -> str:
        """Return an action in words."""
        ...


@dataclass(frozen=True, slots=True)
class Property(Generic[S]):
    """A claim. always: the predicate holds in each state. sometimes: it holds in one. response: see `liveness`.

    For a response the predicate says that something is owed; the claim is that under fairness it does not stay owed for
    ever. fair: the classes of actions that are not put off for ever, by the name `liveness` is given: what stays
    possible is taken. strong: 1 where even what is only possible again and again is taken again and again. parts: the
    places of the parts of a state that the predicate reads (`parts.Divided`), None for all of it. key: what the
    predicate reads, where that is less than the state: states with the same key are judged once.
    """

    name: str
    kind: str
    predicate: Callable[[S], bool]
    fair: tuple[str, ...] = ()
    parts: tuple[int, ...] | None = None
    key: Callable[[S], Hashable] | None = None
    strong: int = 0


def always(name: str, predicate: Callable[[S], bool], parts: tuple[int, ...] | None = None) -> Property[S]:
    """Return the claim that each reachable state satisfies the predicate."""
    return Property(name, ALWAYS, predicate, parts=parts)


def sometimes(name: str, predicate: Callable[[S], bool], parts: tuple[int, ...] | None = None) -> Property[S]:
    """Return the claim that some reachable state satisfies the predicate."""
    return Property(name, SOMETIMES, predicate, parts=parts)


def response(
    name: str,
    owed: Callable[[S], bool],
    fair: tuple[str, ...],
    parts: tuple[int, ...] | None = None,
    *,
    strong: int = 0,
) -> Property[S]:
    """Return the claim that no fair run has a suffix in which `owed` holds in each state."""
    return Property(name, RESPONSE, owed, fair, parts, strong=strong)
