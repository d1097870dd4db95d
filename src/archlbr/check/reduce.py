"""Two ways to explore less: representatives of symmetric states, and one order of independent actions.

`explore` takes both; the model says what is symmetric and what is independent, and the tests compare verdicts with and
without. Neither is on unless asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from archlbr.check.model import A, Model, S

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Hashable, Iterable, Sequence


def least_of(images: Callable[[S], Iterable[S]]) -> Callable[[S], S]:
    """Return the canonical form that picks the least of a state's images under the symmetry group.

    The images must hold the state itself, and states must be ordered (tuples of ints are).
    """

    def canonical(state: S) -> S:
        ordered: Iterable[Any] = images(state)
        least: S = min(ordered)
        return least

    return canonical


@dataclass(frozen=True, slots=True)
class Independence(Generic[S, A]):
    """Which actions need not be interleaved.

    process: the actor an action belongs to. local: the action, taken in this state, commutes with every action of the
    other actors from here on, no property sees it, and no other action of its own actor becomes possible before it is
    taken. The claim is the model's; a wrong one loses states.
    """

    process: Callable[[A], Hashable]
    local: Callable[[S, A], bool]

    def ample(self, model: Model[S, A], state: S, actions: Sequence[A], visited: Container[S]) -> Sequence[A]:
        """Return the actions to follow: those of one actor when all of them are local and one leads to a new state.

        The last condition keeps an action from being put off round a cycle for ever.
        """
        by_process: dict[Hashable, list[A]] = {}
        for action in actions:
            by_process.setdefault(self.process(action), []).append(action)
        if len(by_process) < 2:
            return actions
        for chosen in by_process.values():
            if all(self.local(state, action) for action in chosen):
                successors = [model.next(state, action) for action in chosen]
                if any(after is not None and after not in visited for after in successors):
                    return chosen
        return actions
