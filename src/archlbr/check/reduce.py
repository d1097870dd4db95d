"""Two ways to explore less: representatives of symmetric states, and one order of independent actions.

`explore` takes both; the model says what is symmetric and what is independent, and the tests compare verdicts with and
without. Neither is on unless asked for. Symmetry keeps every verdict and each shortest length; `liveness` unfolds what
it needs. Independence keeps whether some transition breaks something, and each state that one part alone can be in;
what it does not keep is the length of a path, fair cycles, and states that two actors are in together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
    taken. The claim is the model's; a wrong one loses states. key: what `local` reads of a state, None for all of it.
    """

    process: Callable[[A], Hashable]
    local: Callable[[S, A], bool]
    key: Callable[[S], Hashable] | None = None
    _free: dict[Hashable, tuple[Hashable, ...]] = field(default_factory=dict)

    def free(self, model: Model[S, A], state: S) -> tuple[Hashable, ...]:
        """Return the actors of which each action that is offered is local, if there are others beside them."""
        by_process: dict[Hashable, list[A]] = {}
        for action in model.actions(state):
            by_process.setdefault(self.process(action), []).append(action)
        if len(by_process) < 2:
            return ()
        return tuple(
            [process for process, mine in by_process.items() if all(self.local(state, action) for action in mine)]
        )

    def ample(
        self, model: Model[S, A], state: S, ways: Sequence[tuple[A, S]], visited: Container[S]
    ) -> Sequence[tuple[A, S]]:
        """Return the transitions to follow: those of one actor when all of them are local and one leads somewhere new.

        The last condition keeps an action from being put off round a cycle for ever.
        """
        if self.key is None:
            free = self.free(model, state)
        else:
            key = self.key(state)
            known = self._free.get(key)
            free = self._free[key] = self.free(model, state) if known is None else known
        for process in free:
            chosen = [way for way in ways if self.process(way[0]) == process]
            if any(after not in visited for _, after in chosen):
                return chosen
        return ways
